"""How the program for tiles on a CPU is made, and how its arrays lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from driftline.components.kernel.llvm_codegen import host_registers
from driftline.components.kernel.theory.families import Argument, Family

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
    """How a program is made, and how its arrays lie.

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
