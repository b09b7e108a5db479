"""What a few rows of the pooled sample tell about all: its length scales, and the size of kernel values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.functions import Kernel
from driftline.components.kernel.tiles import ARGUMENTS


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """Means of k² over pairs i ≠ j, for Q kernels: what scales a statistic, and the spread of an estimate.

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
    with jax.enable_x64(True):
        x = jnp.asarray(z, jnp.float64)
        arguments = {name: pairs(x, x) for name, pairs in ARGUMENTS.items()}
        found = [_means(np.array(k.family.profile(k.gamma * arguments[k.family.argument])), reference) for k in kernels]
    pooled, within_reference, across, within_current = zip(*found, strict=True)
    return MeanSquares(pooled, within_reference, across, within_current)


def _means(gram: NDArray[np.float64], n: int) -> tuple[float, float, float, float]:
    np.fill_diagonal(gram, 0.0)
    squares = gram * gram
    m = len(gram) - n
    pooled = float(squares.sum() / (len(gram) * (len(gram) - 1)))
    within_reference = float(squares[:n, :n].sum() / (n * (n - 1))) if n > 1 else pooled
    across = float(squares[:n, n:].mean()) if n and m else pooled
    within_current = float(squares[n:, n:].sum() / (m * (m - 1))) if m > 1 else pooled
    return pooled, within_reference, across, within_current
