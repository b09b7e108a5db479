"""Programs that go row by row: a linear layer with what follows it, and all that follows the attention in a layer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Final, Literal, NamedTuple, TypeAlias

from driftline.components.embedding.encoding.programs.activation import gelu
from driftline.components.embedding.encoding.programs.cells import VECTORS, Cells, lanes
from driftline.components.vector_code import Compiled, Value, VectorCode

After: TypeAlias = Literal["nothing", "gelu", "sum", "sum and norm"]

BLOCK_ROWS: Final = 48
"""Rows that go through all columns before the next do: with a panel, a level 2 cache holds them. Measured."""

LINEAR_POINTERS: Final = ("x", "panels", "bias", "other", "scale", "shift", "epsilon", "y")
AFTER_POINTERS: Final = (
    *("attended", "inputs"),
    *("panels_0", "bias_0", "scale_0", "shift_0", "epsilon_0"),
    *("panels_1", "bias_1"),
    *("panels_2", "bias_2", "scale_2", "shift_2", "epsilon_2"),
    *("middle", "between", "y"),
)
INTEGERS: Final = ("first", "last")


@cache
def linear_program(inner: int, width: int, after: After) -> Compiled:
    """Return the program of y = x·Wᵀ + bias, and of what comes after it, for float32.

    It takes the addresses LINEAR_POINTERS and the INTEGERS:

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
    code = VectorCode("linear", LINEAR_POINTERS, INTEGERS, single=True, lanes=lanes())
    _Linear(code).write(inner, width, after)
    return code.compiled()


@cache
def after_attention_program(hidden: int, between: int) -> Compiled:
    """Return the program of what follows the attention in a layer of BERT's kind, for float32.

    norm(down(gelu(up(m))) + m) with m = norm(W·attended + bias + inputs), block by block, so that what is between stays
    in the caches. It takes the addresses AFTER_POINTERS and the INTEGERS:

    ===============  ================================================================================
    attended …       (rows, hidden), as are inputs, those of the attention, and y, the result
    panels_0 …       panels, bias, scale, shift and epsilon of m, as :func:`linear_program` says
    panels_1 …       panels and bias of up
    panels_2 …       panels and bias of down, scale, shift and epsilon of the last norm
    middle, between  (BLOCK_ROWS, hidden) and (BLOCK_ROWS, between) working space
    ===============  ================================================================================

    Args:
        hidden: numbers of a token, a multiple of a cell's columns.
        between: numbers of up's results, no fewer than a cell's columns.
    """
    code = VectorCode("after_attention", AFTER_POINTERS, INTEGERS, single=True, lanes=lanes())
    _AfterAttention(code).write(hidden, between)
    return code.compiled()


class _Step(NamedTuple):
    """A product of some rows, and what comes after it.

    Attributes:
        x: the first row.
        panels: the weights.
        bias: added to each row.
        inner: numbers of a row of x.
        width: numbers of a row of the result.
        y: where the first row's result goes.
        gelu: whether it goes through GELU.
        other: the first row of what is added; None for nothing.
        norm: what the norm multiplies by, adds, and adds to the variance; None for no norm.
    """

    x: Value
    panels: Value
    bias: Value
    inner: int
    width: int
    y: Value
    gelu: bool = False
    other: Value | None = None
    norm: tuple[Value, Value, Value] | None = None


