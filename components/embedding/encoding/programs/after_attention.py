"""The program of all that follows the attention in a layer of BERT's kind."""

from __future__ import annotations

from functools import cache
from typing import Final

from driftline.components.embedding.encoding.programs.activation import gelu
from driftline.components.embedding.encoding.programs.cells import VECTORS, lanes
from driftline.components.embedding.encoding.programs.halves import PRODUCTS, PairBlocks, block_pairs
from driftline.components.embedding.encoding.programs.norm import Norm, Normaliser
from driftline.components.vector_code import Compiled, Value, VectorCode

POINTERS: Final = (
    *("attended", "inputs", "pairs"),
    *("panels_0", "bias_0", "scale_0", "shift_0", "epsilon_0"),
    *("panels_1", "bias_1"),
    *("panels_2", "bias_2", "scale_2", "shift_2", "epsilon_2"),
    *("operands", "between", "y"),
)
INTEGERS: Final = ("first", "last")


@cache
def after_attention_program(hidden: int, chunk: int, chunks: int) -> Compiled:
    """Return the program of what follows the attention in a layer of BERT's kind, for float32.

    norm(down(gelu(up(m))) + m) with m = norm(W·attended + bias + inputs), block by block of pairs of rows and chunk by
    chunk of what is between up and down, so that all stays in the caches; products by :mod:`.halves`. It takes the
    addresses POINTERS and the INTEGERS:

    ==============  =================================================================================
    attended …      (rows, hidden), as are inputs, those of the attention, and y, the result
    pairs           (pairs, 2) int64, the rows of each, in order
    panels_0 …      of m: weights as :func:`.halves.halved_panels` says, bias, and the norm's scale, shift
                    and epsilon, (hidden,) and (1,)
    panels_1 …      of up: weights of the first chunk of its columns, then of the next; and bias
    panels_2 …      of down: weights of the first chunk of its numbers, then of the next; bias, and
                    the last norm's scale, shift and epsilon
    operands        (7, pairs of a block, hidden / 2) working space; so is
    between         (7, pairs of a block, chunk / 2)
    first, last     the pairs to compute
    ==============  =================================================================================

    Args:
        hidden: numbers of a token, which :func:`.halves.can_halve` takes.
        chunk: numbers of a chunk, which it takes, too.
        chunks: how many chunks there are.
    """
    code = VectorCode("after_attention", POINTERS, INTEGERS, single=True, lanes=lanes())
    _AfterAttention(code, hidden, chunk, chunks).write()
    return code.compiled()


class _AfterAttention(PairBlocks):
    """Writes it. What is normed first waits in the result's own place for the second sum."""

    def __init__(self, code: VectorCode, hidden: int, chunk: int, chunks: int) -> None:
        super().__init__(code, block_pairs(hidden))
        self._hidden, self._chunk, self._chunks = hidden, chunk, chunks
        self._normaliser = Normaliser(code)

    def write(self) -> None:
        """Write all of it."""
        code, hidden, chunk = self.code, self._hidden, self._chunk
        operands, between = self["operands"], self["between"]
        with self.blocks(self["first"], self["last"]):
            self.pack_block(self["attended"], hidden, operands)
            with self.panels(self["panels_0"], hidden, hidden) as (panel, column):
                self.multiply(operands, hidden, panel)
                self._add_inputs(column)
            self._normalise("_0")
            self.pack_block(self["y"], hidden, operands)
            self._add_bias()
            with code.loop(code.index(0), code.index(self._chunks), 1) as number:
                weights = code.times(number, PRODUCTS * hidden * chunk // 4)
                with self.panels(code.at(self["panels_1"], weights), hidden, chunk) as (panel, column):
                    self.multiply(operands, hidden, panel)
                    self._activate(code.at(self["bias_1"], code.times(number, chunk)), column)
                with self.panels(code.at(self["panels_2"], weights), chunk, hidden) as (panel, column):
                    self.multiply(between, chunk, panel)
                    self._add(column)
            self._normalise("_2")

    def _at(self, name: str, row: Value, column: Value) -> Value:
        return self.code.at(self[name], self.code.plus(self.code.times(row, self._hidden), column))

    def _places(self, column: Value) -> list[tuple[int, int, Value]]:
        """Return side, number and first column of each vector of a panel's results."""
        code = self.code
        return [
            (side, v, code.plus(column, side * self._hidden // 2 + v * code.lanes))
            for side in range(2)
            for v in range(VECTORS)
        ]

    def _add_inputs(self, column: Value) -> None:
        code, add = self.code, self.code.build.fadd
        with self.slots() as slot:
            for row, number in enumerate(self.rows_of(slot)):
                for side, v, place in self._places(column):
                    biased = add(self.result(slot, row, side, v), code.load(code.at(self["bias_0"], place)))
                    inputs = code.load(self._at("inputs", number, place))
                    code.store(add(biased, inputs), self._at("y", number, place))

    def _add_bias(self) -> None:
        code = self.code
        with self.block_rows() as row, code.loop(code.index(0), code.index(self._hidden), code.lanes) as k:
            place = self._at("y", row, k)
            code.store(code.build.fadd(code.load(place), code.load(code.at(self["bias_2"], k))), place)

    def _activate(self, bias: Value, column: Value) -> None:
        """Store what GELU makes of a panel's results as operands."""
        code = self.code
        half = self._chunk // 2
        with self.slots(filled=True) as slot:
            for v in range(VECTORS):
                place = code.plus(column, v * code.lanes)
                biases = [code.load(code.at(bias, code.plus(place, side * half))) for side in range(2)]
                quarters = [
                    gelu(code, code.build.fadd(self.result(slot, row, side, v), biases[side]))
                    for row in range(2)
                    for side in range(2)
                ]
                self.pack(quarters, self["between"], half, code.plus(code.times(slot, half), place))

    def _add(self, column: Value) -> None:
        code = self.code
        with self.slots() as slot:
            found: list[tuple[Value, Value]] = []
            for row, number in enumerate(self.rows_of(slot)):
                for side, v, place in self._places(column):
                    target = self._at("y", number, place)
                    found.append((code.build.fadd(self.result(slot, row, side, v), code.load(target)), target))
            for value, target in found:  # after all are read: both may be the same row
                code.store(value, target)

    def _normalise(self, suffix: str) -> None:
        norm = Norm(self["scale" + suffix], self["shift" + suffix], self["epsilon" + suffix])
        with self.block_rows() as row:
            self._normaliser.normalise(self._at("y", row, self.code.index(0)), self._hidden, norm)
