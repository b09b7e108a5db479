"""Texts in CSV."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from driftline.components.errors import DataError
from driftline.components.storage.texts.rows import (
    BATCH_BYTES,
    Carried,
    Projection,
    RowBatch,
    Start,
    TextColumns,
    TextLines,
    check_names,
    decoded,
    text_lines,
    undamaged,
)

_FRONT = Start()


@dataclass(slots=True)
class _Gathered:
    """Records on their way into a batch: their fields, where they begin, and those with replaced bytes."""

    first: int
    records: list[list[str]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    mended: dict[str, list[int]] = field(default_factory=dict)
    size: int = 0

    def mend(self, header: list[str]) -> None:
        """Replace the bytes of the last record that are no UTF-8."""
        fields = self.records[-1]
        for column, text in enumerate(fields):
            if not text.isascii() and (mended := undamaged(text)) != text:
                fields[column] = mended
                self.mended.setdefault(header[column], []).append(len(self.records) - 1)


class CsvTexts:
    """CSV (RFC 4180: commas, double quotes, header line). Memory is bounded by a batch, 32 MiB and a row."""

    def __init__(self, uri: str, columns: TextColumns, projection: Projection) -> None:
        self._uri = uri
        self._columns = columns
        self._projection = projection
        with text_lines(uri, _FRONT) as lines:
            records = _Records(uri, lines)
            self._header = records.next_record() or []
            if records.damaged:
                raise DataError(f"{uri}: the header is not UTF-8; convert the file to UTF-8")
        check_names(uri, columns, self._header)
        self._carried = tuple(name for name in self._header if name not in (columns.id, columns.text))

    def carried(self) -> Carried:
        """The other columns of the header, all strings."""
        return tuple((name, "string") for name in self._carried)

    def names(self) -> tuple[str, ...]:
        """The header."""
        return tuple(self._header)

    def batches(self, start: int, rows: int | None, batch_rows: int, near: Start = _FRONT) -> Iterator[RowBatch]:
        """Yield the wanted rows; records between `near` and them are parsed and dropped."""
        stop = None if rows is None else start + rows
        with text_lines(self._uri, near) as lines:
            records = _Records(self._uri, lines, near.row if near.offset else None)
            row = near.row
            if not near.offset:
                records.next_record()
                row = 0
            gathered = _Gathered(max(start, row))
            while (stop is None or row < stop) and (fields := records.next_record()) is not None:
                if len(fields) != len(self._header):
                    raise DataError(
                        f"{self._uri}: row {row + 1} ({records.place('ending on line')}) has {len(fields)} fields, the "
                        f"header has {len(self._header)}; quote fields that hold commas or line ends, and write every "
                        "field"
                    )
                if row >= start:
                    gathered.records.append(fields)
                    if records.damaged:
                        gathered.mend(self._header)
                    gathered.offsets.append(records.begin)
                    gathered.size += sum(map(len, fields))
                row += 1
                if len(gathered.records) == batch_rows or gathered.size >= BATCH_BYTES:
                    yield self._row_batch(gathered, sought=lines.sought)
                    gathered = _Gathered(row)
            if gathered.records:
                yield self._row_batch(gathered, sought=lines.sought)

    def _row_batch(self, gathered: _Gathered, *, sought: bool) -> RowBatch:
        records, first = gathered.records, gathered.first
        cells = dict(zip(self._header, zip(*records, strict=True), strict=True))
        taken = self._projection.taken(
            self._uri, first, len(records), lambda name: (pa.array(cells[name], pa.string()),) if name in cells else ()
        )
        rows = np.arange(len(records)) if taken is None else np.flatnonzero(taken)

        def values(name: str) -> pa.Array:
            column = cells[name]
            return pa.array(column if taken is None else [column[row] for row in rows], pa.string())

        return RowBatch(
            first_row=first,
            count=len(records),
            numbers=first + rows,
            ids=values(self._columns.id),
            texts=values(self._columns.text),
            carried={name: values(name) for name in self._carried if self._projection.carries(name)},
            mended={name: np.isin(rows, indices) for name, indices in gathered.mended.items()},
            offsets=gathered.offsets if sought else None,
        )


class _Records:
    """The records of a CSV file that are not blank lines.

    Attributes:
        begin: The byte at which the last record given begins.
        damaged: Whether bytes in it were no UTF-8, and were replaced.
    """

    def __init__(self, uri: str, lines: TextLines, after_row: int | None = None) -> None:
        self._uri = uri
        self._lines = lines
        self._after_row = after_row
        self.begin = lines.position
        self.damaged = False
        # The limit is the process's: never lowered, so that another user of the module keeps theirs.
        csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
        self._reader = csv.reader(self._decoded(), strict=True)

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            text, replaced = decoded(line)
            self.damaged = self.damaged or replaced
            yield text

    def next_record(self) -> list[str] | None:
        """The fields of the next record; None at the end."""
        while True:
            self.begin = self._lines.position
            self.damaged = False
            try:
                fields = next(self._reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{self._uri}: {self.place('line')} is not CSV ({error}); quote fields with commas, quotes "
                    "or line ends, and double the quotes in them"
                ) from error
            if fields is None or fields:
                return fields

    def place(self, what: str) -> str:
        """The line read last, for messages."""
        counted = "" if self._after_row is None else f", counted from row {self._after_row + 1}"
        return f"{what} {self._lines.number}{counted}"
