"""Texts in JSONL, and the kinds of values that its columns hold."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from driftline.components.errors import DataError
from driftline.components.storage.texts.arrow_types import JSON_TYPE
from driftline.components.storage.texts.rows import (
    BATCH_BYTES,
    RESERVED,
    Carried,
    Cells,
    NoTime,
    Projection,
    RowBatch,
    Start,
    TextColumns,
    TextLines,
    check_names,
    decoded,
    no_column,
    text_lines,
    undamaged,
)

HALF = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair: a string that holds one is no Unicode."""

_INT64 = range(-(2**63), 2**63)
# Up to here every integer has its own float64, so that a column of both kinds loses nothing as doubles.
_EXACT_IN_DOUBLE = 2**53
_KINDS: dict[type, str] = {bool: "bool", float: "double", str: "string"}


class JsonKinds:
    """What kinds of values a JSONL column has shown so far."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.exact = True

    def see(self, values: Sequence[object]) -> None:
        """Take more values into account; null shows nothing."""
        types = set(map(type, values))
        self.kinds.update(_KINDS.get(kind, JSON_TYPE) for kind in types if kind not in (int, type(None)))
        if int in types:
            # By type: bool is a kind of its own.
            integers = [value for value in values if type(value) is int]
            least, greatest = min(integers), max(integers)
            if least in _INT64 or greatest in _INT64:
                self.kinds.add("int64")
            if least not in _INT64 or greatest not in _INT64:
                self.kinds.add(JSON_TYPE)
            self.exact = self.exact and least >= -_EXACT_IN_DOUBLE and greatest <= _EXACT_IN_DOUBLE

    def type_name(self) -> str:
        """The type that holds them all."""
        if not self.kinds:
            return "null"
        if len(self.kinds) == 1:
            return next(iter(self.kinds))
        return "double" if self.kinds == {"int64", "double"} and self.exact else JSON_TYPE


def json_text(value: object, *, mended: bool = True) -> str:
    """A value as JSON text, on one line; half surrogate pairs in it become U+FFFD, unless they are to be found."""
    text = json.dumps(value, ensure_ascii=False)
    return HALF.sub("\ufffd", text) if mended else text


_CONVERT: dict[str, Callable[[Any], object]] = {"double": float, JSON_TYPE: json_text}
_JSON_ARROW = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    JSON_TYPE: pa.string(),
}


def json_column(uri: str, name: str, kind: str, cells: list[Any]) -> pa.Array:
    """The cells of a column in the type that a scan found.

    Raises:
        DataError: They do not fit.
    """
    convert = _CONVERT.get(kind)
    if convert is not None:
        cells = [None if cell is None else convert(cell) for cell in cells]
    try:
        return pa.array(cells, _JSON_ARROW[kind])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{uri}: column {name!r} no longer holds {kind} values; the file has changed: scan it again"
        ) from error


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if value in _INT64 else "double"
    return "double" if isinstance(value, float) else "string" if isinstance(value, str) else JSON_TYPE


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def json_cells(values: Sequence[Any]) -> Cells:
    """A column's cells as one array a kind: booleans, 64-bit integers, doubles, strings, nested values as JSON text.

    Integers of more than 64 bits are doubles. Nested values come as a list of one JSON text, so that a filter tells
    them from strings.
    """
    kinds = [None if value is None else _kind(value) for value in values]
    arrays: list[pa.Array] = []
    for kind in sorted({kind for kind in kinds if kind is not None}):
        cells: list[Any] = [value if own == kind else None for value, own in zip(values, kinds, strict=True)]
        if kind == "double":
            cells = [None if cell is None else _double(cell) for cell in cells]
        if kind == JSON_TYPE:
            cells = [None if cell is None else [json_text(cell)] for cell in cells]
        arrays.append(pa.array(cells, pa.list_(pa.string()) if kind == JSON_TYPE else _JSON_ARROW[kind]))
    return tuple(arrays)


# An escaped half of a surrogate pair: valid in pairs only, which json.loads does not demand.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_FRONT = Start()

Record = dict[str, Any]


@dataclass(slots=True)
class _Gathered:
    """Lines on their way into a batch: the first one's row, their objects, places, and those with replaced bytes."""

    first: int
    records: list[Record] = field(default_factory=list)
    places: list[str | int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    mended: dict[str, list[int]] = field(default_factory=dict)
    size: int = 0


class JsonlTexts:
    """JSONL: one object a line; blank lines are skipped. Memory is bounded by a batch, 32 MiB and a line."""

    def __init__(self, uri: str, columns: TextColumns, projection: Projection, carried: Carried | None) -> None:
        self._uri = uri
        self._columns = columns
        self._projection = projection
        self._carried = carried
        self._kinds: dict[str, JsonKinds] = {}
        self._looked_at: set[str] = set()

    def carried(self) -> Carried:
        """The carried columns: as given, or as seen in the wanted rows read so far."""
        if self._carried is not None:
            return self._carried
        return tuple((name, kinds.type_name()) for name, kinds in self._kinds.items())

    def names(self) -> tuple[str, ...]:
        """The columns seen so far: those carried, and those that the filter met in any row."""
        return tuple(dict.fromkeys((self._columns.id, self._columns.text, *self._kinds, *sorted(self._looked_at))))

    def batches(self, start: int, rows: int | None, batch_rows: int, near: Start = _FRONT) -> Iterator[RowBatch]:
        """Yield the wanted rows; lines between `near` and them are passed over unparsed."""
        stop = None if rows is None else start + rows
        with text_lines(self._uri, near) as lines:
            row = near.row if near.offset else 0
            gathered = _Gathered(max(start, row))
            after = f", counted from row {row + 1}" if near.offset else ""
            for line in lines:
                if stop is not None and row >= stop:
                    break
                if line.isspace():
                    continue
                row += 1
                if row <= start:
                    continue
                self._gather(gathered, line, lines, after)
                if len(gathered.records) == batch_rows or gathered.size >= BATCH_BYTES:
                    yield self._row_batch(gathered, sought=lines.sought)
                    gathered = _Gathered(row)
            if gathered.records:
                yield self._row_batch(gathered, sought=lines.sought)

    def _gather(self, gathered: _Gathered, line: bytes, lines: TextLines, after: str) -> None:
        place = f"{lines.number}{after}" if after else lines.number
        text, damaged = decoded(line)
        record = self._parsed(undamaged(text) if damaged else text, place, damaged=damaged)
        if damaged or (b"\\u" in line and _SURROGATE.search(line)):
            # The bytes that were replaced are told from a U+FFFD that was there before by what they were read as.
            self._mend(gathered, record, self._parsed(text, place, damaged=True) if damaged else record)
        gathered.records.append(record)
        gathered.places.append(place)
        gathered.offsets.append(lines.position - len(line))
        gathered.size += len(line)

    def _parsed(self, text: str, place: str | int, *, damaged: bool) -> Record:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            remedy = "convert the file to UTF-8" if damaged else "put one whole JSON object on each line"
            state = "is not UTF-8, and not JSON" if damaged else "is not JSON"
            raise DataError(f"{self._uri}: line {place} {state} ({reason}); {remedy}") from error
        if not isinstance(value, dict):
            raise DataError(f"{self._uri}: line {place} is not a JSON object; put one on each line")
        return cast("Record", value)

    def _mend(self, gathered: _Gathered, record: Record, shown: Record) -> None:
        """Replace half surrogate pairs in a record's strings; nested ones are mended as they are written as text."""
        for name, cell in shown.items():
            if HALF.search(name):
                readable = HALF.sub("\ufffd", name)
                raise DataError(
                    f"{self._uri}: row {gathered.first + len(gathered.records) + 1}: the column name {readable!r} "
                    "holds half of a surrogate pair (\\ud800 to \\udfff alone) or bytes that are not UTF-8; rename it"
                )
            if HALF.search(cell if isinstance(cell, str) else json_text(cell, mended=False)):
                gathered.mended.setdefault(name, []).append(len(gathered.records))
                if isinstance(record[name], str):
                    record[name] = HALF.sub("\ufffd", record[name])

    def _row_batch(self, gathered: _Gathered, *, sought: bool) -> RowBatch:
        count, first = len(gathered.records), gathered.first
        taken = self._taken(gathered.records, first)
        rows = np.arange(count) if taken is None else np.flatnonzero(taken)
        chosen: list[int] = rows.tolist()
        records = [gathered.records[row] for row in chosen]
        self._check(records, [gathered.places[row] for row in chosen])
        ids = [self._id(record[self._columns.id], first + row + 1) for row, record in zip(chosen, records, strict=True)]
        texts = [
            self._text(record[self._columns.text], first + row + 1) for row, record in zip(chosen, records, strict=True)
        ]
        return RowBatch(
            first_row=first,
            count=count,
            numbers=first + rows,
            ids=pa.array(ids, pa.string()),
            texts=pa.array(texts, pa.string()),
            carried={
                name: json_column(self._uri, name, kind, [record.get(name) for record in records])
                for name, kind in self._carried or ()
                if self._projection.carries(name)
            },
            mended={name: np.isin(rows, indices) for name, indices in gathered.mended.items()},
            offsets=gathered.offsets if sought else None,
        )

    def _taken(self, records: list[Record], first: int) -> npt.NDArray[np.bool_] | None:
        try:
            return self._projection.taken(self._uri, first, len(records), lambda name: self._cells(records, name))
        except NoTime as error:
            if error.column in self._looked_at:
                raise
            # No row so far has the column: its name is wrong, not the row.
            raise no_column(self._uri, "time", error.column, list(records[0])) from error

    def _cells(self, records: list[Record], name: str) -> tuple[pa.Array, ...]:
        if name not in self._looked_at:
            if any(name in record for record in records):
                self._looked_at.add(name)
            elif records:
                self._looked_at.update(records[0])  # what there is instead, for the message
        return json_cells([record.get(name) for record in records])

    def _check(self, records: list[Record], places: list[str | int]) -> None:
        names = (self._columns.id, self._columns.text)
        reserved = set(RESERVED).difference(names)
        for record, place in zip(records, places, strict=True):
            if names[0] not in record or names[1] not in record or not reserved.isdisjoint(record):
                try:
                    check_names(self._uri, self._columns, list(record))
                except DataError as error:
                    raise DataError(f"{error} (line {place})") from error
        if self._carried is None:
            for name in dict.fromkeys(chain.from_iterable(records)):
                if name not in names:
                    self._kinds.setdefault(name, JsonKinds()).see([record.get(name) for record in records])

    def _id(self, value: object, row: int) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise DataError(
            f"{self._uri}: column {self._columns.id!r}, row {row}: {json_text(value)[:40]} is neither a string "
            "nor an integer; give ids as strings"
        )

    def _text(self, value: object, row: int) -> str | None:
        if value is None or isinstance(value, str):
            return value
        raise DataError(
            f"{self._uri}: column {self._columns.text!r}, row {row}: {json_text(value)[:40]} is not a string; "
            "give the text as a string"
        )
