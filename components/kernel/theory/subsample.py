"""Mean squares of kernel values, estimated from a few rows of the pooled sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.theory.distances import inner_products, manhattan_matrix, squared_distances
from driftline.components.kernel.theory.families import Argument, Kernel


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """Means of k² over pairs i ≠ j, for Q kernels: they scale a statistic, and give the spread of an estimate.

    Attributes:
        pooled: over all pairs, whoever they belong to, so that a permutation test may use it.
        within_reference: over pairs of the reference.
        across: over pairs of one and the other.
        within_current: over pairs of the current sample.
    """

    pooled: tuple[float, ...]
    within_reference: tuple[float, ...]
    across: tuple[float, ...]
    within_current: tuple[float, ...]


def mean_squares(z: NDArray[np.floating], reference: int, kernels: Sequence[Kernel]) -> MeanSquares:
    """Return the mean squares of kernels over some centred rows.

    Args:
        z: (k, d), k ≥ 2.
        reference: how many of them, the first, are of the reference. Where a sample has fewer than two rows among
            them, the mean over all pairs stands for its own.
        kernels: the kernels.
    """
    n = reference
    with jax.enable_x64(True):
        wanted: set[Argument] = {kernel.family.argument for kernel in kernels}
        pairs = {argument: _pairs(_matrix(z, argument), n) for argument in wanted}
        found = [_means(pairs[k.family.argument], k, (n, len(z) - n)) for k in kernels]
    pooled, within_reference, across, within_current = zip(*found, strict=True)
    return MeanSquares(pooled, within_reference, across, within_current)


def _matrix(z: NDArray[np.floating], argument: Argument) -> NDArray[np.float64]:
    if argument == "manhattan":
        return manhattan_matrix(z)
    x = jnp.asarray(z, jnp.float64)
    return np.asarray(squared_distances(x, x) if argument == "distance" else inner_products(x, x))


def _pairs(matrix: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return each pair's entry once: those within the first n rows, across, and within the rest."""
    first, rest = (np.tri(rows, k=-1, dtype=bool) for rows in (n, len(matrix) - n))
    return np.concatenate([matrix[:n, :n][first], matrix[:n, n:].reshape(-1), matrix[n:, n:][rest]])


def _means(pairs: NDArray[np.float64], kernel: Kernel, rows: tuple[int, int]) -> tuple[float, float, float, float]:
    n, m = rows
    values = np.asarray(kernel.family.function(jnp.asarray(kernel.family.factor(kernel.gamma) * pairs)))
    counts = (n * (n - 1) // 2, n * m, m * (m - 1) // 2)
    # Not np.dot, which wakes all cores for so little.
    sums = [float(np.einsum("i,i", part, part)) for part in np.split(values, np.cumsum(counts)[:-1])]
    pooled = sum(sums) / sum(counts)
    within_reference, across, within_current = (
        total / count if count else pooled for total, count in zip(sums, counts, strict=True)
    )
    return pooled, within_reference, across, within_current
