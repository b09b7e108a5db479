"""From sums over the kernel matrix to MMD², its permutation distribution, the p-value and the witness.

With K the kernel matrix of the pooled sample, its diagonal 0, r = K·1, t = 1ᵀr, and s the 0/1 labelling of the n
reference rows among N = n + m: a = sᵀKs and b = sᵀr give within-X = a, across = b − a, within-Y = t − 2b + a, and

    MMD²_u = a / (n(n − 1)) + (t − 2b + a) / (m(m − 1)) − 2(b − a) / (nm)

(Gretton, Borgwardt, Rasch, Schölkopf, Smola: "A kernel two-sample test", JMLR 2012, Lemma 6).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.components.kernel.theory.permutations import LabelPanels, rank_of_threshold
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.sums import KernelSums


def mmd2_unbiased(a: ArrayLike, b: ArrayLike, t: ArrayLike, n: int, m: int) -> NDArray[np.float64]:
    """Return MMD²_u for each labelling, of the shape that ``a``, ``b`` and ``t`` broadcast to."""
    a, b, t = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(t, np.float64)
    return a / (n * (n - 1)) + (t - 2 * b + a) / (m * (m - 1)) - 2 * (b - a) / (n * m)


def statistics(sums: KernelSums, grid: BlockGrid, panels: LabelPanels) -> NDArray[np.float64]:
    """Return MMD²_u of the observed labelling and of each permutation for each kernel, shape (Q, 1 + B)."""
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
    """What a permutation distribution says of an observed statistic.

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
