"""The sums of one tile of the kernel matrix from their definition: what the tile functions are compared with."""

from __future__ import annotations

import numpy as np

from driftline.components.kernel.theory.families import Kernel
from tests.support.oracle import argument, function


def tile_values(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Return k(x_i, y_j), (len(x), len(y)) float64, distances from differences of vectors."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return function(kernel.name, kernel.gamma * argument(kernel.name, x, y))


def tile_oracle(
    x: np.ndarray,
    y: np.ndarray,
    kernels: tuple[Kernel, ...],
    valid_x: int,
    valid_y: int,
    bin_rows: int,
    diagonal: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row sums (Q, len(x)), column sums (Q, len(y)), bins (Q, ⌈len(x)/c⌉, ⌈len(y)/c⌉)."""
    tile = np.zeros((len(kernels), -(-len(x) // bin_rows) * bin_rows, -(-len(y) // bin_rows) * bin_rows))
    for q, kernel in enumerate(kernels):
        tile[q, :valid_x, :valid_y] = tile_values(x[:valid_x], y[:valid_y], kernel)
        if diagonal:
            np.fill_diagonal(tile[q], 0.0)
    bins = tile.reshape(len(kernels), tile.shape[1] // bin_rows, bin_rows, tile.shape[2] // bin_rows, bin_rows)
    return (
        tile.sum(axis=2)[:, : len(x)],
        tile.sum(axis=1)[:, : len(y)],
        bins.sum(axis=(2, 4)),
    )
