"""Texts in JSONL."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from driftline.components.errors import DataError
from driftline.components.storage.texts.jsonl_kinds import HALF, JsonKinds, json_cells, json_column, json_text
from driftline.components.storage.texts.lines import TextLines, decoded, text_lines, undamaged
from driftline.components.storage.texts.rows import (
    BATCH_BYTES,
    RESERVED,
    Carried,
    NoTime,
    Projection,
    RowBatch,
    Start,
    TextColumns,
    check_names,
    no_column,
)

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
