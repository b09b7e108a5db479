"""The program of attention with the products that make its queries, keys and values."""

from __future__ import annotations

from functools import cache
from typing import Final

from driftline.components.embedding.encoding.programs.attention import Attention, Head
from driftline.components.embedding.encoding.programs.cells import VECTORS, lanes
from driftline.components.embedding.encoding.programs.halves import PairBlocks, block_pairs
from driftline.components.vector_code import Compiled, Value, VectorCode

POINTERS: Final = (
    *("x", "weights", "bias", "ends", "pairs", "pair_ends", "groups", "scaling"),
    *("operands", "heads", "panels", "scores", "y"),
)
INTEGERS: Final = ("first", "last", "room")


@cache
def self_attention_program(heads: int, size: int) -> Compiled:
    """Return the program of attention with the products that make its queries, keys and values, for float32.

    A few sequences at a time: what is between the products, by :mod:`.halves`, and the attention stays in the caches.
    It takes the addresses POINTERS and the INTEGERS:

    ===========  ====================================================================================
    x            (tokens, heads·size)
    weights      those of the queries, the keys and the values of the first head, then of the next, as
                 :func:`.halves.halved_panels` says
    bias         (heads, 3, size)
    ends         (sequences + 1,) int64, where the sequences begin and end
    pairs        (pairs, 2) int64, the tokens of each, in order, none of two sequences
    pair_ends    (sequences + 1,) int64, where the sequences' pairs begin and end
    groups       (groups + 1,) int64, the first sequence of each group
    operands     (7, pairs of a block, heads·size / 2) working space; so is
    heads        (heads, 3, tokens of the largest group, size) for the heads' vectors
    y …          as :func:`.attention.attention_program` says, as are scaling, panels, scores, and room
    first, last  the groups to compute
    ===========  ====================================================================================

    Args:
        heads: heads of the attention; of their vectors' numbers together are pairs of halves made.
        size: numbers of a head's vectors, a multiple of :func:`.cells.cell_columns`.
    """
    code = VectorCode("self_attention", POINTERS, INTEGERS, single=True, lanes=lanes())
    _SelfAttention(code, heads, size).write()
    return code.compiled()


class _SelfAttention:
    """Writes it."""

    def __init__(self, code: VectorCode, heads: int, size: int) -> None:
        self.code = code
        self._heads, self._size = heads, size
        self._hidden = heads * size
        self._attention = Attention(code, heads, size)
        self._blocks = PairBlocks(code, block_pairs(self._hidden))

    def write(self) -> None:
        """Write all of it."""
        code = self.code
        with code.loop(self._argument("first"), self._argument("last"), 1) as group:
            first, last = (code.load_index(self._argument("groups"), code.plus(group, i)) for i in range(2))
            top, bottom = (code.load_index(self._argument("ends"), each) for each in (first, last))
            pairs = [code.load_index(self._argument("pair_ends"), each) for each in (first, last)]
            tokens = code.build.sub(bottom, top)
            with self._blocks.blocks(*pairs):
                self._project(top, tokens)
            with code.loop(code.index(0), code.index(self._heads), 1) as number:
                vectors = [self._matrix(code.plus(code.times(number, 3), i), tokens) for i in range(3)]
                with code.loop(first, last, 1) as sequence:
                    self._attend(number, vectors, sequence, top, tokens)

    def _argument(self, name: str) -> Value:
        return self.code.arguments[name]

    def _matrix(self, number: Value, tokens: Value) -> Value:
        """Return where one of a head's three kinds of vectors begins, of all these."""
        code = self.code
        return code.at(self._argument("heads"), code.times(code.times(number, tokens), self._size))

    def _attend(self, number: Value, vectors: list[Value], sequence: Value, top: Value, tokens: Value) -> None:
        code, columns = self.code, self._blocks.columns
        begin, end = (code.load_index(self._argument("ends"), code.plus(sequence, i)) for i in range(2))
        before = code.build.sub(begin, top)
        queries, keys = (code.at(each, code.times(before, self._size)) for each in vectors[:2])
        values = code.at(vectors[2], code.times(before, columns))
        y = code.plus(code.times(begin, self._hidden), code.times(number, self._size))
        head = Head(queries, keys, code.index(self._size), values, tokens)
        self._attention.attend(head, code.build.sub(end, begin), code.at(self._argument("y"), y))

    def _project(self, top: Value, tokens: Value) -> None:
        """Store a block's queries, keys and values where the attention wants them.

        Of queries and keys, a token's numbers lie side by side; of values, those of a cell, then the next token's.
        """
        code, blocks = self.code, self._blocks
        columns, cells = blocks.columns, self._size // blocks.columns
        width = 3 * self._hidden
        blocks.pack_block(self._argument("x"), self._hidden, self._argument("operands"))
        with blocks.panels(self._argument("weights"), self._hidden, width) as (panel, column):
            blocks.multiply(self._argument("operands"), self._hidden, panel)
            for side in range(2):
                first = code.plus(column, side * width // 2)
                cell = code.divided(first, columns)
                matrix = code.divided(cell, cells)
                kind = code.build.sub(matrix, code.times(code.divided(matrix, 3), 3))
                is_value = code.build.icmp_signed("==", kind, code.index(2))
                stride = code.build.select(is_value, code.index(columns), code.index(self._size))
                step = code.build.select(is_value, code.times(tokens, columns), code.index(columns))
                within = code.times(code.build.sub(cell, code.times(matrix, cells)), step)
                target = code.at(self._matrix(matrix, tokens), within)
                bias = [
                    code.load(code.at(self._argument("bias"), code.plus(first, v * code.lanes))) for v in range(VECTORS)
                ]
                with blocks.slots() as slot:
                    for row, number in enumerate(blocks.rows_of(slot)):
                        start = code.at(target, code.times(code.build.sub(number, top), stride))
                        for v in range(VECTORS):
                            result = code.build.fadd(blocks.result(slot, row, side, v), bias[v])
                            code.store(result, code.at(start, code.index(v * code.lanes)))