class _Rows(Cells):
    """Writes steps for blocks of rows."""

    def __init__(self, code: VectorCode) -> None:
        super().__init__(code)
        self._moments = code.variables(VECTORS)

    @contextmanager
    def _block(self) -> Generator[tuple[Value, Value]]:
        """Give the first row of each block, and how many it has."""
        code = self.code
        with code.loop(self["first"], self["last"], BLOCK_ROWS) as top:
            yield top, code.least(code.index(BLOCK_ROWS), code.build.sub(self["last"], top))

    def _row_of(self, name: str, number: Value, width: int) -> Value:
        return self.code.at(self[name], self.code.times(number, width))

    def _norm(self, suffix: str = "") -> tuple[Value, Value, Value]:
        return self["scale" + suffix], self["shift" + suffix], self["epsilon" + suffix]

    def _take(self, step: _Step, rows: Value) -> None:
        code = self.code
        with code.loop(code.index(0), code.index(step.width), self.columns) as left:
            column = code.least(left, code.index(step.width - self.columns))
            panel = code.at(step.panels, code.times(left, step.inner))
            with code.loop(code.index(0), rows, self.rows) as row:
                self._cell(step, self.clamped(row, code.plus(rows, -1)), panel, column)
            if step.gelu:
                self._activate(step, rows, column)
        if step.norm is not None:
            with code.loop(code.index(0), rows, 1) as row:
                self._normalise(code.at(step.y, code.times(row, step.width)), step.width, *step.norm)

    def _cell(self, step: _Step, numbers: Sequence[Value], panel: Value, column: Value) -> None:
        code = self.code
        places = [code.plus(code.times(number, step.width), column) for number in numbers]
        for place in places:  # what the product's end needs comes from far, and its loop leaves the time
            code.fetch(code.at(step.y, place), to_write=True)
            if step.other is not None:
                code.fetch(code.at(step.other, place))
        rows = [code.at(step.x, code.times(number, step.inner)) for number in numbers]
        product = self.product(rows, panel, self.columns, code.index(step.inner))
        bias = [code.load(code.at(step.bias, code.plus(column, v * code.lanes))) for v in range(VECTORS)]
        for start, values in zip(places, product, strict=True):
            for v, value in enumerate(values):
                place = code.plus(start, v * code.lanes)
                result = code.build.fadd(value, bias[v])
                if step.other is not None:
                    result = code.build.fadd(result, code.load(code.at(step.other, place)))
                code.store(result, code.at(step.y, place))

    def _activate(self, step: _Step, rows: Value, column: Value) -> None:
        """Replace the results in a cell's columns by their activations.

        Not in the cell: an activation is a long chain of operations, and many rows' at a time hide its latency.
        """
        code = self.code
        with code.loop(code.index(0), rows, 1) as row:
            start = code.plus(code.times(row, step.width), column)
            for v in range(VECTORS):
                place = code.at(step.y, code.plus(start, v * code.lanes))
                code.store(gelu(code, code.load(place)), place)

    def _normalise(self, row: Value, width: int, scale: Value, shift: Value, epsilon: Value) -> None:
        """Bring a row to mean 0 and variance 1, then scale and shift it; the variance from deviations."""
        code, build = self.code, self.code.build
        count = code.constant(float(width))

        def values(start: Value) -> list[Value]:
            return [code.load(code.at(row, code.plus(start, v * code.lanes))) for v in range(VECTORS)]

        def add(k: Value, sums: list[Value]) -> list[Value]:
            return [build.fadd(value, total) for value, total in zip(values(k), sums, strict=True)]

        mean = build.fdiv(self._total(width, add), count)

        def add_squares(k: Value, sums: list[Value]) -> list[Value]:
            deviations = [build.fsub(value, mean) for value in values(k)]
            return [code.fused(each, each, total) for each, total in zip(deviations, sums, strict=True)]

        variance = build.fdiv(self._total(width, add_squares), count)
        spread = code.root(build.fadd(variance, code.spread(code.load_one(epsilon))))
        factor = build.fdiv(code.constant(1.0), spread)
        with code.loop(code.index(0), code.index(width), code.lanes) as k:
            scaled = build.fmul(build.fsub(code.load(code.at(row, k)), mean), factor)
            result = code.fused(scaled, code.load(code.at(scale, k)), code.load(code.at(shift, k)))
            code.store(result, code.at(row, k))

    def _total(self, width: int, add: Callable[[Value, list[Value]], list[Value]]) -> Value:
        """Return the sum over a row's columns of what ``add`` adds to sums at each cell's first column, spread."""
        code = self.code
        places = [code.vector_at(self._moments, v) for v in range(VECTORS)]
        for place in places:
            code.store(code.constant(0.0), place)
        with code.loop(code.index(0), code.index(width), self.columns) as k:
            for place, value in zip(places, add(k, [code.load(place) for place in places]), strict=True):
                code.store(value, place)
        return code.spread(code.total(code.sum([code.load(place) for place in places])))


class _Linear(_Rows):
    def write(self, inner: int, width: int, after: After) -> None:
        """Write all of it."""
        with self._block() as (top, rows):
            step = _Step(
                self._row_of("x", top, inner),
                self["panels"],
                self["bias"],
                inner,
                width,
                self._row_of("y", top, width),
                gelu=after == "gelu",
                other=self._row_of("other", top, width) if after in ("sum", "sum and norm") else None,
                norm=self._norm() if after == "sum and norm" else None,
            )
            self._take(step, rows)


class _AfterAttention(_Rows):
    def write(self, hidden: int, between: int) -> None:
        """Write all of it."""
        with self._block() as (top, rows):
            inputs = self._row_of("inputs", top, hidden)
            attended, y = self._row_of("attended", top, hidden), self._row_of("y", top, hidden)
            middle, wide = self["middle"], self["between"]
            own = _Step(attended, self["panels_0"], self["bias_0"], hidden, hidden, middle)
            up = _Step(middle, self["panels_1"], self["bias_1"], hidden, between, wide, gelu=True)
            down = _Step(wide, self["panels_2"], self["bias_2"], between, hidden, y)
            self._take(own._replace(other=inputs, norm=self._norm("_0")), rows)
            self._take(up, rows)
            self._take(down._replace(other=middle, norm=self._norm("_2")), rows)
