"""The grid of blocks and tiles, and its split over tasks.

Each sample's rows are cut into blocks of equal size, and the kernel matrix into tiles of block × block; no block spans
both samples. The matrix is symmetric, so that only tiles (i, j) with i ≤ j are computed. The grid depends on the sizes
of the samples and the block alone.

Tasks take runs of equal length along a Hilbert curve through the tiles. A run of a Hilbert curve is a compact patch of
the matrix, so that a task of W reads about 2N/√W rows instead of all N, for any W, and no two tasks' shares differ by
more than one tile. Sums do not depend on the split at all (:mod:`driftline.components.kernel.tiles.sums`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError

Blocks = Callable[[int], NDArray[np.floating]]
"""Gives the centred vectors of a block by its number, (rows of the block, d)."""

DEFAULT_BLOCK: Final = 2048
_MULTIPLE: Final = 128  # keeps tiles aligned to vector registers and bins whole
_BLOCKS_ACROSS: Final = 5  # of a sample: more of them, and fewer pairs of the diagonal are computed twice
_STRETCH: Final = 8  # cells of the curve for a block: enough that stretching keeps its shape
_MAX_BLOCKS: Final = 128  # more rows take larger blocks: a GPU needs large tiles, and 200 tasks still share 8,000


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The tiles of a pooled sample's kernel matrix.

    Attributes:
        n: rows of the reference, whose blocks come first.
        m: rows of the current sample.
        block: rows of a block; the last block of a sample may be shorter, and is padded.
        halves: whether only the pairs between the samples' first halves and their second halves count.
    """

    n: int
    m: int
    block: int
    halves: bool = False

    @classmethod
    def of(cls, n: int, m: int, block: int = DEFAULT_BLOCK, *, halves: bool = False) -> BlockGrid:
        """Fit a grid to the samples: small ones take small blocks, huge ones blocks larger than asked."""
        if min(n, m) < 1:
            raise UsageError(f"rows: expected at least 1 in each sample, got {n} and {m}")
        if block < 1:
            raise UsageError(f"block: expected at least 1 row, got {block}")
        fitted = _MULTIPLE  # doubled, so that few sizes of a tile are ever compiled
        across = max(n, m) // (2 * _BLOCKS_ACROSS if halves else _BLOCKS_ACROSS)
        while fitted < min(block, across) or fitted * _MAX_BLOCKS < n + m:
            fitted *= 2
        return cls(n, m, fitted, halves)

    @property
    def rows(self) -> int:
        """Rows of the pooled sample, N."""
        return self.n + self.m

    @property
    def _segments(self) -> tuple[tuple[int, int, int], ...]:
        """Stretches of rows that no block leaves, as (first row, rows, first block)."""
        sizes = [self.n - self.n // 2, self.n // 2, self.m - self.m // 2, self.m // 2]
        if not self.halves:
            sizes = [self.n, self.m]
        segments: list[tuple[int, int, int]] = []
        row = block = 0
        for size in sizes:
            segments.append((row, size, block))
            row += size
            block += -(-size // self.block)
        return tuple(segments)

    @property
    def blocks(self) -> int:
        """Number of blocks of both samples."""
        _, size, first = self._segments[-1]
        return first + -(-size // self.block)

    @property
    def tile_count(self) -> int:
        """Number of tiles."""
        if not self.halves:
            return self.blocks * (self.blocks + 1) // 2
        first = sum(self._segment(block) % 2 == 0 for block in range(self.blocks))
        return first * (self.blocks - first)

    def _segment(self, index: int) -> int:
        return sum(index >= first for _, _, first in self._segments) - 1

    def span(self, index: int) -> tuple[int, int]:
        """Return the rows of block ``index`` as (start, stop)."""
        row, size, first = self._segments[self._segment(index)]
        start = row + (index - first) * self.block
        return start, min(start + self.block, row + size)

    def in_reference(self, index: int) -> bool:
        """Return whether block ``index`` is of the reference."""
        return self.span(index)[0] < self.n

    def place(self, index: int) -> int:
        """Return the number of block ``index``'s first row within its own sample."""
        start = self.span(index)[0]
        return start if start < self.n else start - self.n

    def tiles(self) -> NDArray[np.int32]:
        """Return every tile (i, j), shape (tiles, 2), in the order of a Hilbert curve.

        i ≤ j; where only halves are paired, i is of a first half and j of a second.

        The grid is stretched to fill the curve's square: cut off at its own size, it would leave the curve in strips,
        and tasks in pieces that lie far apart.
        """
        if self.halves:
            half = np.array([self._segment(block) % 2 for block in range(self.blocks)])
            first, second = np.flatnonzero(half == 0), np.flatnonzero(half == 1)
            i, j = (index.reshape(-1) for index in np.meshgrid(np.arange(len(first)), np.arange(len(second))))
            order = np.argsort(_along_curve(i, j, len(first), len(second)), kind="stable")
            i, j = first[i], second[j]
        else:
            i, j = np.triu_indices(self.blocks)
            order = np.argsort(_along_curve(i, j, self.blocks, self.blocks), kind="stable")
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
        return min(tasks, self.tile_count)

    def rows_read(self, tasks: int) -> NDArray[np.int64]:
        """Return how many rows each task reads, shape (tasks,)."""
        spans = np.array([self.span(block) for block in range(self.blocks)], np.int64)
        sizes = spans[:, 1] - spans[:, 0]
        tiles = self.tiles()
        cuts = [task * len(tiles) // tasks for task in range(1, tasks)]
        return np.array([sizes[np.unique(share)].sum() for share in np.split(tiles, cuts)])


def _along_curve(i: NDArray[np.int64], j: NDArray[np.int64], width: int, height: int) -> NDArray[np.int64]:
    """Return cells' places along a Hilbert curve through the square that a width × height grid is stretched to."""
    side = _STRETCH << max(0, (max(width, height) - 1).bit_length())
    x, y = ((2 * index + 1) * side // (2 * cells) for index, cells in ((i, width), (j, height)))
    return _hilbert_position(x, y, side)


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
