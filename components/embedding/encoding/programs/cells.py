"""The inner loop of all programs: a cell's product, in registers.

Where rows or columns end within a cell, the cell's last ones are those before the end once more, computed and written
twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from driftline.components.vector_code import Value, VectorCode, host_registers

VECTORS: Final = 2
"""Vectors of columns in a cell."""


def lanes() -> int:
    """Return the floats of a vector."""
    return host_registers().bytes // 4


def cell_rows() -> int:
    """Return the rows of a cell: with its columns' vectors and one number, they fill the registers."""
    return 12 if host_registers().many else 6


def cell_columns() -> int:
    """Return the columns of a cell; a product has at least as many, a head's vectors at least as many numbers."""
    return VECTORS * lanes()


def panel_starts(width: int) -> list[int]:
    """Return the first column of each panel; the last one overlaps the one before where the width takes that."""
    columns = cell_columns()
    return [min(start, width - columns) for start in range(0, width, columns)]


class Cells:
    """Writes the inner loop of all programs: a cell's product."""

    def __init__(self, code: VectorCode) -> None:
        self.code = code
        self.rows = cell_rows()
        self.columns = VECTORS * code.lanes
        self._sums = code.variables(self.rows * VECTORS)

    def __getitem__(self, name: str) -> Value:
        return self.code.arguments[name]

    def clamped(self, start: Value, last: Value) -> list[Value]:
        """Return the numbers of a cell's rows: those past the last are the last."""
        code = self.code
        return [code.least(code.plus(start, i), last) for i in range(self.rows)]

    def product(self, rows: Sequence[Value], columns: Value, step: Value | int, count: Value) -> list[list[Value]]:
        """Return Σₖ rows[i][k]·columns[k·step + j], row by row as vectors."""
        code = self.code
        self.begin()
        with code.loop(code.index(0), count, 1) as k:
            self.step([code.at(row, k) for row in rows], code.at(columns, code.times(k, step)))
        return self.sums()

    def begin(self, start: Sequence[Sequence[Value]] | None = None) -> None:
        """Begin a cell's sums, with 0 or where others ended."""
        for i in range(self.rows):
            for v in range(VECTORS):
                self.code.store(self.code.constant(0.0) if start is None else start[i][v], self._sum(i, v))

    def step(self, numbers: Sequence[Value], columns: Value) -> None:
        """Add to a cell's sums the product of a number of each row with a row of columns; pointers to both."""
        code = self.code
        vectors = [code.load(code.at(columns, code.index(v * code.lanes))) for v in range(VECTORS)]
        for i, number in enumerate(numbers):
            one = code.spread(code.load_one(number))
            for v, vector in enumerate(vectors):
                code.store(code.fused(one, vector, code.load(self._sum(i, v))), self._sum(i, v))

    def sums(self) -> list[list[Value]]:
        """Return a cell's sums, row by row as vectors."""
        return [[self.code.load(self._sum(i, v)) for v in range(VECTORS)] for i in range(self.rows)]

    def _sum(self, i: int, v: int) -> Value:
        return self.code.vector_at(self._sums, i * VECTORS + v)
