"""Texts in files: found, checked once, then read in slices, always with the same columns and types."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from driftline.components.errors import DataError, UsageError
from driftline.components.storage import store
from driftline.components.storage.arrow_types import as_strings, type_from_name
from driftline.components.storage.text_checks import IdIndex, check_rows
from driftline.components.storage.text_csv import CsvTexts
from driftline.components.storage.text_jsonl import JsonlTexts
from driftline.components.storage.text_parquet import ParquetTexts
from driftline.components.storage.text_rows import Carried, RowBatch, TextColumns, TextReader
from driftline.components.storage.text_search import find_texts, text_format

__all__ = ["TextColumns", "TextSource", "carried_schema", "find_texts", "read_texts", "scan_texts"]

_SCAN_ROWS = 8192


@dataclass(frozen=True, slots=True)
class TextSource:
    """What a scan found of one file of texts.

    Attributes:
        uri: The file.
        format: `parquet`, `jsonl` or `csv`; gzip is told by the content.
        rows: Its texts.
        bytes: Its size.
        crc32c: Its checksum: base64 of the big-endian CRC-32C.
        carried: Its other columns, as (name, Arrow type): `json` marks a JSONL column of mixed or nested
            values, kept as JSON text; `null` one without any value; `arrow:…` a type without a short name, a
            nested one say.
    """

    uri: str
    format: str
    rows: int
    bytes: int
    crc32c: str
    carried: Carried


def scan_texts(inputs: Sequence[str], columns: TextColumns | None = None) -> list[TextSource]:
    """Read every file once and check it: what passes is read without surprises later.

    Refused are missing columns, ids and texts that are null or blank, ids that are there twice (in one file
    or in two), and damaged files. Ids may be strings or integers. Memory: a batch of rows (for Parquet a row
    group's pages), and 8 bytes a row, 16 while the ids are compared.

    Args:
        inputs: Files, folders and patterns, as of `find_texts`.
        columns: The names of the id and text columns; `id` and `text` by default.

    Returns:
        One source a file, in the order of `find_texts`.

    Raises:
        DataError: An input, a file or a row is not as expected; the message names file, column and row (from
            1, without a CSV header and without blank lines).
        StorageError: A file cannot be read.
    """
    names = columns or TextColumns()
    ids = IdIndex()
    sources = [_scan(uri, names, ids) for uri in find_texts(inputs)]
    if not any(source.rows for source in sources):
        shown = sources[0].uri if len(sources) == 1 else f"{sources[0].uri} and {len(sources) - 1} more files"
        raise DataError(f"{shown}: there are no rows; give at least one text")
    ids.check(lambda: _ids_again(sources, names))
    return sources


def _reader(source_uri: str, kind: str, columns: TextColumns, carried: Carried | None) -> TextReader:
    if kind == "parquet":
        return ParquetTexts(source_uri, columns)
    if kind == "jsonl":
        return JsonlTexts(source_uri, columns, carried)
    return CsvTexts(source_uri, columns)


def _scan(uri: str, columns: TextColumns, ids: IdIndex) -> TextSource:
    before = store.stat(uri)
    kind = text_format(uri) or ""
    reader = _reader(uri, kind, columns, None)
    rows = 0
    for batch in reader.batches(0, None, _SCAN_ROWS):
        check_rows(uri, columns, batch)
        ids.add(batch.ids)
        rows += len(batch.ids)
    checksum = store.crc32c(before)
    return TextSource(uri, kind, rows, before.size, checksum, reader.carried())


def _ids_again(sources: Sequence[TextSource], columns: TextColumns) -> Iterator[tuple[str, int, pa.Array]]:
    for source in sources:
        reader = _reader(source.uri, source.format, columns, ())
        for batch in reader.batches(0, None, _SCAN_ROWS):
            yield source.uri, batch.first_row, batch.ids


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


def read_texts(
    source: TextSource,
    columns: TextColumns | None = None,
    *,
    start: int = 0,
    rows: int | None = None,
    batch_rows: int = 1024,
    schema: pa.Schema | None = None,
) -> Generator[pa.RecordBatch]:
    """Read the rows [start, start + rows) of a scanned file.

    Args:
        source: The file, as scanned.
        columns: The names of its id and text columns, as for the scan.
        start: The first row, from 0. Parquet skips the row groups before it; other formats are read from the
            front.
        rows: How many rows; all that follow by default.
        batch_rows: The most rows in a batch. One may hold fewer: at a row group's end, or where texts are
            long (32 MiB of JSONL or CSV).
        schema: The carried columns to give, as of `carried_schema`; the source's own by default. What the
            source lacks is null, what it holds in another type becomes a string, what is not in the schema is
            left out.

    Yields:
        Batches with the columns `id` and `text` (strings), then the carried ones: the same types in every
        batch.

    Raises:
        UsageError: `start`, `rows` or `batch_rows` is out of range.
        DataError: The file is not what the scan saw.
        StorageError: The file cannot be read.
    """
    names = columns or TextColumns()
    wanted = source.rows - start if rows is None else rows
    if start < 0 or wanted < 0 or start + wanted > source.rows or batch_rows < 1:
        raise UsageError(
            f"{source.uri}: rows {start} to {start + wanted} in batches of {batch_rows} are asked for, of "
            f"{source.rows}; give a range within the file and at least 1 row a batch"
        )
    info = store.stat(source.uri)
    if info.size != source.bytes or info.crc32c not in (None, source.crc32c):
        raise DataError(f"{source.uri}: has changed since it was scanned; scan the texts again")
    target = schema if schema is not None else carried_schema([source])
    full = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string()), *target])
    given = 0
    if wanted:
        reader = _reader(source.uri, source.format, names, source.carried)
        for batch in reader.batches(start, wanted, batch_rows):
            check_rows(source.uri, names, batch)
            given += len(batch.ids)
            yield _conformed(source.uri, batch, target, full)
    if given != wanted:
        raise DataError(
            f"{source.uri}: {given} rows where the scan saw {wanted}: the file has changed; scan the texts again"
        )


def _conformed(uri: str, batch: RowBatch, target: pa.Schema, full: pa.Schema) -> pa.RecordBatch:
    arrays = [batch.ids, batch.texts]
    carried: Mapping[str, pa.Array] = batch.carried
    for field in target:
        values = carried.get(field.name)
        if values is None or pa.types.is_null(values.type):
            arrays.append(pa.nulls(len(batch.ids), field.type))
        elif values.type == field.type:
            arrays.append(values)
        elif pa.types.is_string(field.type):
            arrays.append(as_strings(values))
        else:
            raise DataError(
                f"{uri}: column {field.name!r} holds {values.type} where {field.type} is expected: the files have "
                "changed since they were scanned; scan the texts again"
            )
    return pa.RecordBatch.from_arrays(arrays, schema=full)
