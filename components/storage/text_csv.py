"""Texts in CSV."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import csv
from collections.abc import Iterator

import pyarrow as pa

from driftline.components.errors import DataError
from driftline.components.storage.text_rows import (
    BATCH_BYTES,
    Carried,
    RowBatch,
    TextColumns,
    check_names,
    decoded,
    text_lines,
)


class CsvTexts:
    """CSV (RFC 4180: commas, double quotes, header line). Memory is bounded by a batch, 32 MiB and a row."""

    def __init__(self, uri: str, columns: TextColumns) -> None:
        self._uri = uri
        self._columns = columns
        with text_lines(uri) as lines:
            self._header = next(self._records(lines), (0, []))[1]
        check_names(uri, columns, self._header)

    def carried(self) -> Carried:
        """The other columns of the header, all strings."""
        return tuple((name, "string") for name in self._header if name not in (self._columns.id, self._columns.text))

    def _records(self, lines: Iterator[bytes]) -> Iterator[tuple[int, list[str]]]:
        """Yield (number of the last line, fields) of each record that is not a blank line."""
        # The limit is the process's: never lowered, so that another user of the module keeps theirs.
        csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
        reader = csv.reader((decoded(self._uri, line, number) for number, line in enumerate(lines, 1)), strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{self._uri}: line {reader.line_num} is not CSV ({error}); quote fields with commas, quotes "
                    "or line ends, and double the quotes in them"
                ) from error
            if fields is None:
                return
            if fields:
                yield reader.line_num, fields

    def batches(self, start: int, rows: int | None, batch_rows: int) -> Iterator[RowBatch]:
        """Yield the wanted rows."""
        gathered: list[list[str]] = []
        first, size = start, 0
        stop = None if rows is None else start + rows
        with text_lines(self._uri) as lines:
            records = self._records(lines)
            next(records, None)
            for row, (line, fields) in enumerate(records):
                if stop is not None and row >= stop:
                    break
                if len(fields) != len(self._header):
                    raise DataError(
                        f"{self._uri}: row {row + 1} (ending on line {line}) has {len(fields)} fields, the header "
                        f"has {len(self._header)}; quote fields that hold commas or line ends, and write every "
                        "field"
                    )
                if row < start:
                    continue
                gathered.append(fields)
                size += sum(map(len, fields))
                if len(gathered) == batch_rows or size >= BATCH_BYTES:
                    yield self._row_batch(gathered, first)
                    first, gathered, size = row + 1, [], 0
        if gathered:
            yield self._row_batch(gathered, first)

    def _row_batch(self, records: list[list[str]], first: int) -> RowBatch:
        values = {
            name: pa.array(cells, pa.string())
            for name, cells in zip(self._header, zip(*records, strict=True), strict=True)
        }
        ids, texts = values.pop(self._columns.id), values.pop(self._columns.text)
        return RowBatch(first, ids, texts, values)
