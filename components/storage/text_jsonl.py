"""Texts in JSONL."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import pyarrow as pa

from driftline.components.errors import DataError
from driftline.components.storage.arrow_types import JSON_TYPE
from driftline.components.storage.text_rows import (
    BATCH_BYTES,
    RESERVED,
    Carried,
    RowBatch,
    TextColumns,
    check_names,
    decoded,
    text_lines,
)

# An escaped half of a surrogate pair: valid in pairs only, which json.loads does not demand.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_INT64 = range(-(2**63), 2**63)
# Up to here every integer has its own float64, so that a column of both kinds loses nothing as doubles.
_EXACT_IN_DOUBLE = 2**53


class _JsonKinds:
    """What kinds of values a JSONL column has shown so far."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.exact = True

    def see(self, value: object) -> None:
        if value is None:
            return
        if isinstance(value, bool):
            self.kinds.add("bool")
        elif isinstance(value, int):
            self.kinds.add("int64" if value in _INT64 else JSON_TYPE)
            self.exact = self.exact and abs(value) <= _EXACT_IN_DOUBLE
        elif isinstance(value, float):
            self.kinds.add("double")
        else:
            self.kinds.add("string" if isinstance(value, str) else JSON_TYPE)

    def type_name(self) -> str:
        if not self.kinds:
            return "null"
        if len(self.kinds) == 1:
            return next(iter(self.kinds))
        return "double" if self.kinds == {"int64", "double"} and self.exact else JSON_TYPE


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


_CONVERT: dict[str, Callable[[Any], object]] = {"double": float, JSON_TYPE: _json_text}
_JSON_ARROW = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    JSON_TYPE: pa.string(),
}


class JsonlTexts:
    """JSONL: one object a line; blank lines are skipped. Memory is bounded by a batch, 32 MiB and a line."""

    def __init__(self, uri: str, columns: TextColumns, carried: Carried | None) -> None:
        self._uri = uri
        self._columns = columns
        self._carried = carried
        self._seen: dict[str, _JsonKinds] = {}

    def carried(self) -> Carried:
        """The carried columns: as given, or as seen in the rows read so far."""
        if self._carried is not None:
            return self._carried
        return tuple((name, kinds.type_name()) for name, kinds in self._seen.items())

    def batches(self, start: int, rows: int | None, batch_rows: int) -> Iterator[RowBatch]:
        """Yield the wanted rows; lines before them are passed over unparsed."""
        gathered: list[dict[str, Any]] = []
        size = row = first = 0
        stop = None if rows is None else start + rows
        with text_lines(self._uri) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                if stop is not None and row >= stop:
                    break
                row += 1
                if row <= start:
                    continue
                if not gathered:
                    first = row - 1
                gathered.append(self._parsed(line, number, row))
                size += len(line)
                if len(gathered) == batch_rows or size >= BATCH_BYTES:
                    yield self._row_batch(gathered, first)
                    gathered, size = [], 0
        if gathered:
            yield self._row_batch(gathered, first)

    def _parsed(self, line: bytes, number: int, row: int) -> dict[str, Any]:
        text = decoded(self._uri, line, number)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(
                f"{self._uri}: line {number} is not JSON ({reason}); put one whole JSON object on each line"
            ) from error
        if not isinstance(value, dict):
            raise DataError(f"{self._uri}: line {number} is not a JSON object; put one on each line")
        record = cast("dict[str, Any]", value)
        names = (self._columns.id, self._columns.text)
        if names[0] not in record or names[1] not in record:
            try:
                check_names(self._uri, self._columns, list(record))
            except DataError as error:
                raise DataError(f"{error} (line {number})") from error
        for name in RESERVED:
            if name in record and name not in names:
                check_names(self._uri, self._columns, list(record))
        if _SURROGATE.search(line):
            self._check_surrogates(record, row)
        if self._carried is None:
            for name, cell in record.items():
                if name not in names:
                    self._seen.setdefault(name, _JsonKinds()).see(cell)
        return record

    def _check_surrogates(self, record: dict[str, Any], row: int) -> None:
        for name, cell in record.items():
            try:
                _json_text([name, cell]).encode()
            except UnicodeEncodeError as error:
                shown = name.encode("utf-8", "replace").decode()
                raise DataError(
                    f"{self._uri}: column {shown!r}, row {row}: half of a surrogate pair (\\ud800 to \\udfff "
                    "alone) is no character; write it as UTF-8"
                ) from error

    def _row_batch(self, records: list[dict[str, Any]], first: int) -> RowBatch:
        ids = [self._id(record[self._columns.id], first + i + 1) for i, record in enumerate(records)]
        texts = [self._text(record[self._columns.text], first + i + 1) for i, record in enumerate(records)]
        arrays = {name: self._column(records, name, kind) for name, kind in self._carried or ()}
        return RowBatch(first, pa.array(ids, pa.string()), pa.array(texts, pa.string()), arrays)

    def _column(self, records: list[dict[str, Any]], name: str, kind: str) -> pa.Array:
        convert = _CONVERT.get(kind)
        cells = [record.get(name) for record in records]
        if convert is not None:
            cells = [None if cell is None else convert(cell) for cell in cells]
        try:
            return pa.array(cells, _JSON_ARROW[kind])
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{self._uri}: column {name!r} no longer holds {kind} values; the file has changed: scan it again"
            ) from error

    def _id(self, value: object, row: int) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise DataError(
            f"{self._uri}: column {self._columns.id!r}, row {row}: {_json_text(value)[:40]} is neither a string "
            "nor an integer; give ids as strings"
        )

    def _text(self, value: object, row: int) -> str | None:
        if value is None or isinstance(value, str):
            return value
        raise DataError(
            f"{self._uri}: column {self._columns.text!r}, row {row}: {_json_text(value)[:40]} is not a string; "
            "give the text as a string"
        )
