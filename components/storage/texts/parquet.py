"""Texts in Parquet."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from driftline.components.errors import DataError, StorageError, one_line
from driftline.components.storage.objects import store
from driftline.components.storage.texts.arrow_types import is_text, plain_type, plain_values, type_name
from driftline.components.storage.texts.rows import (
    BATCH_BYTES,
    Carried,
    Projection,
    RowBatch,
    Start,
    TextColumns,
    check_names,
)

_FRONT = Start()


class ParquetTexts:
    """Parquet: reads only the row groups that may hold wanted rows, and only the columns that are wanted.

    Memory is bounded by one row group's pages as they are stored and, of what they unpack to, by a batch of rows or
    about 32 MiB, whichever is less.
    """

    def __init__(self, uri: str, columns: TextColumns, projection: Projection) -> None:
        self._uri = uri
        self._columns = columns
        self._projection = projection
        with self._opened() as file:
            schema = file.schema_arrow
        check_names(uri, columns, schema.names)
        self._types: dict[str, pa.DataType] = {name: plain_type(schema.field(name).type) for name in schema.names}
        text_type = self._types[columns.text]
        if not (is_text(text_type) or pa.types.is_null(text_type)):
            raise DataError(
                f"{uri}: column {columns.text!r} holds {text_type}, not strings; convert it, or name another column"
            )
        id_type = self._types[columns.id]
        if not (is_text(id_type) or pa.types.is_integer(id_type) or pa.types.is_null(id_type)):
            raise DataError(
                f"{uri}: column {columns.id!r} holds {id_type}, neither strings nor integers; convert it, or name "
                "another column"
            )
        self._carried = tuple(
            name for name in schema.names if name not in (columns.id, columns.text) and projection.carries(name)
        )
        wanted = {columns.id, columns.text, *self._carried, *projection.looked_at}
        self._read = [name for name in schema.names if name in wanted]
        # All columns are asked for by None, since a name with a dot would ask for nested ones as well.
        self._asked = self._read if len(self._read) < len(schema.names) else None

    @contextmanager
    def _opened(self) -> Generator[pq.ParquetFile]:
        with store.open_read(self._uri) as handle, self._damage("the footer"):
            yield pq.ParquetFile(handle)

    @contextmanager
    def _damage(self, where: str) -> Generator[None]:
        try:
            yield
        except (StorageError, DataError):
            raise
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self._uri}: is not a whole Parquet file ({where}: {one_line(error)}); write it again"
            ) from error

    def carried(self) -> Carried:
        """The carried columns of the file's schema."""
        return tuple((name, type_name(self._types[name])) for name in self._carried)

    def names(self) -> tuple[str, ...]:
        """The columns of the file's schema."""
        return tuple(self._types)

    def batches(self, start: int, rows: int | None, batch_rows: int, near: Start = _FRONT) -> Iterator[RowBatch]:
        """Yield the wanted rows, skipping row groups outside, and those of which the statistics rule out every row."""
        del near  # Row groups are found by the footer.
        with self._opened() as file:
            first = 0
            stop = file.metadata.num_rows if rows is None else start + rows
            for group in range(file.num_row_groups):
                metadata = file.metadata.row_group(group)
                after = first + metadata.num_rows
                begin, end = max(first, start), min(after, stop)
                if begin < end and self._ruled_out(metadata):
                    yield self._none_taken(begin, end - begin)
                elif begin < end:
                    yield from self._group(file, group, first, range(start, stop), batch_rows)
                first = after

    def _ruled_out(self, group: pq.RowGroupMetaData) -> bool:
        rows = self._projection.rows
        if rows is None:
            return False
        columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
        for name in rows.columns:
            # A dot may stand in a name, or before a nested one: which, a path does not tell.
            known = columns[name].statistics if name in columns and "." not in name else None
            if known is None or not (known.has_min_max and known.has_null_count):
                continue
            bounds = _bounds(known, self._types[name])
            if bounds is not None and not rows.may_hold(name, bounds, nulls=known.null_count > 0):
                return True
        return False

    def _none_taken(self, first: int, count: int) -> RowBatch:
        nothing = pa.array([], pa.string())
        carried = {name: pa.array([], self._types[name]) for name in self._carried}
        return RowBatch(first, count, np.array([], np.int64), nothing, nothing, carried, {}, None)

    def _batch_rows(self, group: pq.RowGroupMetaData, most: int) -> int:
        """Rows of a row group that unpack to about 32 MiB, so that long texts come a few at a time."""
        size = max(group.total_byte_size, 1)
        return max(1, min(most, BATCH_BYTES * group.num_rows // size))

    def _group(
        self, file: pq.ParquetFile, group: int, first: int, wanted: range, batch_rows: int
    ) -> Iterator[RowBatch]:
        count = self._batch_rows(file.metadata.row_group(group), batch_rows)
        batches = file.iter_batches(batch_size=count, row_groups=[group], columns=self._asked)
        while True:
            with self._damage(f"rows after {first}"):
                batch = next(batches, None)
            if batch is None:
                return
            begin, end = max(first, wanted.start), min(first + batch.num_rows, wanted.stop)
            if begin < end:
                yield self._row_batch(batch.slice(begin - first, end - begin), begin)
            first += batch.num_rows
            if first >= wanted.stop:
                return

    def _row_batch(self, batch: pa.RecordBatch, first: int) -> RowBatch:
        values: dict[str, pa.Array] = {}
        mended: dict[str, npt.NDArray[np.bool_]] = {}
        for name in self._read:
            values[name], replaced = _mended(plain_values(batch.column(name)))
            if replaced is not None:
                mended[name] = replaced
        taken = self._projection.taken(
            self._uri, first, batch.num_rows, lambda name: (values[name],) if name in values else ()
        )
        numbers = np.arange(first, first + batch.num_rows)
        if taken is not None:
            numbers = numbers[taken]
            values = {name: column.filter(pa.array(taken)) for name, column in values.items()}
            mended = {name: mask[taken] for name, mask in mended.items()}
        with self._damage(f"rows after {first}"):
            return RowBatch(
                first_row=first,
                count=batch.num_rows,
                numbers=numbers,
                ids=values[self._columns.id].cast(pa.string()),
                texts=values[self._columns.text].cast(pa.string()),
                carried={name: values[name] for name in self._carried},
                mended=mended,
                offsets=None,
            )


def _bounds(known: pq.Statistics, kind: pa.DataType) -> pa.Array | None:
    """The least and the greatest value of a column, shape (2,), by a row group's statistics.

    None for types of which they may say too little: of floating-point numbers, NaN is not within the bounds, those of
    strings may be cut short, those of unsigned numbers have been written in another order.
    """
    whole = pa.types.is_signed_integer(kind) or pa.types.is_date32(kind)
    unit = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
    if pa.types.is_timestamp(kind) and known.physical_type == "INT64":
        whole = unit.get(json.loads(known.logical_type.to_json()).get("timeUnit")) == kind.unit
    if not whole:
        return None
    stored = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    return pa.array([known.min_raw, known.max_raw], stored).cast(kind)


def _mended(values: pa.Array) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
    """Replace bytes of strings that are no UTF-8; say in which rows, shape (rows,), or None where there are none."""
    if not is_text(values.type):
        return values, None
    try:
        # Arrow does not look at the bytes of a string before.
        values.validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return values, None
    kind = values.type
    # A view has no cast that leaves the bytes alone; by way of a large string, it has.
    raw = values.cast(pa.large_string()) if pa.types.is_string_view(kind) else values
    cells: list[bytes | None] = raw.cast(pa.large_binary()).to_pylist()
    texts = [None if cell is None else cell.decode("utf-8", "replace") for cell in cells]
    replaced = [
        text is not None and cell is not None and text.encode() != cell for text, cell in zip(texts, cells, strict=True)
    ]
    return pa.array(texts, kind), np.array(replaced, bool)
