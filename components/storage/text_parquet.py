"""Texts in Parquet."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from driftline.components.errors import DataError, StorageError
from driftline.components.storage import store
from driftline.components.storage.arrow_types import is_text, plain_type, plain_values, type_name
from driftline.components.storage.text_rows import Carried, RowBatch, TextColumns, check_names, one_line


class ParquetTexts:
    """Parquet: reads only the row groups that hold wanted rows; memory is bounded by one row group."""

    def __init__(self, uri: str, columns: TextColumns) -> None:
        self._uri = uri
        self._columns = columns
        with self._opened() as file:
            schema = file.schema_arrow
        check_names(uri, columns, schema.names)
        self._names = tuple(name for name in schema.names if name not in (columns.id, columns.text))
        self._types = tuple(plain_type(schema.field(name).type) for name in self._names)
        text_type = plain_type(schema.field(columns.text).type)
        if not (is_text(text_type) or pa.types.is_null(text_type)):
            raise DataError(
                f"{uri}: column {columns.text!r} holds {text_type}, not strings; convert it, or name another column"
            )
        id_type = plain_type(schema.field(columns.id).type)
        if not (is_text(id_type) or pa.types.is_integer(id_type) or pa.types.is_null(id_type)):
            raise DataError(
                f"{uri}: column {columns.id!r} holds {id_type}, neither strings nor integers; convert it, or name "
                "another column"
            )

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
        return tuple((name, type_name(kind)) for name, kind in zip(self._names, self._types, strict=True))

    def batches(self, start: int, rows: int | None, batch_rows: int) -> Iterator[RowBatch]:
        """Yield the wanted rows, skipping whole row groups outside."""
        with self._opened() as file:
            first = 0
            stop = file.metadata.num_rows if rows is None else start + rows
            for group in range(file.num_row_groups):
                after = first + file.metadata.row_group(group).num_rows
                if after > start and first < stop:
                    yield from self._group(file, group, first, range(start, stop), batch_rows)
                first = after

    def _group(
        self, file: pq.ParquetFile, group: int, first: int, wanted: range, batch_rows: int
    ) -> Iterator[RowBatch]:
        batches = file.iter_batches(batch_size=batch_rows, row_groups=[group])
        while True:
            with self._damage(f"rows after {first}"):
                batch = next(batches, None)
            if batch is None:
                return
            begin, end = max(first, wanted.start), min(first + batch.num_rows, wanted.stop)
            if begin < end:
                yield self._row_batch(batch.slice(begin - first, end - begin), begin)
            first += batch.num_rows

    def _row_batch(self, batch: pa.RecordBatch, first: int) -> RowBatch:
        values = {name: self._valid(plain_values(batch.column(name)), name, first) for name in batch.schema.names}
        with self._damage(f"rows after {first}"):
            return RowBatch(
                first_row=first,
                ids=values[self._columns.id].cast(pa.string()),
                texts=values[self._columns.text].cast(pa.string()),
                carried={name: values[name] for name in self._names},
            )

    def _valid(self, values: pa.Array, name: str, first: int) -> pa.Array:
        if is_text(values.type):
            try:
                # Arrow does not look at the bytes of a string before.
                values.validate(full=True)
            except pa.ArrowInvalid as error:
                row = next(i for i in range(len(values)) if not _is_valid(values.slice(i, 1)))
                raise DataError(
                    f"{self._uri}: column {name!r}, row {first + row + 1}: the bytes are not UTF-8; write it as UTF-8"
                ) from error
        return values


def _is_valid(values: pa.Array) -> bool:
    try:
        values.to_pylist()
    except UnicodeDecodeError:
        return False
    return True
