"""A piece of the kernel matrix on a CPU, summed in the registers it is computed in: a program made by LLVM.

XLA stores a tile's distances and kernel values and reads them again for each sum. Here a *cell*, of a few rows times
two vectors of columns, stays in registers from its matrix product to its sums, and memory sees the vectors and the sums
alone. In turn, for each cell:

1. the inner products of its rows and columns, by fused multiply-adds at the processor's rate;
2. from them and the squared norms the squared distances, which all kernels share;
3. for each kernel its values, by its function as vector code
   (:mod:`driftline.components.kernel.tiles.cpu_functions`), added to the sums of the rows and to a *strip*: the sums
   over the rows of one bin, column by column;
4. where there are kernels of the L1 distance, those distances: three operations where a product takes one, once for all
   of these kernels, and when the others are done with their registers; then their values as in 3.

Of kernels of the L1 distance alone, 1 and 2 are left out.

Each strip is then added to the columns' sums and, bin by bin, to the bins, which at the end are multiplied by the
labels for the piece's part of sᵀKs. A float32 sum has at most 64 terms in a row (a bin: 1,024; a product with
labels: 8); all beyond is float64.

Columns are taken in chunks that the level 2 cache holds. Of a piece on the diagonal, chunks below it are left out, and
each pair beside its chunk's own square counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

from driftline.components.kernel.llvm_codegen import Compiled, Value, VectorCode, host_registers
from driftline.components.kernel.theory.families import Argument, Family
from driftline.components.kernel.tiles.cpu_functions import kernel_values

VECTORS: Final = 2
"""Vectors of columns in a cell. Its rows times these are as many sums as keep the multiply-adds busy."""


class Placed(NamedTuple):
    """A family's kernels among all of a layout.

    Attributes:
        family: the family.
        first: place of its first kernel.
        number: how many kernels it has.
    """

    family: Family
    first: int
    number: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameters of a program: its kernels, the size of a cell, and the layout of its arrays.

    Attributes:
        families: the kernels' families and how many kernels each has, in the order of the factors.
        bin_rows: rows of a bin, c.
        single: whether floats are float32, else float64.
        lanes: floats of a vector.
        rows: rows of a cell.
    """

    families: tuple[tuple[Family, int], ...]
    bin_rows: int
    single: bool
    lanes: int
    rows: int

    @classmethod
    def of(cls, families: Sequence[tuple[Family, int]], bin_rows: int, piece: int, *, single: bool) -> Layout:
        """Fit a layout to this processor, and to pieces of that many rows."""
        registers = host_registers()
        lanes = registers.bytes // (4 if single else 8)
        many = registers.many and piece // bin_rows % 8 == 0  # a cell is of bins, too
        return cls(tuple(families), bin_rows, single, lanes, min(8 if many else 4, VECTORS * lanes))

    @property
    def kernels(self) -> int:
        """Number of kernels, Q."""
        return sum(count for _, count in self.families)

    def placed(self, *arguments: Argument) -> list[Placed]:
        """Return the families of some arguments, in order."""
        starts = accumulate((count for _, count in self.families), initial=0)
        placed = [Placed(family, first, number) for (family, number), first in zip(self.families, starts, strict=False)]
        return [each for each in placed if each.family.argument in arguments]

    @property
    def columns(self) -> int:
        """Columns of a cell, and rows of a panel: vectors lie in panels (d, columns), component by component."""
        return VECTORS * self.lanes

    @property
    def strip_rows(self) -> int:
        """Strips that are filled at a time: one, or as many as there are bins in the rows of a cell."""
        return max(1, self.rows // self.bin_rows)


PRODUCT_RUN: Final = 8
"""Bins whose product with labels is added up in float32."""

POINTERS: Final = (
    "x",
    "y",
    "norms_x",
    "norms_y",
    "factors",
    "labels_x",
    "labels_y",
    "row_sums",
    "column_sums",
    "within",
    "bins",
    "strips",
)
INTEGERS: Final = ("d", "rows", "columns", "diagonal", "stride", "piece", "chunk", "label_columns")


@lru_cache(maxsize=64)
def tile_program(layout: Layout) -> Compiled:
    """Return the compiled program, which takes the addresses POINTERS and the INTEGERS.

    Arrays are of the layout's floats where nothing else is said.

    =============  ==================================================================================================
    x, y           (⌈piece / columns⌉, d, columns) the piece's vectors in panels
    norms_x …      (piece,) their squared norms
    factors        (Q,) what each kernel's argument is multiplied by, γ or √γ
    labels_x …     (piece / c, label_columns) labels of the bins, 0 or 1, a column a permutation
    row_sums       (Q, stride) float64, of which the first `piece` of each kernel are added to; so are
    column_sums    (Q, stride) float64, except by a piece on the diagonal's own squares; and
    within         (Q, label_columns) float64, the part of sᵀKs, pairs beside the diagonal counted twice
    bins           (Q, piece / c, piece / c) working space, zeros
    strips         (Q, strip_rows, chunk) working space
    d              components of a vector
    rows           rows of x that are there
    columns        rows of y that are there
    diagonal       whether x and y are one and the same: 0 or 1
    label_columns  a multiple of the layout's columns
    chunk          columns taken at a time, a multiple of c, of the layout's columns, and of the rows of all strips
    piece          rows of the piece, a multiple of chunk; piece / c, of the layout's rows
    =============  ==================================================================================================
    """
    code = VectorCode("piece", POINTERS, INTEGERS, single=layout.single, lanes=layout.lanes)
    _Program(code, layout).write()
    return code.compiled()


class _Program:
    """Writes the program."""

    def __init__(self, code: VectorCode, layout: Layout) -> None:
        self._code = code
        self._layout = layout
        self._arguments = code.arguments
        self._products = code.variables(layout.rows * VECTORS)
        self._distances = code.variables(layout.rows * VECTORS)
        self._manhattan = code.variables(layout.rows * VECTORS)
        self._rows = code.variables(layout.kernels * layout.rows)
        self._on_diagonal = code.build.icmp_signed("!=", self["diagonal"], code.index(0))
        self._panel = code.times(self["d"], layout.columns)

    def __getitem__(self, name: str) -> Value:
        return self._arguments[name]

    def write(self) -> None:
        """Write all of it."""
        code, layout = self._code, self._layout
        with code.loop(code.index(0), self["columns"], self["chunk"]) as left:
            right = code.plus(left, self["chunk"])
            stop = code.build.select(self._on_diagonal, code.least(right, self["rows"]), self["rows"])
            with code.loop(code.index(0), stop, layout.strip_rows * layout.bin_rows) as top:
                self._strips(left, code.least(right, self["columns"]), top, stop)
        with (
            code.loop(code.index(0), code.index(layout.kernels), 1) as kernel,
            code.loop(code.index(0), self["label_columns"], layout.columns) as first,
        ):
            self._within(kernel, first)

    def _strips(self, left: Value, right: Value, top: Value, stop: Value) -> None:
        """Fill the strips of some rows of a chunk, and add them up."""
        code, layout = self._code, self._layout
        with code.loop(code.index(0), code.times(self["chunk"], layout.kernels * layout.strip_rows), layout.lanes) as k:
            code.store(code.constant(0.0), code.at(self["strips"], k))
        bottom = code.least(code.plus(top, layout.strip_rows * layout.bin_rows), stop)
        with code.loop(top, bottom, layout.rows) as row:
            with code.loop(code.index(0), code.index(layout.kernels * layout.rows), 1) as k:
                code.store(code.constant(0.0), code.vector_at(self._rows, k))
            with code.loop(left, right, layout.columns) as column:
                self._cell(row, column, left)
            with code.loop(code.index(0), code.index(layout.kernels), 1) as kernel:
                for i in range(layout.rows):
                    place = code.plus(code.times(kernel, layout.rows), i)
                    sums = code.widened(code.load(code.vector_at(self._rows, place)))
                    self._add(self._place("row_sums", kernel, code.plus(row, i)), code.total(sums))
        above = code.build.or_(code.build.not_(self._on_diagonal), code.less(top, left))
        with code.loop(code.index(0), code.index(layout.kernels), 1) as kernel:
            self._add_strips(kernel, left, right, top, above)

    def _cell(self, row: Value, column: Value, left: Value) -> None:
        code, layout = self._code, self._layout
        rows = code.at(self["x"], code.times(code.divided(row, layout.columns), self._panel))
        rows = code.at(rows, code.build.urem(row, code.index(layout.columns)))
        columns = code.at(self["y"], code.times(code.divided(column, layout.columns), self._panel))
        below, beyond = code.plus(row, layout.rows), code.plus(column, layout.columns)
        own = code.build.and_(code.less(row, beyond), code.less(column, below))
        own = code.build.and_(own, self._on_diagonal)
        outside = code.build.or_(code.less(self["rows"], below), code.less(self["columns"], beyond))
        special = code.build.or_(own, outside)
        lie = rows, layout.columns, code.index(1), columns, code.index(layout.columns), self["d"]
        if wanted := layout.placed("product", "distance"):
            self._accumulate(self._products, code.fma, *lie)
            if layout.placed("distance"):
                self._measure(row, column)
            self._evaluate(wanted, row, column, left, special)
        if wanted := layout.placed("manhattan"):
            self._accumulate(self._manhattan, self._add_difference, *lie)
            self._evaluate(wanted, row, column, left, special)

    def _evaluate(self, wanted: Sequence[Placed], row: Value, column: Value, left: Value, special: Value) -> None:
        """Add the values that kernels of some families have in a cell to their sums."""
        code, layout = self._code, self._layout
        arguments = {"product": self._products, "distance": self._distances, "manhattan": self._manhattan}
        for family, first, number in wanted:
            with code.loop(code.index(first), code.index(first + number), 1) as kernel:
                factor = code.spread(code.load_one(code.at(self["factors"], kernel)))
                values = [
                    kernel_values(code, family, factor, code.load(code.vector_at(arguments[family.argument], place)))
                    for place in map(code.index, range(layout.rows * VECTORS))
                ]
                self._add_values(kernel, self._masked(values, row, column, special), column, left)

    def _add_difference(self, one: Value, column: Value, total: Value) -> Value:
        return self._code.build.fadd(total, self._code.magnitude(self._code.build.fsub(one, column)))

    def _accumulate(
        self,
        totals: Value,
        add: Callable[[Value, Value, Value], Value],
        x: Value,
        x_step: int,
        x_across: Value,
        y: Value,
        y_step: Value,
        count: Value,
    ) -> None:
        """Store the sums of a cell: Σₖ of what ``add`` adds for x[k·x_step + i·x_across] and y[k·y_step + j]."""
        code, layout = self._code, self._layout
        for place in range(layout.rows * VECTORS):
            code.store(code.constant(0.0), code.vector_at(totals, code.index(place)))
        with code.loop(code.index(0), count, 1) as k:
            at_y, at_x = code.at(y, code.times(k, y_step)), code.at(x, code.times(k, x_step))
            columns = [code.load(code.at(at_y, code.index(v * layout.lanes))) for v in range(VECTORS)]
            for i in range(layout.rows):
                one = code.spread(code.load_one(code.at(at_x, code.times(x_across, i))))
                for v in range(VECTORS):
                    total = code.vector_at(totals, code.index(i * VECTORS + v))
                    code.store(add(one, columns[v], code.load(total)), total)

    def _measure(self, row: Value, column: Value) -> None:
        """Store the squared distances of a cell: the squared norms less twice the products."""
        code, layout = self._code, self._layout
        norms = [code.load(code.at(self["norms_y"], code.plus(column, v * layout.lanes))) for v in range(VECTORS)]
        for i in range(layout.rows):
            norm = code.spread(code.load_one(code.at(self["norms_x"], code.plus(row, i))))
            for v in range(VECTORS):
                place = code.index(i * VECTORS + v)
                product = code.load(code.vector_at(self._products, place))
                squared = code.fma(product, code.constant(-2.0), code.build.fadd(norm, norms[v]))
                code.store(code.largest(squared, code.constant(0.0)), code.vector_at(self._distances, place))

    def _masked(self, values: list[Value], row: Value, column: Value, special: Value) -> list[Value]:
        """Return the values, but zeros past the ends of the samples and on the diagonal of the matrix."""
        code, build, layout = self._code, self._code.build, self._layout
        ordinary = build.block
        with build.if_then(special, likely=False):
            kept: list[Value] = []
            for i in range(layout.rows):
                here = code.plus(row, i)
                end = build.select(code.less(here, self["rows"]), self["columns"], code.index(0))
                itself = build.select(self._on_diagonal, here, code.index(-1))
                for v in range(VECTORS):
                    columns = code.counting(code.plus(column, v * layout.lanes))
                    there = build.and_(
                        build.icmp_signed("<", columns, code.spread(end)),
                        build.icmp_signed("!=", columns, code.spread(itself)),
                    )
                    kept.append(build.select(there, values[i * VECTORS + v], code.constant(0.0)))
            masked = build.block
        results: list[Value] = []
        for value, zeroed in zip(values, kept, strict=True):
            result = build.phi(value.type)
            result.add_incoming(value, ordinary)
            result.add_incoming(zeroed, masked)
            results.append(result)
        return results

    def _add_values(self, kernel: Value, values: list[Value], column: Value, left: Value) -> None:
        """Add a kernel's values to its rows and its strips."""
        code, layout = self._code, self._layout
        for i in range(layout.rows):
            sums = code.vector_at(self._rows, code.plus(code.times(kernel, layout.rows), i))
            row = code.sum(values[i * VECTORS : (i + 1) * VECTORS])
            code.store(code.build.fadd(code.load(sums), row), sums)
        together = layout.rows // layout.strip_rows
        for strip in range(layout.strip_rows):
            start = code.plus(self._strip(kernel, strip), code.build.sub(column, left))
            for v in range(VECTORS):
                place = code.at(self["strips"], code.plus(start, v * layout.lanes))
                rows = range(strip * together, (strip + 1) * together)
                code.store(code.build.fadd(code.load(place), code.sum([values[i * VECTORS + v] for i in rows])), place)

    def _add_strips(self, kernel: Value, left: Value, right: Value, top: Value, above: Value) -> None:
        """Add the strips to the columns' sums, unless they lie in a square on the diagonal, and to the bins."""
        code, build, layout = self._code, self._code.build, self._layout
        c, across = layout.bin_rows, code.divided(self["piece"], layout.bin_rows)
        with build.if_then(above), code.loop(left, right, layout.lanes) as column:
            place = self._place("column_sums", kernel, column)
            total = code.load_wide(place)
            for strip in range(layout.strip_rows):
                at = code.plus(self._strip(kernel, strip), build.sub(column, left))
                total = build.fadd(total, code.widened(code.load(code.at(self["strips"], at))))
            code.store_wide(total, place)
        times = build.select(above, code.one(2.0), code.one(1.0))
        bins = code.divided(code.plus(build.sub(right, left), c - 1), c)
        for strip in range(layout.strip_rows):
            row = code.plus(code.times(kernel, across), code.divided(top, c), strip)
            target = code.at(self["bins"], code.plus(code.times(row, across), code.divided(left, c)))
            source = code.at(self["strips"], self._strip(kernel, strip))
            if c == 1:
                with code.loop(code.index(0), bins, layout.lanes) as k:
                    values = code.load(code.at(source, k))
                    code.store(build.fmul(values, code.spread(times)), code.at(target, k))
                continue
            with code.loop(code.index(0), bins, 1) as k:
                cell = code.at(source, code.times(k, c))
                if c >= layout.lanes:
                    parts = [code.load(code.at(cell, code.index(j))) for j in range(0, c, layout.lanes)]
                    total = code.total(code.sum(parts))
                else:
                    total = code.sum([code.load_one(code.at(cell, code.index(j))) for j in range(c)])
                build.store(build.fmul(total, times), code.at(target, k))

    def _within(self, kernel: Value, first: Value) -> None:
        """Add Σ s_u B_uv s_v over the bins of a kernel, for a cell's width of permutations."""
        code, build, layout = self._code, self._code.build, self._layout
        across = code.divided(self["piece"], layout.bin_rows)
        bins = [
            code.divided(code.plus(self[name], layout.bin_rows - 1), layout.bin_rows) for name in ("rows", "columns")
        ]
        targets = [
            code.at(
                self["within"],
                code.plus(code.times(kernel, self["label_columns"]), first, v * layout.lanes),
                double=True,
            )
            for v in range(VECTORS)
        ]
        with code.loop(code.index(0), bins[0], layout.rows) as u:
            row = code.plus(code.times(kernel, across), u)
            cells = code.at(self["bins"], code.times(row, across))
            # In float32 only a few terms are added before float64: MMD² is a small difference of these sums.
            run = code.index(PRODUCT_RUN) if layout.single else bins[1]
            with code.loop(code.index(0), bins[1], run) as v0:
                count = code.least(run, build.sub(bins[1], v0))
                labels = code.at(self["labels_y"], code.plus(code.times(v0, self["label_columns"]), first))
                cell = code.at(cells, v0)
                self._accumulate(self._products, code.fma, cell, 1, across, labels, self["label_columns"], count)
                self._add_within(targets, u, first)

    def _add_within(self, targets: list[Value], u: Value, first: Value) -> None:
        code, layout = self._code, self._layout
        for i in range(layout.rows):
            labels = code.at(self["labels_x"], code.plus(code.times(code.plus(u, i), self["label_columns"]), first))
            for v, target in enumerate(targets):
                label = code.load(code.at(labels, code.index(v * layout.lanes)))
                product = code.load(code.vector_at(self._products, code.index(i * VECTORS + v)))
                part = code.widened(code.build.fmul(label, product))
                code.store_wide(code.build.fadd(code.load_wide(target), part), target)

    def _strip(self, kernel: Value, strip: int) -> Value:
        code, layout = self._code, self._layout
        return code.times(code.plus(code.times(kernel, layout.strip_rows), strip), self["chunk"])

    def _place(self, name: str, kernel: Value, place: Value) -> Value:
        code = self._code
        return code.at(self[name], code.plus(code.times(kernel, self["stride"]), place), double=True)

    def _add(self, place: Value, value: Value) -> None:
        build = self._code.build
        build.store(build.fadd(self._code.load_one(place, double=True), value), place)
