"""Attention, and the program of it for queries, keys and values that are given.

Sequence by sequence and head by head, a few rows of the scores at a time, with neither padding nor a score in memory
for long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np

from driftline.components.embedding.encoding.programs.cells import VECTORS, Cells, lanes
from driftline.components.vector_code import Compiled, Value, VectorCode

POINTERS: Final = ("queries", "keys", "values", "ends", "scaling", "panels", "rows", "scores", "y")
INTEGERS: Final = ("first", "last", "stride", "room")

_LOWEST: Final = -float(np.finfo(np.float32).max)


@cache
def attention_program(heads: int, size: int) -> Compiled:
    """Return the program of softmax(scaling·Q·Kᵀ)·V within each of some sequences, head by head, for float32.

    It takes the addresses POINTERS and the INTEGERS:

    ===========  ====================================================================================
    queries …    (tokens, heads, size) keys and values, too; tokens ``stride`` floats apart
    ends         (sequences + 1,) int64, where the sequences begin and end
    scaling      (1,)
    panels       (room, size) working space for keys; so is
    rows         (room, size rounded up to whole cells) for values
    scores       (rows of a cell, room) working space
    y            (tokens, heads, size), without gaps
    first, last  the sequences to compute
    room         a multiple of a cell's columns, no less than the longest sequence
    ===========  ====================================================================================

    Args:
        heads: heads of the attention.
        size: numbers of a head's vectors, no fewer than :func:`.cells.cell_columns`.
    """
    code = VectorCode("attention", POINTERS, INTEGERS, single=True, lanes=lanes())
    _GivenAttention(code, heads, size).write()
    return code.compiled()


class Head(NamedTuple):
    """Where a sequence's vectors of one head are.

    Attributes:
        queries: the first query.
        keys: the first key.
        stride: floats from one query, or key, to the next.
        values: the first value's first cell of components; the next token's follows it, and after all tokens' the
            next cell's.
        tokens: how many these are, of this sequence and others.
    """

    queries: Value
    keys: Value
    stride: Value
    values: Value
    tokens: Value


class Attention(Cells):
    """Writes attention within one sequence, for one head."""

    def __init__(self, code: VectorCode, heads: int, size: int) -> None:
        super().__init__(code)
        self._heads, self._size = code.index(heads), code.index(size)
        self._across = code.index(heads * size)
        self._largest = code.variables(self.rows)
        self._totals = code.variables(self.rows)

    def attend(self, head: Head, length: Value, y: Value) -> None:
        """Write a head's part of a sequence's results, rows of all heads, to y."""
        code = self.code
        self._lay_out(head, length)
        with code.loop(code.index(0), length, self.rows) as row:
            numbers = self.clamped(row, code.plus(length, -1))
            self._score([code.at(head.queries, code.times(i, head.stride)) for i in numbers], length)
            self._exponentiate(length)
            self._weigh(head, [code.at(y, code.times(i, self._across)) for i in numbers], length)

    def _lay_out(self, head: Head, length: Value) -> None:
        """Fill the panels, (⌈length / columns⌉, size, columns): the keys, component by component."""
        code = self.code
        with code.loop(code.index(0), length, self.columns) as left:
            panel = code.at(self["panels"], code.times(left, self._size))
            for lane in range(self.columns):
                number = code.least(code.plus(left, lane), code.plus(length, -1))
                key = code.at(head.keys, code.times(number, head.stride))
                with code.loop(code.index(0), self._size, 1) as k:
                    place = code.plus(code.times(k, self.columns), lane)
                    code.build.store(code.load_one(code.at(key, k)), code.at(panel, place))

    def _score(self, queries: Sequence[Value], length: Value) -> None:
        """Store the products of a cell's rows with all keys, and the largest of each row.

        Those past the end are the last key's once more, so that they change no largest.
        """
        code = self.code
        for i in range(self.rows):
            code.store(code.constant(_LOWEST), code.vector_at(self._largest, i))
        with code.loop(code.index(0), length, self.columns) as left:
            panel = code.at(self["panels"], code.times(left, self._size))
            for i, values in enumerate(self.product(queries, panel, self.columns, self._size)):
                largest = code.vector_at(self._largest, i)
                for v, value in enumerate(values):
                    code.store(value, code.at(self._row(i), code.plus(left, v * code.lanes)))
                    code.store(code.largest(value, code.load(largest)), largest)

    def _exponentiate(self, length: Value) -> None:
        """Replace products by e^(scaling·(product - largest)), and add them up."""
        code, build = self.code, self.code.build
        scaling = build.fmul(code.spread(code.load_one(self["scaling"])), code.constant(1 / math.log(2)))
        for i in range(self.rows):
            largest = code.vector_at(self._largest, i)
            code.store(build.fmul(code.spread(code.maximum(code.load(largest))), scaling), largest)
            code.store(code.constant(0.0), code.vector_at(self._totals, i))
        with code.loop(code.index(0), length, code.lanes) as left:
            there = build.icmp_signed("<", code.counting(left), code.spread(length))
            for i in range(self.rows):
                place, total = code.at(self._row(i), left), code.vector_at(self._totals, i)
                least = build.fneg(code.load(code.vector_at(self._largest, i)))
                value = code.power_of_two(code.fused(code.load(place), scaling, least), at_most_one=True)
                value = build.select(there, value, code.constant(0.0))
                code.store(value, place)
                code.store(build.fadd(code.load(total), value), total)

    def _weigh(self, head: Head, targets: Sequence[Value], length: Value) -> None:
        """Store the mean of the values, weighted by the exponentials."""
        code = self.code
        totals = [code.total(code.load(code.vector_at(self._totals, i))) for i in range(self.rows)]
        factors = [code.build.fdiv(code.constant(1.0), code.spread(total)) for total in totals]
        rows = [self._row(i) for i in range(self.rows)]
        with code.loop(code.index(0), self._size, self.columns) as left:
            values = code.at(head.values, code.times(left, head.tokens))
            products = self.product(rows, values, self.columns, length)
            for target, sums, factor in zip(targets, products, factors, strict=True):
                start = code.at(target, self._held(left))
                for v, total in enumerate(sums):
                    code.store(code.build.fmul(total, factor), code.at(start, code.index(v * code.lanes)))

    def _held(self, left: Value) -> Value:
        """Return the first component of a cell, so that its last is a head's last at most."""
        return self.code.least(left, self.code.build.sub(self._size, self.code.index(self.columns)))

    def _row(self, i: int) -> Value:
        return self.code.at(self["scores"], self.code.times(self["room"], i))


