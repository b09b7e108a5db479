"""Products of matrices by seven products of their halves, where the definition takes eight: an eighth less work.

Strassen's algorithm ("Gaussian Elimination is not Optimal", 1969), applied once, in Winograd's form, which has the
fewest sums (Knuth, "The Art of Computer Programming", 4.6.4). Of x·W, rows are halved by taking every second one, a
row's numbers and the columns in their middles: ::

    x = [[A11, A12], [A21, A22]]    A11: the even rows' first halves; A21: the odd rows' first halves
    W = [[B11, B12], [B21, B22]]

    S1 = A21 + A22      S2 = S1 - A11       S3 = A11 - A21      S4 = A12 - S2
    T1 = B12 - B11      T2 = B22 - T1       T3 = B22 - B12      T4 = T2 - B21

    U = A11·B11 + S2·T2                 V = U + S3·T3
    even rows:  A11·B11 + A12·B21       U + S1·T1 + S4·B22
    odd rows:   V - A22·T4              V + S1·T1

The T are made once, with the weights. Each sum of products goes on in registers where the one before ended.

What this costs: rounding errors are bounded by a small multiple of those of the definition, but relative to the largest
numbers of both rows, where the definition's are relative to each result's own terms (Higham, "Accuracy and Stability of
Numerical Algorithms", 23.2.2); and a row's result depends, by rounding alone, on the row that it is paired with. Only
rows of one text are paired, so that a text's vector still depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.embedding.encoding.programs.cells import VECTORS, Cells, cell_columns, cell_rows
from driftline.components.vector_code import Value, VectorCode

PRODUCTS: Final = 7

_STEP: Final = 4
"""Numbers of a row in a pass of the innermost loop. Measured: more, and the seven loops' code has no room any more in
the cache of decoded instructions."""

_LONGEST_CHUNK: Final = 384
"""Columns of a chunk at most: its operands and the rest of a block share a level 2 cache."""

_EVEN_LEFT, _ODD_LEFT, _U, _V = range(4)
_QUARTERS: Final = ((_EVEN_LEFT, _U), (_ODD_LEFT, _V))  # [row][side]: U and V end as the right halves


def block_pairs(inner: int) -> int:
    """Return how many pairs of rows go through all columns before the next do, whole cells of them.

    With a panel of weights, a level 2 cache holds what is summed of them. Measured.
    """
    return cell_rows() * (4 if inner <= 512 else 2)


def can_halve(inner: int, width: int) -> bool:
    """Say whether rows of so many numbers can be multiplied by halves, into results of so many columns."""
    return inner % (2 * cell_columns()) == 0 and width % (2 * cell_columns()) == 0


def operands_shape(hidden: int, inner: int) -> tuple[int, int, int]:
    """Return the shape of a block's operands, of products of so many numbers in a layer of so many numbers a token."""
    return PRODUCTS, block_pairs(hidden), inner // 2


def chunk_of(width: int) -> int:
    """Return how many columns make a chunk, of whole panels in each half; a divisor, or 0 where none fits."""
    unit = 2 * cell_columns()
    return max((size for size in range(unit, min(width, _LONGEST_CHUNK) + 1, unit) if width % size == 0), default=0)


