"""The tile engine: one pass over the kernel matrices of a pooled sample, which are never stored.

For each tile of the symmetric half the engine sums every row and column, and every pair of bins; the latter, a much
smaller matrix, it multiplies by a panel of labellings S for sᵀKs. From these follow MMD², its permutation distribution
and every row's witness value (:mod:`driftline.components.mmd.statistic`). Many kernels share one pass, one matrix
product for each tile, and one sum of differences where there are kernels of the L1 distance. Time O(N²(d + Q)) and, for
bins of c rows, O(N²QB/c²); memory O(block² Q), beside the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import jax
import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.permutations import LabelPanels
from driftline.components.kernel.tiles.device import Precision
from driftline.components.kernel.tiles.grid import BlockGrid, Blocks
from driftline.components.kernel.tiles.sums import PartialSums, SumAccumulator
from driftline.components.kernel.tiles.workers import Finish, TilePass, workers

Progress = Callable[[int, int], None]

FLOAT64_ROWS: Final = 8192
"""Up to this many pooled rows tiles are float64: it costs little, and float32 errors have few pairs to average over."""
FLOAT32_NORM: Final = 1e3
"""Above this squared norm in scaled coordinates, a squared distance taken as a difference of norms loses too many of
float32's digits; above this norm the coordinates' own rounding takes as many from an L1 distance."""


def choose_precision(rows: int, kernels: Sequence[Kernel], largest_norm: float) -> Precision:
    """Return the tiles' dtype for a pooled sample: a symmetric function of it, so that the test stays exact.

    Args:
        rows: rows of the pooled sample.
        kernels: the kernels, whose scales decide what is large.
        largest_norm: largest Euclidean norm of a centred vector.
    """
    # γ·‖x‖², which a squared distance may have to be told apart from; of an L1 distance, a sum of differences, √γ·‖x‖.
    scaled = max(kernel.family.factor(kernel.gamma * largest_norm * largest_norm) for kernel in kernels)
    return "float64" if rows <= FLOAT64_ROWS or scaled > FLOAT32_NORM else "float32"


def sum_tiles(
    blocks: Blocks,
    tiles: NDArray[np.int32],
    grid: BlockGrid,
    kernels: Sequence[Kernel],
    panels: LabelPanels,
    *,
    precision: Precision,
    sums: SumAccumulator,
    progress: Progress | None = None,
    native: bool = True,
) -> PartialSums:
    """Sum some tiles of the kernel matrices: on this machine's cores, or on all accelerators that JAX has.

    Each tile is computed by one core or device, and sums are added in any order to the same bits: so any number of
    cores, or of devices of a kind, gives what one gives.

    Args:
        blocks: gives the centred vectors of a block, (rows of the block, d).
        tiles: (k, 2) int32, pairs of blocks.
        grid: the grid that the tiles belong to.
        kernels: the kernels, at least one.
        panels: the labellings.
        precision: dtype of a tile. Sums over tiles are float64 in either case.
        sums: what the tiles' sums are added to (:func:`accumulator`); the first tiles, as many as it holds already,
            are left out.
        progress: called with (tiles done, tiles in all) after each tile has been added.
        native: False leaves the processor, too, to XLA, which is slower: the compiled program's check.

    Raises:
        DataError: vectors so large that their squared norms overflow.
        DriftlineError: a device whose memory does not hold the smallest pieces of a tile.
    """
    with jax.enable_x64(True):  # for float64 sums; the caller's own setting is untouched
        left = tiles[sums.tiles :].tolist()
        pool = workers(TilePass(blocks, grid, kernels, panels, precision), len(left), native=native)
        started: deque[tuple[int, int, Finish]] = deque()

        def add() -> None:
            i, j, finish = started.popleft()
            rows, columns, within = finish()
            sums.add_rows(i, j, rows)
            if i != j:
                sums.add_rows(j, i, columns)
            sums.add_within(within)
            if progress is not None:
                progress(sums.tiles, len(tiles))

        try:
            for i, j in left:
                started.append((i, j, pool.start(i, j)))
                if len(started) > pool.ahead:
                    add()
            while started:
                add()
        finally:
            pool.close()
    return sums.result()


def accumulator(
    tiles: NDArray[np.int32], grid: BlockGrid, kernels: Sequence[Kernel], permutations: int, largest_norm: float
) -> SumAccumulator:
    """Return what the sums of some tiles are added to.

    Args:
        tiles: (k, 2) int32, the tiles.
        grid: the grid that they belong to.
        kernels: the kernels.
        permutations: B.
        largest_norm: no vector of the pooled sample is longer than this; it bounds the sums.
    """
    bounds = [kernel.bound(largest_norm) for kernel in kernels]
    return SumAccumulator(grid, np.unique(tiles).astype(np.int32), permutations, bounds)


def array_blocks(z: NDArray[np.floating], grid: BlockGrid) -> Blocks:
    """Return the blocks of an array (N, d) held in memory, as :func:`sum_tiles` takes them."""

    def block(index: int) -> NDArray[np.floating]:
        start, stop = grid.span(index)
        return z[start:stop]

    return block