class _GivenAttention(Attention):
    """Writes attention for queries, keys and values that are given."""

    def write(self) -> None:
        """Write all of it."""
        code = self.code
        with code.loop(self["first"], self["last"], 1) as sequence:
            begin, end = (code.load_index(self["ends"], code.plus(sequence, i)) for i in range(2))
            length = code.build.sub(end, begin)
            with code.loop(code.index(0), self._heads, 1) as number:
                offset = code.plus(code.times(begin, self["stride"]), code.times(number, self._size))
                queries, keys, values = (code.at(self[name], offset) for name in ("queries", "keys", "values"))
                self._copy(values, length)
                head = Head(queries, keys, self["stride"], self["rows"], length)
                y = code.plus(code.times(begin, self._across), code.times(number, self._size))
                self.attend(head, length, code.at(self["y"], y))

    def _copy(self, values: Value, length: Value) -> None:
        """Copy values to where they lie side by side: as they are given, each is on a page of its own."""
        code = self.code
        with code.loop(code.index(0), self._size, self.columns) as left:
            source, target = code.at(values, self._held(left)), code.at(self["rows"], code.times(left, length))
            with code.loop(code.index(0), length, 1) as number:
                for v in range(VECTORS):
                    value = code.load(code.at(source, code.plus(code.times(number, self["stride"]), v * code.lanes)))
                    code.store(value, code.at(target, code.plus(code.times(number, self.columns), v * code.lanes)))