def pairs_within(ends: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair the rows of each of some sequences; an odd one's last row is paired with itself.

    Args:
        ends: where the sequences end, beginning with 0.

    Returns:
        The rows of each pair, (pairs, 2); and where each sequence's pairs end, beginning with 0.
    """
    bounds = np.asarray(ends, np.int64)
    lengths = np.diff(bounds)
    pair_ends = np.concatenate([[0], np.cumsum((lengths + 1) // 2)])
    counts = np.diff(pair_ends)
    first = 2 * (np.arange(pair_ends[-1]) - np.repeat(pair_ends[:-1], counts)) + np.repeat(bounds[:-1], counts)
    last = np.repeat(bounds[1:], counts) - 1
    return np.ascontiguousarray(np.stack([first, np.minimum(first + 1, last)], axis=1)), pair_ends


def halved_panels(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the seven products take of a linear layer's weights, (width, inner).

    Returns:
        (width / 2 / columns, 7, inner / 2, columns): for each panel of columns, one in each half of the columns: B11,
        B21, T2, T3, -T4, T1, B22.
    """
    width, inner = weight.shape
    columns = cell_columns()
    parts = weight.T.astype(np.float64).reshape(2, inner // 2, 2, width // 2 // columns, columns)
    b11, b12, b21, b22 = (parts[i, :, j].swapaxes(0, 1) for i in range(2) for j in range(2))
    t1, t3 = b12 - b11, b22 - b12
    t2 = b22 - t1
    return np.ascontiguousarray(np.stack([b11, b21, t2, t3, b21 - t2, t1, b22], axis=1), np.float32)


class PairBlocks(Cells):
    """Writes programs that go block by block of pairs, whose rows' numbers are the argument "pairs", (pairs, 2).

    Pairs are in their rows' order, and leave out no row between. A block's *operands* are an array (7, room, half):
    A11, A12, S2, S3, A22, S1, S4 of each pair, in the order of use; half of a row's numbers each.

    Args:
        code: what is written to.
        room: pairs of a block at most, whole cells of them.
    """

    def __init__(self, code: VectorCode, room: int) -> None:
        super().__init__(code)
        self.room = room
        self._found = code.variables(4 * room * VECTORS)

    @contextmanager
    def blocks(self, first: Value, last: Value) -> Generator[None]:
        """Write what is done with each block of some pairs."""
        code = self.code
        with code.loop(first, last, self.room) as top:
            self._top, self._count = top, code.least(code.index(self.room), code.build.sub(last, top))
            yield

    @contextmanager
    def panels(self, weights: Value, inner: int, width: int) -> Generator[tuple[Value, Value]]:
        """Give each panel of a linear layer's weights, and its first column in the first half of the columns."""
        code = self.code
        with code.loop(code.index(0), code.index(width // 2), self.columns) as column:
            yield code.at(weights, code.times(column, PRODUCTS * inner // 2)), column

    @contextmanager
    def slots(self, *, filled: bool = False) -> Generator[Value]:
        """Give the place of each of the block's pairs; or each place in its cells."""
        code = self.code
        end = self._count
        if filled:
            end = code.times(code.divided(code.plus(end, self.rows - 1), self.rows), self.rows)
        with code.loop(code.index(0), end, 1) as slot:
            yield slot

    def rows_of(self, slot: Value) -> tuple[Value, Value]:
        """Return the numbers of a pair's rows."""
        code = self.code
        place = code.times(code.plus(self._top, slot), 2)
        return code.load_index(self["pairs"], place), code.load_index(self["pairs"], code.plus(place, 1))

    @contextmanager
    def block_rows(self) -> Generator[Value]:
        """Give the number of each of the block's rows."""
        code = self.code
        first, _ = self.rows_of(code.index(0))
        _, last = self.rows_of(code.plus(self._count, -1))
        with code.loop(first, code.plus(last, 1), 1) as row:
            yield row

    def pack_block(self, x: Value, width: int, operands: Value) -> None:
        """Store the operands of the block's rows of x, (rows, width); the last pair's once more for the last cell's."""
        code = self.code
        with self.slots(filled=True) as slot:
            rows = self.rows_of(code.least(slot, code.plus(self._count, -1)))
            even, odd = (code.at(x, code.times(row, width)) for row in rows)
            self.pack_rows(even, odd, operands, width // 2, slot)

    def pack(self, quarters: Sequence[Value], operands: Value, half: int, place: Value) -> None:
        """Store the operands of A11, A12, A21, A22, vectors, at a place of each operand."""
        code, build = self.code, self.code.build
        a11, a12, a21, a22 = quarters
        s1 = build.fadd(a21, a22)
        s2 = build.fsub(s1, a11)
        values = (a11, a12, s2, build.fsub(a11, a21), a22, s1, build.fsub(a12, s2))
        for number, value in enumerate(values):
            code.store(value, code.at(operands, code.plus(place, number * self.room * half)))

    def pack_rows(self, even: Value, odd: Value, operands: Value, half: int, pair: Value) -> None:
        """Store the operands of a pair of rows, given where they begin."""
        code = self.code
        place = code.times(pair, half)
        with code.loop(code.index(0), code.index(half), code.lanes) as k:
            quarters = [code.load(code.at(row, code.plus(k, side * half))) for row in (even, odd) for side in range(2)]
            self.pack(quarters, operands, half, code.plus(place, k))

    def multiply(self, operands: Value, inner: int, panel: Value) -> None:
        """Compute the products of the block's operands with a panel, (7, inner / 2, columns), for :meth:`result`.

        Whole cells are computed: pairs past the last need their operands, too.
        """
        code, half = self.code, inner // 2

        def run(number: int, start: int | None, *ends: tuple[int, int | None]) -> None:
            """Go on from a start, and keep the sum as each end, with what is there added."""
            weights = code.at(panel, code.index(number * half * self.columns))
            rows = code.at(operands, code.index(number * self.room * half))
            with code.loop(code.index(0), self._count, self.rows) as first:
                before = None if start is None else self._all(start, first)
                # The next product's weights, or the next panel's, come from far: each cell fetches its share of them.
                share = code.plus(code.times(first, half * self.columns // self.room), half * self.columns)
                ahead = code.at(weights, share)
                found = self._cell(code.at(rows, code.times(first, half)), weights, ahead, half, before)
                kept = [(end, found if other is None else self._plus(found, other, first)) for end, other in ends]
                for end, sums in kept:
                    for i, values in enumerate(sums):
                        for v, value in enumerate(values):
                            code.store(value, self._place(end, code.plus(first, i), v))

        run(0, None, (_U, None))
        run(1, _U, (_EVEN_LEFT, None))
        run(2, _U, (_U, None))
        run(3, _U, (_V, None))
        run(4, _V, (_ODD_LEFT, None))
        run(5, None, (_U, _U), (_V, _V))
        run(6, _U, (_U, None))

    def result(self, pair: Value, row: int, side: int, v: int) -> Value:
        """Return a vector of results.

        Args:
            pair: whose.
            row: 0 for its even row, 1 for the odd one.
            side: 0 for the panel in the first half of the columns, 1 for that in the second.
            v: which of the panel's vectors.
        """
        return self.code.load(self._place(_QUARTERS[row][side], pair, v))

    def _place(self, kind: int, pair: Value, v: int) -> Value:
        code = self.code
        return code.vector_at(self._found, code.plus(code.times(pair, VECTORS), kind * self.room * VECTORS + v))

    def _all(self, kind: int, first: Value) -> list[list[Value]]:
        code = self.code
        return [
            [code.load(self._place(kind, code.plus(first, i), v)) for v in range(VECTORS)] for i in range(self.rows)
        ]

    def _plus(self, sums: Sequence[Sequence[Value]], kind: int, first: Value) -> list[list[Value]]:
        add = self.code.build.fadd
        others = self._all(kind, first)
        return [[add(a, b) for a, b in zip(one, other, strict=True)] for one, other in zip(sums, others, strict=True)]

    def _cell(
        self, rows: Value, weights: Value, ahead: Value, half: int, start: Sequence[Sequence[Value]] | None
    ) -> list[list[Value]]:
        """Return the products of a cell's rows, which lie end to end, with a panel's columns, and the start."""
        code = self.code
        self.begin(start)
        with code.loop(code.index(0), code.index(half), _STEP) as k:
            code.fetch(code.at(ahead, code.times(k, self.columns * self.rows // self.room)))
            own, columns = code.at(rows, k), code.at(weights, code.times(k, self.columns))
            for j in range(_STEP):
                numbers = [code.at(own, code.index(i * half + j)) for i in range(self.rows)]
                self.step(numbers, code.at(columns, code.index(j * self.columns)))
        return self.sums()
