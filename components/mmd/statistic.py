"""From sums over the kernel matrix to MMD², its permutation distribution, the p-value and the witness.

With K the kernel matrix of the pooled sample, its diagonal 0, r = K·1, t = 1ᵀr, and s the 0/1 labelling of the n
reference rows among N = n + m: a = sᵀKs and b = sᵀr give within-X = a, across = b − a, within-Y = t − 2b + a, and

    MMD²_u = a / (n(n − 1)) + (t − 2b + a) / (m(m − 1)) − 2(b − a) / (nm)

(Gretton, Borgwardt, Rasch, Schölkopf, Smola: "A kernel two-sample test", JMLR 2012, Lemma 6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.components.kernel.labellings import rank_of_threshold
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import KernelSums


def mmd2_unbiased(a: ArrayLike, b: ArrayLike, t: float, n: int, m: int) -> NDArray[np.float64]:
    """Return MMD²_u for each labelling, of the shape of ``a`` and ``b``."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a / (n * (n - 1)) + (t - 2 * b + a) / (m * (m - 1)) - 2 * (b - a) / (n * m)


def statistics(
    sums: KernelSums, n: int, grid: BlockGrid, panel: Callable[[int], NDArray[np.int8]]
) -> NDArray[np.float64]:
    """Return MMD²_u of the observed labelling and of each permutation, shape (1 + B,).

    Args:
        sums: sums over the whole kernel matrix.
        n: rows of the reference.
        grid: the block grid.
        panel: gives block i's labels, (block, 2 + B) int8 with columns 1, s₀ … s_B, zero past the end.
    """
    rows = sums.rows[:, 0]
    reached = np.zeros(len(sums.within))
    for index in range(grid.blocks):
        start, stop = grid.span(index)
        labels = np.asarray(panel(index))[: stop - start, 1:]
        reached += rows[start:stop] @ labels.astype(np.float64)
    return mmd2_unbiased(sums.within, reached, float(rows.sum()), n, grid.rows - n)


def witness(sums: KernelSums, n: int) -> NDArray[np.float64]:
    """Return each row's witness, (N,): its mean kernel value with the reference minus that with the current sample.

    A row is left out of the mean over its own sample (Lloyd and Ghahramani, "Statistical model criticism using kernel
    two sample tests", NIPS 2015, without the self term). Above 0 the row looks more like the reference, below 0 more
    like the current window.
    """
    to_all, to_reference = sums.rows[:, 0], sums.rows[:, 1]
    m = len(to_all) - n
    own = np.arange(len(to_all)) < n
    reference = to_reference / np.where(own, n - 1, n)
    current = (to_all - to_reference) / np.where(own, m, m - 1)
    return reference - current


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
