"""From sums over the kernel matrix to MMD², its permutation distribution, the p-value and the witness.

With K the kernel matrix of the pooled sample, its diagonal 0, r = K·1, t = 1ᵀr, and s the 0/1 labels of the n
reference rows among N = n + m: a = sᵀKs and b = sᵀr give within-X = a, across = b − a, within-Y = t − 2b + a, and

    MMD²_u = a / (n(n − 1)) + (t − 2b + a) / (m(m − 1)) − 2(b − a) / (nm)

(Gretton, Borgwardt, Rasch, Schölkopf, Smola: "A kernel two-sample test", JMLR 2012, Lemma 6).

**Error of random features.** Each frequency ω gives one term, of the samples' characteristic functions φ̂ at ω:

    (n|φ̂_x|² − 1)/(n − 1) + (m|φ̂_y|² − 1)/(m − 1) − 2·Re(φ̂_x·φ̂_y*)

Its mean over ω is the exact unbiased MMD². Terms of different groups of frequencies are independent, so that the spread
of the groups' means bounds the distance of their mean from the kernel's MMD². The samples are given; only the
frequencies are random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.components.kernel.theory.permutations import rank_of_threshold
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.label_panels import LabelPanels
from driftline.components.kernel.tiles.sums import KernelSums

_FEWEST_GROUPS: Final = 8


def mmd2_unbiased(a: ArrayLike, b: ArrayLike, t: ArrayLike, n: int, m: int) -> NDArray[np.float64]:
    """Return MMD²_u for each vector of labels, of the shape that ``a``, ``b`` and ``t`` broadcast to."""
    a, b, t = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(t, np.float64)
    return a / (n * (n - 1)) + (t - 2 * b + a) / (m * (m - 1)) - 2 * (b - a) / (n * m)


def statistics(sums: KernelSums, grid: BlockGrid, panels: LabelPanels) -> NDArray[np.float64]:
    """Return MMD²_u of the observed labels and of each permutation for each kernel, shape (Q, 1 + B)."""
    totals = sums.rows.sum(axis=2)
    reached = np.zeros_like(sums.within)
    for index in range(grid.blocks):
        start, stop = grid.span(index)
        block = np.zeros((len(totals), grid.block))
        block[:, : stop - start] = totals[:, start:stop]
        bins = block.reshape(len(totals), -1, panels.bins.rows).sum(axis=2)
        reached += bins @ np.asarray(panels.panel(index)).astype(np.float64)
    return mmd2_unbiased(sums.within, reached, totals.sum(axis=1, keepdims=True), grid.n, grid.m)


def feature_statistics(sums: FeatureSums, n: int, m: int) -> NDArray[np.float64]:
    """Return MMD²_u of each kernel's random-feature approximation, shape (Q, 1 + B).

    With A_b the labelled sums and T the total, a = ‖A_b‖² − n, b = A_b·T − n and t = ‖T‖² − N: features have norm 1,
    so that the diagonal, which is left out, is known.
    """
    within = np.einsum("qbf,qbf->qb", sums.labelled, sums.labelled) - n
    reached = np.einsum("qbf,qf->qb", sums.labelled, sums.total) - n
    total = np.einsum("qf,qf->q", sums.total, sums.total)[:, None] - (n + m)
    return mmd2_unbiased(within, reached, total, n, m)


def feature_error_bound(
    sum_x: NDArray[np.float64], sum_y: NDArray[np.float64], n: int, m: int, group: int, delta: float = 0.01
) -> float:
    """Return a bound that the error in MMD² exceeds with probability ``delta``.

    It is by Student's t over groups of frequencies: the distribution of a group's mean is near normal. With fewer than
    8 groups there is no estimate, and the largest MMD² of a kernel no larger than 1 is returned, 4.

    Args:
        sum_x: (2F,) sum of the features over x, mapped by
            :class:`driftline.components.kernel.theory.random_features.RandomFeatures`.
        sum_y: (2F,) the same over y.
        n: rows of x, at least 2.
        m: rows of y, at least 2.
        group: frequencies in a group, within which they are orthogonal; 1 where all are independent.
        delta: probability, in (0, 1).
    """
    count = len(sum_x) // 2
    cos_x, sin_x, cos_y, sin_y = sum_x[:count], sum_x[count:], sum_y[:count], sum_y[count:]
    within_x = count * (cos_x**2 + sin_x**2) - n
    within_y = count * (cos_y**2 + sin_y**2) - m
    across = count * (cos_x * cos_y + sin_x * sin_y)
    terms = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)
    groups = count // group
    if groups < _FEWEST_GROUPS:
        return 4.0
    means = terms[: groups * group].reshape(groups, group).mean(axis=1)
    return student_quantile(1 - delta / 2, groups - 1) * math.sqrt(float(means.var(ddof=1)) / groups)


def student_quantile(probability: float, degrees: int) -> float:
    """Return Student's t quantile to 1% for 7 degrees of freedom or more and tails of 0.1% or more.

    An expansion about the normal quantile (Abramowitz and Stegun, 26.7.5, four terms).
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))


def witness(rows: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return each row's witness, (N,): its mean kernel value with the reference minus that with the current sample.

    A row is left out of the mean over its own sample (Lloyd and Ghahramani, "Statistical model criticism using kernel
    two sample tests", NIPS 2015, without the self term). Above 0 the row looks more like the reference, below 0 more
    like the current window.

    Args:
        rows: (N, 2), one kernel's sums over the reference's rows and over the current sample's.
        n: rows of the reference.
    """
    m = len(rows) - n
    own = np.arange(len(rows)) < n
    return rows[:, 0] / np.where(own, n - 1, n) - rows[:, 1] / np.where(own, m, m - 1)


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on an observed statistic by its permutation distribution.

    Attributes:
        p_value: (1 + #{permuted ≥ observed}) / (B + 1); never 0, ties count against.
        threshold: the k-th largest permuted statistic, k the largest count with k / (B + 1) ≤ level.
        rejected: ``p_value <= level``, which is the same as observed > threshold.
    """

    p_value: float
    threshold: float
    rejected: bool


def decide(observed: float, permuted: NDArray[np.float64], level: float) -> Decision:
    """Compare an observed statistic with its permutation distribution (B,) at a level in (0, 1)."""
    k = rank_of_threshold(len(permuted), level)
    p_value = (1 + int(np.count_nonzero(permuted >= observed))) / (len(permuted) + 1)
    threshold = float(np.sort(permuted)[len(permuted) - k])
    return Decision(p_value, threshold, p_value <= level)
