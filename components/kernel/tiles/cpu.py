"""Tiles on a CPU, in pieces that a compiled program sums; many threads may do so at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.tiles.cpu_program import INTEGERS, POINTERS, Layout, tile_program
from driftline.components.kernel.tiles.device import Precision

Floats = NDArray[np.floating]
HostSums = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

LARGEST_PIECE: Final = 1024
SMALLEST_PIECE: Final = 128
BINS_BYTES: Final = 8 << 20
"""A thread's bins of all kernels take no more than this, where the smallest pieces allow it."""
LARGEST_CHUNK: Final = 256
CHUNK_BYTES: Final = 128 << 10
"""A chunk's columns take no more than this, where it has more than the fewest: a quarter of a small level 2 cache."""
FEWEST_CHUNK: Final = 64


@dataclass(frozen=True, slots=True)
class CpuBlock:
    """One block of vectors as the program takes them, in pieces of P rows.

    Attributes:
        panels: (block / P, P / columns, d, columns) vectors, zeros past the end of the sample.
        norms: (block,) their squared norms.
        rows: how many of them are there.
        labels: (block / c, 1 + B) int8, the labels of its bins.
    """

    panels: Floats
    norms: Floats
    rows: int
    labels: NDArray[np.int8]


class CpuTiles:
    """Sums tiles of Q kernels on the CPU; many threads may at once.

    Args:
        kernels: the kernels, of families that vector code can be made of.
        unit: γ of the coordinates: a kernel's γ counts relative to it.
        block: rows of a block.
        bin_rows: rows of a bin.
        precision: dtype of vectors and tiles.
    """

    def __init__(self, kernels: Sequence[Kernel], unit: float, block: int, bin_rows: int, precision: Precision) -> None:
        self._dtype = np.dtype(precision)
        self._block, self._bin_rows = block, bin_rows
        self._order = sorted(range(len(kernels)), key=lambda place: kernels[place].name)  # families together
        ordered = [kernels[place] for place in self._order]
        families = [(family, len(list(members))) for family, members in groupby(kernel.family for kernel in ordered)]
        self._factors = np.array([kernel.family.factor(kernel.gamma / unit) for kernel in ordered], self._dtype)
        piece = min(block, LARGEST_PIECE)
        while piece > SMALLEST_PIECE and self._bins_bytes(piece) > BINS_BYTES:
            piece //= 2
        self._piece = piece
        self._layout = Layout.of(families, bin_rows, piece, single=precision == "float32")
        self._program = tile_program(self._layout)

    def _bins_bytes(self, piece: int) -> int:
        return len(self._order) * (piece // self._bin_rows) ** 2 * self._dtype.itemsize

    def _chunk(self, d: int) -> int:
        chunk = min(LARGEST_CHUNK, self._piece)
        while chunk > FEWEST_CHUNK and chunk * d * self._dtype.itemsize > CHUNK_BYTES:
            chunk //= 2
        return chunk

    def vectors(self, z: Floats) -> tuple[Floats, Floats, int]:
        """Return the panels, norms and rows of a :class:`CpuBlock`.

        Args:
            z: (rows, d) centred vectors in the coordinates of these tiles.
        """
        padded = np.zeros((self._block, z.shape[1]), self._dtype)
        padded[: len(z)] = z
        pieces, width = self._block // self._piece, self._layout.columns
        panels = padded.reshape(pieces, self._piece // width, width, z.shape[1]).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(panels), np.einsum("ij,ij->i", padded, padded), len(z)

    def _as_floats(self, labels: NDArray[np.int8]) -> Floats:
        """Return labels as the program takes them, with columns of zeros up to a multiple of the layout's."""
        width = self._layout.columns
        padded = np.zeros((len(labels), -(-labels.shape[1] // width) * width), self._dtype)
        padded[:, : labels.shape[1]] = labels
        return padded

    def sums(self, x: CpuBlock, y: CpuBlock, *, diagonal: bool) -> HostSums:
        """Return a tile's sums of rows (Q, block), of columns (Q, block), and its part of sᵀKs (Q, 1 + B).

        All are float64. Of a tile on the diagonal the columns' sums mean nothing: each pair is in the rows' sums of
        both its rows.
        """
        kernels, bins = len(self._order), self._piece // self._bin_rows
        d = x.panels.shape[2]
        chunk = self._chunk(d)
        rows, columns = np.zeros((2, kernels, self._block))
        labels_x = self._as_floats(x.labels)
        labels_y = labels_x if diagonal else self._as_floats(y.labels)
        within = np.zeros((kernels, labels_x.shape[1]))
        room = np.empty((kernels, bins, bins), self._dtype)
        strips = np.empty((kernels, self._layout.strip_rows, chunk), self._dtype)
        for a in range(self._block // self._piece):
            for b in range(a if diagonal else 0, self._block // self._piece):
                there_x, there_y = self._there(x, a), self._there(y, b)
                if not (there_x and there_y):
                    continue
                room.fill(0)
                from_a, from_b = a * self._piece, b * self._piece
                arrays = {
                    "x": x.panels[a],
                    "y": y.panels[b],
                    "norms_x": x.norms[from_a:],
                    "norms_y": y.norms[from_b:],
                    "factors": self._factors,
                    "labels_x": labels_x[a * bins :],
                    "labels_y": labels_y[b * bins :],
                    "row_sums": rows[:, from_a:],
                    "column_sums": columns[:, from_b:],
                    "within": within,
                    "bins": room,
                    "strips": strips,
                }
                integers = {
                    "d": d,
                    "rows": there_x,
                    "columns": there_y,
                    "diagonal": int(diagonal and a == b),
                    "stride": self._block,
                    "piece": self._piece,
                    "chunk": chunk,
                    "label_columns": within.shape[1],
                }
                self._program.call(
                    *(arrays[name].ctypes.data for name in POINTERS), *(integers[name] for name in INTEGERS)
                )
        if diagonal:
            rows += columns
        places = np.argsort(self._order)
        return rows[places], columns[places], within[places, : x.labels.shape[1]]

    def _there(self, block: CpuBlock, piece: int) -> int:
        return min(max(block.rows - piece * self._piece, 0), self._piece)
