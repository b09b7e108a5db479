"""The block grid and its split over tasks.

The pooled sample of N rows is cut into blocks of equal size, and the kernel matrix into tiles of block × block. The
matrix is symmetric, so that only tiles (i, j) with i ≤ j are computed. The grid depends on N and the block size alone.

Tasks take runs of equal length along a Hilbert curve through the tiles. A run of a Hilbert curve is a compact patch of
the matrix, so that a task of W reads about 2N/√W rows instead of all N, for any W, and no two tasks' shares differ by
more than one tile. Sums do not depend on the split at all (:mod:`driftline.components.kernel.sums`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError

DEFAULT_BLOCK: Final = 1024
_MULTIPLE: Final = 128  # keeps tiles aligned to vector registers and the panels' pairs of rows whole
_STRETCH: Final = 8  # cells of the curve for a block: enough that stretching keeps its shape
_MAX_BLOCKS: Final = 4096  # a grid of 8 million tiles takes 64 MB; more rows take larger blocks


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The tiles of a symmetric matrix of ``rows`` rows.

    Attributes:
        rows: rows of the pooled sample, N.
        block: rows of a block; the last block may be shorter, and is padded.
    """

    rows: int
    block: int

    @classmethod
    def of(cls, rows: int, block: int = DEFAULT_BLOCK) -> BlockGrid:
        """Fit a grid to N rows: small samples take one small block, huge ones blocks larger than asked."""
        if rows < 1:
            raise UsageError(f"rows: expected at least 1, got {rows}")
        if block < 1:
            raise UsageError(f"block: expected at least 1 row, got {block}")
        fitted = max(min(block, rows), -(-rows // _MAX_BLOCKS))
        return cls(rows, -(-fitted // _MULTIPLE) * _MULTIPLE)

    @property
    def blocks(self) -> int:
        """Number of blocks along one side."""
        return -(-self.rows // self.block)

    def span(self, index: int) -> tuple[int, int]:
        """Return the rows of block ``index`` as (start, stop)."""
        return index * self.block, min((index + 1) * self.block, self.rows)

    def tiles(self) -> NDArray[np.int32]:
        """Return every tile (i, j) with i ≤ j, shape (tiles, 2), in the order of a Hilbert curve.

        The grid is stretched to fill the curve's square: cut off at its own size, it would leave the curve in strips,
        and tasks in pieces that lie far apart.
        """
        side = _STRETCH << max(0, (self.blocks - 1).bit_length())
        i, j = np.triu_indices(self.blocks)
        x, y = ((2 * index + 1) * side // (2 * self.blocks) for index in (i, j))
        order = np.argsort(_hilbert_position(x, y, side), kind="stable")
        return np.stack([i[order], j[order]], axis=1).astype(np.int32)

    def share(self, task: int, tasks: int) -> NDArray[np.int32]:
        """Return the tiles of task ``task`` of ``tasks``; together the tasks' shares are :meth:`tiles`."""
        if not 0 <= task < tasks:
            raise UsageError(f"task: expected a number from 0 to {tasks - 1}, got {task}")
        tiles = self.tiles()
        return tiles[task * len(tiles) // tasks : (task + 1) * len(tiles) // tasks]

    def useful_tasks(self, tasks: int) -> int:
        """Return ``tasks``, or the number of tiles where that is less: no task is left without work."""
        if tasks < 1:
            raise UsageError(f"tasks: expected at least 1, got {tasks}")
        return min(tasks, self.blocks * (self.blocks + 1) // 2)


def _hilbert_position(x: NDArray[np.int64], y: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Return each cell's place along the Hilbert curve through a side × side square (side a power of two).

    The classic bit-by-bit conversion (Hamilton: "Compact Hilbert indices", 2006, in two dimensions).
    """
    x, y = x.copy(), y.copy()
    position = np.zeros_like(x)
    half = side // 2
    while half > 0:
        right = (x & half) > 0
        upper = (y & half) > 0
        position += half * half * ((3 * right) ^ upper)
        flip = ~upper & right
        x[flip] = side - 1 - x[flip]
        y[flip] = side - 1 - y[flip]
        swap = ~upper
        x[swap], y[swap] = y[swap], x[swap].copy()
        half //= 2
    return position
