"""What a scan finds of one file of texts: its identity, its columns, its pieces and its counts."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from driftline.components.storage.texts.arrow_types import type_from_name
from driftline.components.storage.texts.rows import Carried
from driftline.components.storage.texts.rules import TextCounts

PIECE_ROWS = 1024
"""Rows in a piece at most."""

PIECE_BYTES = 1 << 20
"""Bytes of kept texts in a piece at most, save where one text alone has more."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Consecutive rows of a file: what work is cut by.

    Attributes:
        start: The first row, from 0.
        rows: How many rows of the file, at most 1024.
        texts: How many of them are kept.
        bytes: UTF-8 bytes of the kept texts: at most 1 MiB, or those of one longer text.
        offset: The byte of the file at which the first row begins; None where rows cannot be sought so: in Parquet,
            which skips row groups, and in gzip.
    """

    start: int
    rows: int
    texts: int
    bytes: int
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class TextSource:
    """What a scan found of one file of texts.

    Attributes:
        uri: The file.
        format: `parquet`, `jsonl` or `csv`; gzip is told by the content.
        rows: Its rows, whether they are kept or not.
        bytes: Its size.
        crc32c: Its checksum: base64 of the big-endian CRC-32C.
        carried: Its other columns, as (name, Arrow type): `json` marks a JSONL column of mixed or nested
            values, kept as JSON text; `null` one without any value; `arrow:…` a type without a short name, a
            nested one say.
        pieces: Its rows in order, cut small: together they are all rows.
        counts: What the rules and the selection made of its rows.
    """

    uri: str
    format: str
    rows: int
    bytes: int
    crc32c: str
    carried: Carried
    pieces: tuple[TextPiece, ...] = ()
    counts: TextCounts = field(default_factory=TextCounts)

    @property
    def texts(self) -> int:
        """The rows that are kept."""
        return sum(piece.texts for piece in self.pieces)


class PieceCutter:
    """Cuts the rows of a file into pieces, in one pass; the cuts do not depend on how the rows arrive.

    A piece takes the next row while it has fewer than 1024 and their texts stay within 1 MiB.
    """

    def __init__(self) -> None:
        self._pieces: list[TextPiece] = []
        self._start = 0
        self._rows = self._texts = self._bytes = 0
        self._offset: int | None = None

    def add(self, sizes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_], offsets: Sequence[int] | None) -> None:
        """Take the next rows.

        Args:
            sizes: UTF-8 bytes of each row's text, 0 where it is not kept; shape (rows,).
            kept: Whether it is kept; shape (rows,).
            offsets: Where each row begins in the file; None where that cannot be sought.
        """
        ends = np.cumsum(sizes)
        row = 0
        while row < len(sizes):
            if not self._rows:
                self._offset = offsets[row] if offsets is not None else None
            before = int(ends[row - 1]) if row else 0
            fitting = int(np.searchsorted(ends, before + PIECE_BYTES - self._bytes, side="right"))
            stop = min(max(fitting, row if self._rows else row + 1), row + PIECE_ROWS - self._rows, len(sizes))
            if stop > row:
                self._rows += stop - row
                self._texts += int(kept[row:stop].sum())
                self._bytes += int(ends[stop - 1]) - before
            if stop < len(sizes) or self._rows == PIECE_ROWS:
                self._close()
            row = stop

    def finish(self) -> tuple[TextPiece, ...]:
        """Return all pieces."""
        self._close()
        return tuple(self._pieces)

    def _close(self) -> None:
        if self._rows:
            self._pieces.append(TextPiece(self._start, self._rows, self._texts, self._bytes, self._offset))
            self._start += self._rows
            self._rows = self._texts = self._bytes = 0


def carried_schema(sources: Sequence[TextSource]) -> pa.Schema:
    """The columns that all sources together carry, in order of first appearance.

    A column that files hold in different types becomes a string; so does one without any value.

    Raises:
        DataError: A source's type is not one that a scan gives.
    """
    kinds: dict[str, pa.DataType] = {}
    for source in sources:
        for name, type_name in source.carried:
            kind = type_from_name(type_name)
            known = kinds.setdefault(name, kind)
            if pa.types.is_null(known):
                kinds[name] = kind
            elif not pa.types.is_null(kind) and kind != known:
                kinds[name] = pa.string()
    return pa.schema([pa.field(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in kinds.items()])
