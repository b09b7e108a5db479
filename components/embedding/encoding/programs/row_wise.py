"""The program of a linear layer with what follows it, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, Literal, TypeAlias

from driftline.components.embedding.encoding.programs.activation import gelu
from driftline.components.embedding.encoding.programs.cells import VECTORS, Cells, lanes
from driftline.components.embedding.encoding.programs.norm import Norm, Normaliser
from driftline.components.vector_code import Compiled, Value, VectorCode

After: TypeAlias = Literal["nothing", "gelu", "sum", "sum and norm"]

POINTERS: Final = ("x", "panels", "bias", "other", "scale", "shift", "epsilon", "y")
INTEGERS: Final = ("first", "last")

_BLOCK_ROWS: Final = 48
"""Rows that go through all columns before the next do: with a panel, a level 2 cache holds them. Measured."""


@cache
def linear_program(inner: int, width: int, after: After) -> Compiled:
    """Return the program of y = x·Wᵀ + bias, and of what comes after it, for float32.

    It takes the addresses POINTERS and the INTEGERS:

    ===========  ====================================================================================
    x            (rows, inner)
    panels       (⌈width / columns⌉, inner, columns): W as :func:`.cells.panel_starts` says
    bias         (width,)
    other        (rows, width) what is added; here and below, in programs that do so alone
    scale, shift (width,) what the norm multiplies by and adds
    epsilon      (1,) what the norm adds to the variance
    y            (rows, width)
    first, last  the rows to compute
    ===========  ====================================================================================

    Args:
        inner: numbers of a row of x.
        width: numbers of a row of y, no fewer than :func:`.cells.cell_columns`.
        after: what comes after the product: nothing, GELU, a sum, or a sum and then a norm, which brings each row to
            mean 0 and variance 1 and whose width is a multiple of a cell's columns.
    """
    code = VectorCode("linear", POINTERS, INTEGERS, single=True, lanes=lanes())
    _Linear(code, inner, width, after).write()
    return code.compiled()


class _Linear(Cells):
    """Writes a linear layer and what comes after it."""

    def __init__(self, code: VectorCode, inner: int, width: int, after: After) -> None:
        super().__init__(code)
        self._normaliser = Normaliser(code)
        self._inner, self._width, self._after = inner, width, after

    def write(self) -> None:
        """Write all of it, block by block of rows."""
        code = self.code
        with code.loop(self["first"], self["last"], _BLOCK_ROWS) as top:
            end = code.least(code.plus(top, _BLOCK_ROWS), self["last"])
            with code.loop(code.index(0), code.index(self._width), self.columns) as left:
                column = code.least(left, code.index(self._width - self.columns))
                panel = code.at(self["panels"], code.times(left, self._inner))
                with code.loop(top, end, self.rows) as row:
                    self._cell(self.clamped(row, code.plus(end, -1)), panel, column)
                if self._after == "gelu":
                    self._activate(top, end, column)
            if self._after == "sum and norm":
                norm = Norm(self["scale"], self["shift"], self["epsilon"])
                with code.loop(top, end, 1) as row:
                    self._normaliser.normalise(self._row("y", row, code.index(0)), self._width, norm)

    def _row(self, name: str, number: Value, column: Value) -> Value:
        return self.code.at(self[name], self.code.plus(self.code.times(number, self._width), column))

    def _cell(self, numbers: Sequence[Value], panel: Value, column: Value) -> None:
        code = self.code
        adds = self._after in ("sum", "sum and norm")
        for number in numbers:  # what the product's end needs comes from far, and its loop leaves the time
            code.fetch(self._row("y", number, column), to_write=True)
            if adds:
                code.fetch(self._row("other", number, column))
        rows = [code.at(self["x"], code.times(number, self._inner)) for number in numbers]
        product = self.product(rows, panel, self.columns, code.index(self._inner))
        for number, values in zip(numbers, product, strict=True):
            for v, value in enumerate(values):
                place = code.plus(column, v * code.lanes)
                result = code.build.fadd(value, code.load(code.at(self["bias"], place)))
                if adds:
                    result = code.build.fadd(result, code.load(self._row("other", number, place)))
                code.store(result, self._row("y", number, place))

    def _activate(self, top: Value, end: Value, column: Value) -> None:
        """Replace the results in a cell's columns by their activations.

        Not in the cell: an activation is a long chain of operations, and many rows' at a time hide its latency.
        """
        code = self.code
        with code.loop(top, end, 1) as row:
            for v in range(VECTORS):
                place = self._row("y", row, code.plus(column, v * code.lanes))
                code.store(gelu(code, code.load(place)), place)
