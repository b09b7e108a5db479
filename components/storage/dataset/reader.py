"""Reads an embeddings dataset: streamed, read ahead of its consumer, or a few rows."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, JoinedManifest, Manifest, Shard
from driftline.components.storage.dataset.partitions import (
    joined_deletion_vectors,
    joined_manifest,
    read_manifest,
    selected_folders,
)
from driftline.components.storage.dataset.prefetch import ReadAhead, Room, Source, Value, read_ahead, waiting
from driftline.components.storage.dataset.shards import (
    embedding_type,
    opened_checked,
    vectors_of,
    whole_parquet,
)
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import FileInfo

Rows = npt.NDArray[np.int64]
Checked = dict[str, FileInfo]


_NO_ROWS = np.empty(0, np.int64)
_ONE_BATCH = ReadAhead(bytes=1, threads=1)  # its values are counted, not weighed: one is ready, or being made


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingBatch:
    """Consecutive wanted rows of a dataset.

    Attributes:
        rows: Their numbers in the dataset, int64, shape (rows,), ascending.
        embeddings: C-contiguous float32, shape (rows, dimension), finite; shape (rows, 0) where they
            were not asked for.
        table: The other columns that were asked for.
    """

    rows: Rows
    embeddings: npt.NDArray[np.float32]
    table: pa.Table

    @property
    def ids(self) -> list[str]:
        """The ids, as Python strings; `id` must be among the columns asked for."""
        return self.table.column("id").to_pylist()


class EmbeddingsDataset:
    """An embeddings dataset that is complete: its manifest is there; or several of them, read as one.

    Rows that the dataset's deletion vectors name are not there: no reader sees them, and row numbers pass over them.

    Before the first row of a shard is read through this object, the shard's size and checksum are compared with the
    manifest (gs://: by the object's metadata; local: by streaming the file once, in the background).

    Attributes:
        uri: The dataset's folder, as it was asked for.
        manifest: What is in it.
    """

    def __init__(
        self, uri: str, manifest: Manifest, ahead: ReadAhead | None = None, *, folder: str | None = None
    ) -> None:
        self.uri = uri
        self._folder = uri if folder is None else folder  # within which the manifest names its shards
        self.manifest = manifest
        self._ahead = ahead or ReadAhead()
        self._checked: Checked = {}
        self._schema: pa.Schema | None = None
        self._deletion_vectors: dict[str, Rows] | None = None

    @classmethod
    def open(cls, uri: str, ahead: ReadAhead | None = None) -> EmbeddingsDataset:
        """Read a dataset's manifest, or those of a folder of datasets, which are then read as one.

        Args:
            uri: The dataset's folder; or one with datasets in `date=…/hour=…/model=…` below it, or a range of such
                folders, as `partitions` describes them.
            ahead: How far to read ahead of whoever reads the rows; by default 64 MiB.

        Raises:
            DataError: There is no manifest, one is not that of an embeddings dataset, or the datasets of a folder
                are of several models.
            StorageError: One cannot be read.
        """
        found = cls.find(uri, ahead)
        if found is None:
            raise DataError(
                f"{uri}: there is no {MANIFEST_NAME}: the dataset is unfinished, or this is no embeddings "
                "dataset; run the backfill to its end, or check the path"
            )
        return found

    @classmethod
    def find(cls, uri: str, ahead: ReadAhead | None = None) -> EmbeddingsDataset | None:
        """Open what `open` does; None where there is no manifest.

        Raises:
            DataError: A manifest is not that of an embeddings dataset, or the datasets of a folder are of several
                models.
            StorageError: One cannot be read.
        """
        base, selectors = selected_folders(uri)
        if not selectors and store.exists(store.join(base, MANIFEST_NAME)):
            return cls(uri, read_manifest(base), ahead)
        joined = joined_manifest(base, selectors)
        return None if joined is None else cls(uri, joined, ahead, folder=base)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the datasets that are read: several where a folder of datasets, or a range, was opened."""
        if isinstance(self.manifest, JoinedManifest):
            return tuple(store.join(self._folder, name) for name, _ in self.manifest.parts)
        return (self._folder,)

    @property
    def rows(self) -> int:
        """Rows that are not deleted, of all shards together; may be 0."""
        return self.manifest.rows

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.manifest.dimension

    def has_column(self, name: str) -> bool:
        """Say whether every row has a column of this name (`id` and `embedding` included)."""
        return name in self._names

    @property
    def _names(self) -> tuple[str, ...]:
        return ("id", "embedding", *self.manifest.columns)

    def batches(
        self,
        columns: Sequence[str] = ("id", "embedding"),
        rows: Rows | None = None,
        batch_rows: int = 4096,
    ) -> Generator[EmbeddingBatch]:
        """Stream the dataset, or some of its rows, in dataset order.

        Only the columns asked for are read, and only the row groups that hold wanted rows. However the
        dataset is cut into shards and row groups, every batch has exactly `batch_rows` rows; the last may be
        shorter. A dataset without rows has no batches.

        Background threads open and check shards and decode row groups ahead, from the first batch asked for until
        the generator ends or is closed. A shard is checked before any of its rows is decoded. An error comes
        where its shard's rows would, after all batches before it. Threads end, and files are closed, within a row
        group of the generator's end.

        Memory: what is read ahead (64 MiB by default), two row groups for each of its four threads, and four batches;
        from gs:// also what the open files hold, some 20 MiB for each thread.

        Args:
            columns: Which ones; `embedding` becomes `EmbeddingBatch.embeddings`, float16 widened to float32.
            rows: Numbers of the wanted rows: int64, ascending, none twice; all by default.
            batch_rows: Rows in a batch.

        Yields:
            The rows.

        Raises:
            UsageError: A column is not there, a row number is out of range or order, or `batch_rows` under 1.
            DataError: A shard or the deletion vectors are missing, damaged or not as the manifest says, or a vector is
                not finite.
            StorageError: A shard cannot be read.
        """
        if batch_rows < 1:
            raise UsageError(f"batch_rows is {batch_rows}; give at least 1")
        absent = [name for name in columns if name not in self._names]
        if absent or not columns:
            raise UsageError(
                f"{self.uri}: the columns {', '.join(absent) or '(none)'} are not there; choose among: "
                f"{', '.join(self._names)}"
            )
        # Put together in the background, too: that copies every vector.
        batches = read_ahead([self._assembled(columns, self._wanted(rows), batch_rows)], _ONE_BATCH)
        try:
            while True:
                with waiting():
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        finally:
            batches.close()

    def _assembled(self, columns: Sequence[str], wanted: Rows | None, batch_rows: int) -> Source[EmbeddingBatch]:
        pieces = self._pieces(columns, wanted)
        try:
            held: list[Piece] = []
            count = 0
            for piece in pieces:
                held.append(piece)
                count += len(piece.rows)
                while count >= batch_rows:
                    over = count - batch_rows
                    last, rest = held[-1].cut(len(held[-1].rows) - over)
                    yield Room(1)
                    batch = self._batch([*held[:-1], last])
                    held, count = ([rest], over) if over else ([], 0)
                    yield Value(batch, 1)
                    del batch  # the consumer's alone from here on
                yield Room(0)  # a place to end at, where a batch takes many row groups
            if held:
                yield Room(1)
                yield Value(self._batch(held), 1)
        finally:
            pieces.close()

    def take(self, rows: Sequence[int] | Rows, columns: Sequence[str]) -> pa.Table:
        """Read a few rows, in the order asked, which may be any; a row may be asked for more than once.

        Args:
            rows: Numbers of the rows. All of them are held in memory at once, and the row groups that hold
                them read one after the other.
            columns: Which ones. Those that the dataset does not have are left out of the result, silently:
                for columns that users may or may not carry along.

        Returns:
            A row for each number, with those of the columns that are there, `embedding` as a fixed-size list
            of float32.

        Raises:
            UsageError: A row number is out of range.
            DataError: A shard is missing, damaged or not as the manifest says.
            StorageError: A shard cannot be read.
        """
        present = [name for name in dict.fromkeys(columns) if name in self._names]
        order = np.asarray(rows, dtype=np.int64).reshape(-1)
        wanted, places = np.unique(order, return_inverse=True)
        # An id at least is read, so that the row numbers are checked whatever is asked for.
        pieces = list(self.batches(present or ["id"], wanted))
        if not pieces:
            with opened(self._folder, self.manifest, self.manifest.shards[0], self._checked) as shard:
                return shard.schema.empty_table().select(present)
        table = pa.concat_tables([piece.table for piece in pieces])
        if "embedding" in present:
            vectors = np.concatenate([piece.embeddings for piece in pieces])
            kind = embedding_type(self.dimension, "float32")
            table = table.append_column(
                pa.field("embedding", kind, nullable=False),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind),
            )
        return table.select(present).take(pa.array(places)).combine_chunks()

    def _wanted(self, rows: Rows | None) -> Rows | None:
        if rows is None:
            return None
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
            raise UsageError(
                f"{self.uri}: rows has shape {wanted.shape} and dtype {wanted.dtype}; give row numbers, int64"
            )
        wanted = wanted.astype(np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.rows):
            raise UsageError(
                f"{self.uri}: rows {wanted.min()} to {wanted.max()} are asked for; the dataset has "
                f"{f'rows 0 to {self.rows - 1}' if self.rows else 'no rows'}"
            )
        if (np.diff(wanted) <= 0).any():
            raise UsageError(f"{self.uri}: the row numbers are not ascending, or one is there twice; sort them")
        return wanted

    def _pieces(self, columns: Sequence[str], wanted: Rows | None) -> Generator[Piece]:
        contents = read_ahead(self._sources(columns, wanted), self._ahead)
        try:
            for content in contents:
                if isinstance(content, Opened):
                    self._check_types(content)
                else:
                    yield content
        finally:
            contents.close()

    def _sources(self, columns: Sequence[str], wanted: Rows | None) -> list[Source[Opened | Piece]]:
        deletes = self._read_deletion_vectors()
        sources: list[Source[Opened | Piece]] = []
        first = 0
        for shard in self.manifest.shards:
            deleted = deletes.get(shard.name, _NO_ROWS)
            after = first + shard.rows - len(deleted)
            live = None
            if wanted is not None:
                low, high = np.searchsorted(wanted, [first, after])
                live = wanted[low:high] - first
            if after - first if live is None else live.size:
                part = Wanted(first, live, deleted)
                sources.append(shard_pieces(self._folder, self.manifest, shard, columns, part, self._checked))
            first = after
        return sources

    def _read_deletion_vectors(self) -> dict[str, Rows]:
        if self._deletion_vectors is None:
            self._deletion_vectors = joined_deletion_vectors(self._folder, self.manifest)
        return self._deletion_vectors

    def _batch(self, pieces: list[Piece]) -> EmbeddingBatch:
        rows = np.concatenate([piece.rows for piece in pieces])
        embeddings = np.empty((len(rows), 0), np.float32)
        if pieces[0].vectors is not None:
            # One copy, which also widens float16 and frees the row groups.
            embeddings = np.empty((len(rows), self.dimension), np.float32)
            np.concatenate([piece.vectors for piece in pieces if piece.vectors is not None], out=embeddings)
        return EmbeddingBatch(rows, embeddings, pa.concat_tables([piece.table for piece in pieces]))

    def _check_types(self, shard: Opened) -> None:
        # Here and not where shards are opened, so that it is always the later shard that is refused.
        known = self._schema = self._schema or shard.schema
        for name in self.manifest.columns:
            here, before = shard.schema.field(name).type, known.field(name).type
            if here != before:
                raise DataError(
                    f"{shard.uri}: column {name!r} holds {here}, an earlier shard holds {before}; run the backfill "
                    "again"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A shard that is as the manifest says.

    Attributes:
        uri: Where it is.
        file: Its content; closed when the shard's rows are all read.
        schema: Its columns, without metadata.
    """

    uri: str
    file: pq.ParquetFile
    schema: pa.Schema


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Wanted rows of one row group.

    Attributes:
        rows: Their numbers in the dataset, int64, shape (rows,), ascending.
        vectors: Shape (rows, dimension), float32 or float16, finite, may be read-only; None where not asked for.
        table: The other columns asked for.
    """

    rows: Rows
    vectors: npt.NDArray[Any] | None
    table: pa.Table

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        vectors = 0 if self.vectors is None else self.vectors.nbytes
        return self.rows.nbytes + vectors + self.table.nbytes

    def cut(self, at: int) -> tuple[Piece, Piece]:
        """Cut into the first `at` rows and the others."""
        v = self.vectors
        return (
            Piece(self.rows[:at], None if v is None else v[:at], self.table.slice(0, at)),
            Piece(self.rows[at:], None if v is None else v[at:], self.table.slice(at)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Which rows of a shard to read.

    Attributes:
        first: Number, in the dataset, of the shard's first row that is not deleted.
        live: The wanted rows, counted from there, int64, ascending; None for all.
        deleted: The shard's deleted rows, int64, ascending.
    """

    first: int
    live: Rows | None
    deleted: Rows

    def stored(self, rows: int) -> tuple[Rows, Rows]:
        """Return the rows' places in the shard, which has so many, and their numbers in the dataset."""
        live = np.arange(rows - len(self.deleted), dtype=np.int64) if self.live is None else self.live
        # Deleted row k lies behind as many live ones as its place less k: so many of those before a row to skip.
        skipped = np.searchsorted(self.deleted - np.arange(len(self.deleted)), live, side="right")
        return live + skipped, live + self.first


def shard_pieces(
    folder: str, manifest: Manifest, shard: Shard, columns: Sequence[str], wanted: Wanted, checked: Checked
) -> Source[Opened | Piece]:
    """Read the wanted rows of a shard: what `read_ahead` takes.

    Yields the opened shard, then the pieces. Only the columns asked for are read, and only the row groups that hold
    wanted rows.

    Args:
        folder: The dataset's folder.
        manifest: The dataset's manifest.
        shard: One of its shards.
        columns: Which to read; `embedding` becomes `Piece.vectors`.
        wanted: Which rows.
        checked: The files, by the shards' names, whose content is known to be right; this one is added.

    Raises:
        DataError: The shard is missing, damaged or not as the manifest says, or a vector is not finite.
        StorageError: It cannot be read.
    """
    with opened(folder, manifest, shard, checked) as found:
        yield Value(found, 0)
        places, numbers = wanted.stored(shard.rows)
        start = 0
        for group in range(found.file.num_row_groups):
            metadata = found.file.metadata.row_group(group)
            low, high = np.searchsorted(places, [start, start + metadata.num_rows])
            if low < high:
                yield Room(_decoded_bytes(metadata, columns))
                piece = _piece(found, manifest, group, start, columns, places[low:high] - start, numbers[low:high])
                yield Value(piece, piece.bytes)
                del piece  # the consumer's alone from here on
            start += metadata.num_rows


@contextmanager
def opened(folder: str, manifest: Manifest, shard: Shard, checked: Checked) -> Generator[Opened]:
    """Open a shard, after a check of its checksum unless that is known to be right, and of its columns."""
    uri = store.join(folder, shard.name)
    with opened_checked(uri, shard, known=checked.get(shard.name)) as (info, handle):
        with whole_parquet(uri, "the footer"):
            file = pq.ParquetFile(handle)
        with file:
            schema = file.schema_arrow.remove_metadata()
            _check(uri, shard, manifest, file.metadata.num_rows, schema)
            checked[shard.name] = info
            yield Opened(uri, file, schema)


def _decoded_bytes(metadata: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    total = 0
    for index in range(metadata.num_columns):
        column = metadata.column(index)
        path: str = column.path_in_schema
        if any(path == name or path.startswith(f"{name}.") for name in columns):
            total += column.total_uncompressed_size
    return total


def _piece(
    shard: Opened, manifest: Manifest, group: int, start: int, columns: Sequence[str], places: Rows, numbers: Rows
) -> Piece:
    with whole_parquet(shard.uri, f"row group {group}"):
        table = shard.file.read_row_group(group, columns=list(columns))
    vectors = _vectors(shard, manifest.dimension, table, group, start) if "embedding" in columns else None
    count = table.num_rows
    table = table.select([name for name in columns if name != "embedding"])
    if places.size < count:
        table = table.take(pa.array(places))
        vectors = None if vectors is None else vectors[places]
    return Piece(numbers, vectors, table)


def _vectors(shard: Opened, dimension: int, table: pa.Table, group: int, start: int) -> npt.NDArray[Any]:
    uri = shard.uri
    try:
        vectors = vectors_of(pa.concat_arrays(table.column("embedding").chunks), dimension)
    except ValueError as error:
        raise DataError(f"{uri}: column 'embedding', row group {group}: {error}; run the backfill again") from error
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        name = shard.file.read_row_group(group, columns=["id"]).column("id")[row].as_py()
        raise DataError(
            f"{uri}: column 'embedding', row {start + row + 1} (id {name!r}): the vector has a NaN or an "
            "infinity; check the model and run the backfill again"
        )
    return vectors


def _check(uri: str, shard: Shard, manifest: Manifest, rows: int, schema: pa.Schema) -> None:
    expected = ("id", "embedding", *manifest.columns)
    if rows != shard.rows:
        raise DataError(
            f"{uri}: the shard has {rows} rows, its manifest says {shard.rows}; restore it or run the backfill again"
        )
    if tuple(schema.names) != expected:
        raise DataError(
            f"{uri}: the shard has the columns {', '.join(schema.names)}, its manifest says {', '.join(expected)}; "
            "restore it or run the backfill again"
        )
    kind = schema.field("embedding").type
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != manifest.dimension:
        raise DataError(
            f"{uri}: column 'embedding' holds {kind}, its manifest says dimension {manifest.dimension}; restore "
            "it or run the backfill again"
        )
    item = {pa.float32(): "float32", pa.float16(): "float16"}.get(kind.value_type, str(kind.value_type))
    if item != manifest.dtype:
        raise DataError(
            f"{uri}: column 'embedding' holds {item}, its manifest says {manifest.dtype}; restore it or "
            "run the backfill again"
        )
