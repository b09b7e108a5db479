"""Texts in files: found, checked once, then read in slices, always with the same columns and types."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.objects import store
from driftline.components.storage.texts.arrow_types import as_strings
from driftline.components.storage.texts.checks import IdIndex
from driftline.components.storage.texts.csv_reader import CsvTexts
from driftline.components.storage.texts.filter import SelectionFilter
from driftline.components.storage.texts.find import NoTexts, find_texts, text_format
from driftline.components.storage.texts.jsonl import JsonlTexts
from driftline.components.storage.texts.parquet import ParquetTexts
from driftline.components.storage.texts.rows import Carried, Projection, RowBatch, Start, TextColumns, TextReader
from driftline.components.storage.texts.rules import TextCounts, check_ids, judge, kept_rows, null_rows
from driftline.components.storage.texts.selection import TextSelection
from driftline.components.storage.texts.source import PieceCutter, TextPiece, TextSource, carried_schema

__all__ = [
    "TextColumns",
    "TextCounts",
    "TextPiece",
    "TextSelection",
    "TextSource",
    "carried_schema",
    "find_texts",
    "read_texts",
    "read_tombstones",
    "scan_texts",
]

_SCAN_ROWS = 8192
_ALL = TextSelection()


def scan_texts(
    inputs: Sequence[str],
    columns: TextColumns | None = None,
    *,
    selection: TextSelection = _ALL,
    strict: bool = False,
) -> list[TextSource]:
    """Read every file once and check it: what passes is read without surprises later.

    Bad texts are left out, mended or kept by the rules of `text_rules`, and counted. Refused are missing columns, ids
    that are null, blank or there twice (in one file or in two), and damaged files. Ids may be strings or integers.
    Rows outside of the selection are not looked at further. Memory: a batch of rows (for Parquet a row group's pages),
    8 bytes a row, 16 while the ids are compared, and about 100 for each piece.

    Args:
        inputs: Files, folders and patterns, as of `find_texts`.
        columns: The names of the id and text columns; `id` and `text` by default.
        selection: The rows to take; all by default.
        strict: Whether to refuse the first text that a rule would leave out, mend or keep with control characters.

    Returns:
        One source a file, in the order of `find_texts`.

    Raises:
        DataError: An input, a file or a row is not as expected; the message names file, column and row (from
            1, without a CSV header and without blank lines).
        UsageError: The selection names a column that no file has, or a value that a column cannot be compared with.
        StorageError: A file cannot be read.
    """
    names = columns or TextColumns()
    projection = _projection(selection)
    uris = find_texts(inputs)
    readers = [_reader(uri, text_format(uri) or "", names, projection, None) for uri in uris]
    if all(text_format(uri) != "jsonl" for uri in uris):
        # Told before hours of reading; the columns of JSONL are known only after it.
        _check_looked_at(readers, projection)
    ids = IdIndex()
    sources = [_scan(uri, names, reader, ids, strict=strict) for uri, reader in zip(uris, readers, strict=True)]
    if not any(source.rows for source in sources):
        shown = sources[0].uri if len(sources) == 1 else f"{sources[0].uri} and {len(sources) - 1} more files"
        raise NoTexts(f"{shown}: there are no rows; give at least one text")
    _check_looked_at(readers, projection)
    ids.check(lambda: _again(sources, names, projection))
    return sources


def _projection(selection: TextSelection, carried: frozenset[str] | None = None) -> Projection:
    rows = SelectionFilter(selection)
    return Projection(rows if rows.columns else None, carried)


def _reader(uri: str, kind: str, columns: TextColumns, projection: Projection, carried: Carried | None) -> TextReader:
    if kind == "parquet":
        return ParquetTexts(uri, columns, projection)
    if kind == "jsonl":
        return JsonlTexts(uri, columns, projection, carried)
    return CsvTexts(uri, columns, projection)


def _check_looked_at(readers: Sequence[TextReader], projection: Projection) -> None:
    present = dict.fromkeys(name for reader in readers for name in reader.names())
    for name in projection.looked_at:
        if name not in present:
            listed = ", ".join(repr(other) for other in list(present)[:20])
            raise UsageError(f"the selection asks for column {name!r}, which no file has; name one of {listed}")


def _scan(uri: str, columns: TextColumns, reader: TextReader, ids: IdIndex, *, strict: bool) -> TextSource:
    before = store.stat(uri)
    cutter = PieceCutter()
    counts = TextCounts()
    for batch in reader.batches(0, None, _SCAN_ROWS):
        check_ids(uri, columns, batch)
        ids.add(batch.ids)
        taken, counted = judge(uri, columns, batch, strict=strict)
        counts += counted
        kept = np.zeros(batch.count, bool)
        kept[batch.numbers - batch.first_row] = taken
        sizes = np.zeros(batch.count, np.int64)
        sizes[kept] = pc.fill_null(pc.binary_length(batch.texts), 0).to_numpy(zero_copy_only=False)[taken]
        cutter.add(sizes, kept, batch.offsets)
    pieces = cutter.finish()
    rows = sum(piece.rows for piece in pieces)
    checksum = store.crc32c(before)
    kind = text_format(uri) or ""
    return TextSource(uri, kind, rows, before.size, checksum, reader.carried(), pieces, counts)


def _again(
    sources: Sequence[TextSource], columns: TextColumns, projection: Projection
) -> Iterator[tuple[str, RowBatch]]:
    ids_alone = Projection(projection.rows, frozenset())
    for source in sources:
        reader = _reader(source.uri, source.format, columns, ids_alone, ())
        for batch in reader.batches(0, None, _SCAN_ROWS):
            yield source.uri, batch


def read_texts(
    source: TextSource,
    columns: TextColumns | None = None,
    *,
    selection: TextSelection = _ALL,
    start: int = 0,
    rows: int | None = None,
    batch_rows: int = 1024,
    schema: pa.Schema | None = None,
) -> Generator[pa.RecordBatch]:
    """Read the kept rows among the rows [start, start + rows) of a scanned file.

    Args:
        source: The file, as scanned.
        columns: The names of its id and text columns, as for the scan.
        selection: The rows to take, as for the scan.
        start: The first row of the file, from 0. Parquet skips the row groups before it, JSONL and CSV seek to the
            piece that holds it; only gzip is read from the front.
        rows: How many rows of the file; all that follow by default.
        batch_rows: The most rows in a batch. One may hold fewer: where rows are left out, at a row group's end, or
            where texts are long (about 32 MiB).
        schema: The carried columns to give, as of `carried_schema`; the source's own by default. What the
            source lacks is null, what it holds in another type becomes a string, what is not in the schema is
            left out.

    Yields:
        Batches with the columns `id` and `text` (strings), then the carried ones: the same types in every
        batch. None is empty.

    Raises:
        UsageError: `start`, `rows` or `batch_rows` is out of range.
        DataError: The file is not what the scan saw, or the selection is another one.
        StorageError: The file cannot be read.
    """
    wanted = source.rows - start if rows is None else rows
    if start < 0 or wanted < 0 or start + wanted > source.rows or batch_rows < 1:
        raise UsageError(
            f"{source.uri}: rows {start} to {start + wanted} in batches of {batch_rows} are asked for, of "
            f"{source.rows}; give a range within the file and at least 1 row a batch"
        )
    target = schema if schema is not None else carried_schema([source])
    full = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string()), *target])
    projection = _projection(selection, frozenset(target.names))
    given = 0
    for batch in _rows(source, columns or TextColumns(), projection, start, wanted, batch_rows):
        kept = kept_rows(batch.texts)
        given += int(kept.sum())
        if kept.any():
            conformed = _conformed(source.uri, batch, target, full)
            yield conformed if kept.all() else conformed.filter(pa.array(kept))
    expected = _texts_within(source, start, start + wanted)
    if expected is not None and given != expected:
        raise DataError(
            f"{source.uri}: {given} texts where the scan saw {expected}: the file or the selection has changed; scan "
            "the texts again"
        )


def read_tombstones(
    source: TextSource, columns: TextColumns | None = None, *, selection: TextSelection = _ALL
) -> Generator[pa.Array]:
    """Read the ids of the rows whose text is null: texts that are to be deleted.

    Pieces without a row left out are not read.

    Args:
        source: The file, as scanned.
        columns: The names of its id and text columns, as for the scan.
        selection: The rows to take, as for the scan.

    Yields:
        Ids, strings without nulls, shape (some,), in the order of the file; together `source.counts.null`. None is
        empty.

    Raises:
        DataError: The file is not what the scan saw, or the selection is another one.
        StorageError: The file cannot be read.
    """
    if not source.counts.null:
        return
    projection = _projection(selection, frozenset())
    given = 0
    for start, rows in _runs_with_gaps(source.pieces):
        for batch in _rows(source, columns or TextColumns(), projection, start, rows, _SCAN_ROWS):
            ids = batch.ids.filter(pa.array(null_rows(batch.texts)))
            given += len(ids)
            if len(ids):
                yield ids
    if given != source.counts.null:
        raise DataError(
            f"{source.uri}: {given} null texts where the scan saw {source.counts.null}: the file or the selection has "
            "changed; scan the texts again"
        )


def _runs_with_gaps(pieces: Sequence[TextPiece]) -> list[tuple[int, int]]:
    """The runs of pieces that leave rows out, as (first row, rows)."""
    runs: list[tuple[int, int]] = []
    for piece in pieces:
        if piece.texts == piece.rows:
            continue
        if runs and sum(runs[-1]) == piece.start:
            runs[-1] = (runs[-1][0], runs[-1][1] + piece.rows)
        else:
            runs.append((piece.start, piece.rows))
    return runs


def _texts_within(source: TextSource, start: int, stop: int) -> int | None:
    """The texts kept of a range of rows; None where it is not one of whole pieces."""
    starts = [piece.start for piece in source.pieces] + [source.rows]
    first, last = bisect_right(starts, start) - 1, bisect_right(starts, stop) - 1
    if starts[first] != start or starts[last] != stop:
        return None
    return sum(piece.texts for piece in source.pieces[first:last])


def _rows(
    source: TextSource, columns: TextColumns, projection: Projection, start: int, wanted: int, batch_rows: int
) -> Iterator[RowBatch]:
    """Read rows of a scanned file, with the ids checked again, and check that there are as many as the scan saw."""
    info = store.stat(source.uri)
    if info.size != source.bytes or info.crc32c not in (None, source.crc32c):
        raise DataError(f"{source.uri}: has changed since it was scanned; scan the texts again")
    if not wanted:
        return
    given = 0
    reader = _reader(source.uri, source.format, columns, projection, source.carried)
    for batch in reader.batches(start, wanted, batch_rows, _near(source, start)):
        check_ids(source.uri, columns, batch)
        given += batch.count
        yield batch
    if given != wanted:
        raise DataError(
            f"{source.uri}: {given} rows where the scan saw {wanted}: the file has changed; scan the texts again"
        )


def _near(source: TextSource, start: int) -> Start:
    """The last piece at or before a row."""
    place = bisect_right(source.pieces, start, key=lambda piece: piece.start) - 1
    return Start(source.pieces[place].start, source.pieces[place].offset) if place >= 0 else Start()


def _conformed(uri: str, batch: RowBatch, target: pa.Schema, full: pa.Schema) -> pa.RecordBatch:
    arrays = [batch.ids, batch.texts]
    for field in target:
        values = batch.carried.get(field.name)
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
