"""Sums over the kernel matrix that have the same bits however the tiles are shared out.

Floating-point addition rounds, so that its result depends on the order. It does not where every addend is a multiple
of one quantum 2^−q and no partial sum outgrows 2^53 quanta: then every addition is exact, in any order. Each tile's
contribution (a float64) is therefore rounded to such a quantum before it is added (pre-rounding: Demmel and Nguyen,
"Fast reproducible floating-point summation", ARITH 2013, with one bin). The quantum follows from N and a bound on the
kernel's values. The rounding costs at most half a quantum a tile: relative to the largest possible sum,
2^−52 · tiles, far below the rounding of float32 tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.kernel.tiles.grid import BlockGrid


def quantum(bound: float) -> float:
    """Return the power of two to whose multiples addends are rounded when no sum of them exceeds ``bound``."""
    return math.ldexp(1.0, math.ceil(math.log2(bound)) - 51)


def round_to(values: NDArray[np.float64], step: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to the nearest multiple of ``step``, a power of two, or an array of them (exact but for that rounding)."""
    return np.rint(values / step) * step


@dataclass(frozen=True, slots=True)
class KernelSums:
    """Sums over the kernel matrices K of Q kernels, with zero diagonals, of N rows.

    Where a grid pairs halves only, the rows of the second halves hold their sums over the first, and those of the
    first over the second.

    Attributes:
        rows: (Q, N, 2) float64: each row's sum of k over the reference's rows and over the current sample's.
        within: (Q, 1 + B) float64: sᵀKs for the observed labels and each permutation.
    """

    rows: NDArray[np.float64]
    within: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PartialSums:
    """The sums over the tiles of one task.

    Attributes:
        blocks: (k,) int32, the blocks whose rows the task touched, ascending.
        rows: (Q, k, block, 2) float64, their part of :attr:`KernelSums.rows`, zero past the end of a sample.
        within: (Q, 1 + B) float64, the task's part of :attr:`KernelSums.within`.
        tiles: number of tiles summed.
        computed_by: ``"llvm"``, the program for this machine's processor; or, for tiles summed on JAX's devices,
            ``"xla"``, ``"pallas"``, or both, separated by a comma.
    """

    blocks: NDArray[np.int32]
    rows: NDArray[np.float64]
    within: NDArray[np.float64]
    tiles: int
    computed_by: str = "llvm"


class SumAccumulator:
    """Adds up tiles of one task's share.

    Memory: 16 bytes a kernel for each row of the blocks touched, 8 bytes a kernel and permutation.

    Attributes:
        computed_by: as of :class:`PartialSums`; set by the caller.

    Args:
        grid: the block grid.
        blocks: (k,) int32, the blocks that will be touched, ascending.
        permutations: B.
        bounds: for each kernel an upper bound of |k|.
    """

    def __init__(
        self, grid: BlockGrid, blocks: NDArray[np.int32], permutations: int, bounds: Sequence[float] = (1.0,)
    ) -> None:
        self._blocks = blocks
        self._side = {int(block): 0 if grid.in_reference(int(block)) else 1 for block in blocks}
        self._place = {int(block): place for place, block in enumerate(blocks)}
        self._rows = np.zeros((len(bounds), len(blocks), grid.block, 2))
        self._within = np.zeros((len(bounds), 1 + permutations))
        self._row_step = np.array([[quantum(bound * grid.rows)] for bound in bounds])
        self._within_step = np.array([[quantum(bound * grid.rows**2)] for bound in bounds])
        self._tiles = 0
        self.computed_by = "llvm"

    @property
    def tiles(self) -> int:
        """Number of tiles added so far."""
        return self._tiles

    def resume(self, part: PartialSums) -> None:
        """Go on from what an earlier attempt at the same share had added."""
        self._rows += part.rows
        self._within += part.within
        self._tiles += part.tiles
        self.computed_by = part.computed_by

    def add_rows(self, block: int, over: int, values: NDArray[np.float64]) -> None:
        """Add a tile's sums of the rows of one block over the rows of another, (Q, block)."""
        self._rows[:, self._place[block], :, self._side[over]] += round_to(values, self._row_step)

    def add_within(self, values: NDArray[np.float64]) -> None:
        """Add a tile's sᵀKs, (Q, 1 + B), and count the tile."""
        self._within += round_to(values, self._within_step)
        self._tiles += 1

    def result(self) -> PartialSums:
        """Return what was added."""
        return PartialSums(self._blocks, self._rows, self._within, self._tiles, self.computed_by)


def combine(grid: BlockGrid, parts: Iterable[PartialSums]) -> KernelSums:
    """Add up the tasks' parts, in any order, to the same bits.

    Raises:
        DataError: tiles are missing or were summed twice, which would make every number wrong.
    """
    rows: NDArray[np.float64] | None = None
    within: NDArray[np.float64] | None = None
    tiles = 0
    for part in parts:
        if rows is None or within is None:
            rows, within = np.zeros((len(part.within), grid.rows, 2)), np.zeros_like(part.within)
        for place, block in enumerate(part.blocks.tolist()):
            start, stop = grid.span(block)
            rows[:, start:stop] += part.rows[:, place, : stop - start]
        within += part.within
        tiles += part.tiles
    if rows is None or within is None or tiles != grid.tile_count:
        raise DataError(
            f"kernel sums: expected {grid.tile_count} tiles in all, got {tiles}; run the kernel tasks again"
        )
    return KernelSums(rows, within)
