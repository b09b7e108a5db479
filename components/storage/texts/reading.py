"""Texts in files: found, scanned once, then read in slices, always with the same columns and types.

`find_texts` lists files, `scan_texts` makes a `TextSource` of each, `read_texts` gives the kept rows of one.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import is_gcs, normalised, split_gcs
from driftline.components.storage.texts.arrow_types import as_strings, type_from_name
from driftline.components.storage.texts.csv_reader import CsvTexts
from driftline.components.storage.texts.filter import SelectionFilter
from driftline.components.storage.texts.jsonl import JsonlTexts
from driftline.components.storage.texts.parquet import ParquetTexts
from driftline.components.storage.texts.rows import Carried, Projection, RowBatch, Start, TextColumns, TextReader
from driftline.components.storage.texts.rules import TextCounts, check_ids, check_unique, judge, kept_rows, null_rows
from driftline.components.storage.texts.selection import TextSelection
from driftline.components.unique_ids import UniqueIds

_FORMATS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".csv": "csv",
    ".csv.gz": "csv",
}
_READABLE = ".parquet, .jsonl, .ndjson or .csv (the last three also .gz)"
_WILD = re.compile(r"[*?]")


class NoTextFiles(DataError):  # noqa: N818 - named for what it is: a night may be quiet
    """There is no file where texts were expected."""


class NoTexts(DataError):  # noqa: N818
    """There are files of texts, but no text in them that is wanted."""


def text_format(uri: str) -> str | None:
    """The format that a file's name tells: `parquet`, `jsonl`, `csv`, or None."""
    name = uri.rpartition("/")[2].lower()
    for ending, kind in _FORMATS.items():
        if name.endswith(ending):
            return kind
    return None


def find_texts(inputs: Sequence[str]) -> list[str]:
    """Find the files of texts that `inputs` name.

    Args:
        inputs: Each a file, a folder (every file in it, at any depth, that ends in .parquet, .jsonl, .ndjson
            or .csv, the last three also with .gz), or a pattern: `*` and `?` stay within one path component,
            `**` spans any number. Local or gs://. In folders and patterns, names that begin with a dot or an
            underscore are left out, and so are files of other kinds.

    Returns:
        URIs in the order of the inputs, sorted within each; a file that two inputs name is there once.

    Raises:
        DataError: An input names nothing, or a file of another kind.
        StorageError: A place cannot be listed.
    """
    if not inputs:
        raise DataError(f"no inputs: name at least one file, folder or pattern of texts ({_READABLE})")
    found: dict[str, str] = {}
    for given in inputs:
        for uri in _resolve(normalised(given)):
            found.setdefault(uri if is_gcs(uri) else str(Path(uri).absolute()), uri)
    return list(found.values())


def _resolve(given: str) -> list[str]:
    place = given if is_gcs(given) else str(Path(given))
    if is_gcs(place):
        split_gcs(place)
    # Looked up first: a file may bear a name that looks like a pattern.
    listed = [info.uri for info in store.list_files(place)]
    if listed == [place]:
        if text_format(place) is None:
            raise DataError(f"{given}: its name does not tell the format of the texts; end it in {_READABLE}")
        return listed
    base, pattern = place.rstrip("/"), ""
    if not listed and (wild := _WILD.search(place)):
        base = place[: wild.start()].rpartition("/")[0]
        pattern = place[len(base) :].lstrip("/")
        folder = base or ("/" if place.startswith("/") else ".")
        names = _regex(pattern)
        listed = [info.uri for info in store.list_files(folder) if names.fullmatch(_relative(info.uri, base))]
    readable = [uri for uri in listed if text_format(uri) and _visible(_relative(uri, base))]
    if readable:
        return readable
    if listed:
        raise DataError(
            f"{given}: none of the {len(listed)} files found there is one of texts; name files that end in "
            f"{_READABLE}, without a dot or an underscore at the front"
        )
    missing = "no file matches the pattern" if pattern else "there is no such file, and no file in such a folder"
    raise NoTextFiles(f"{given}: {missing}; check the path")


def _relative(uri: str, base: str) -> str:
    return uri.removeprefix(base).lstrip("/")


def _visible(name: str) -> bool:
    return not any(part.startswith((".", "_")) for part in name.split("/"))


def _regex(pattern: str) -> re.Pattern[str]:
    parts = pattern.split("/")
    expression = ""
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "**":
            expression += ".+" if last else "(?:[^/]+/)*"
            continue
        for character in part:
            expression += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        expression += "" if last else "/"
    return re.compile(expression, re.DOTALL)


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
    ids = UniqueIds()
    sources = [_scan(uri, names, reader, ids, strict=strict) for uri, reader in zip(uris, readers, strict=True)]
    if not any(source.rows for source in sources):
        shown = sources[0].uri if len(sources) == 1 else f"{sources[0].uri} and {len(sources) - 1} more files"
        raise NoTexts(f"{shown}: there are no rows; give at least one text")
    _check_looked_at(readers, projection)
    check_unique(ids, lambda: _again(sources, names, projection))
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


def _scan(uri: str, columns: TextColumns, reader: TextReader, ids: UniqueIds, *, strict: bool) -> TextSource:
    before = store.stat(uri)
    cutter = PieceCutter()
    counts = TextCounts()
    for batch in reader.batches(0, None, _SCAN_ROWS):
        check_ids(uri, columns, batch)
        ids.add(batch.ids.to_pylist())
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
    for column in target:
        values = batch.carried.get(column.name)
        if values is None or pa.types.is_null(values.type):
            arrays.append(pa.nulls(len(batch.ids), column.type))
        elif values.type == column.type:
            arrays.append(values)
        elif pa.types.is_string(column.type):
            arrays.append(as_strings(values))
        else:
            raise DataError(
                f"{uri}: column {column.name!r} holds {values.type} where {column.type} is expected: the files have "
                "changed since they were scanned; scan the texts again"
            )
    return pa.RecordBatch.from_arrays(arrays, schema=full)
