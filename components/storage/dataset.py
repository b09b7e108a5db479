"""Reads an embeddings dataset: streamed, or a few rows, each shard checked before it is first read."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage import store
from driftline.components.storage.manifest import MANIFEST_NAME, Manifest, Shard
from driftline.components.storage.shards import (
    check_shard,
    embedding_type,
    finished_shard,
    vectors_of,
    write_manifest,
    write_shard,
)

__all__ = [
    "Batch",
    "EmbeddingsDataset",
    "Manifest",
    "Shard",
    "finished_shard",
    "write_manifest",
    "write_shard",
]

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
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


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    rows: Rows
    vectors: npt.NDArray[Any] | None
    table: pa.Table

    def cut(self, at: int) -> tuple[_Piece, _Piece]:
        v = self.vectors
        return (
            _Piece(self.rows[:at], None if v is None else v[:at], self.table.slice(0, at)),
            _Piece(self.rows[at:], None if v is None else v[at:], self.table.slice(at)),
        )


class EmbeddingsDataset:
    """An embeddings dataset that is complete: its manifest is there.

    Before a shard is first read through this object, its size and checksum are compared with the manifest
    (gs://: by the object's metadata; local: by streaming the file once).

    Attributes:
        uri: The dataset's folder.
        manifest: What is in it.
    """

    def __init__(self, uri: str, manifest: Manifest) -> None:
        self.uri = uri
        self.manifest = manifest
        self._checked: set[str] = set()
        self._schema: pa.Schema | None = None
        self._starts = np.cumsum([0, *(shard.rows for shard in manifest.shards)], dtype=np.int64)

    @classmethod
    def open(cls, uri: str) -> EmbeddingsDataset:
        """Read a dataset's manifest.

        Raises:
            DataError: There is no manifest, or it is not one of an embeddings dataset.
            StorageError: It cannot be read.
        """
        place = store.join(uri, MANIFEST_NAME)
        if not store.exists(place):
            raise DataError(
                f"{uri}: there is no {MANIFEST_NAME}: the dataset is unfinished, or this is no embeddings "
                "dataset; run the backfill to its end, or check the path"
            )
        try:
            return cls(uri, Manifest.from_json(store.read_json(place)))
        except DataError as error:
            text = str(error)
            raise DataError(text if text.startswith(place) else f"{place}: {text}") from error

    @property
    def rows(self) -> int:
        """Rows of all shards together."""
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
    ) -> Generator[Batch]:
        """Stream the dataset, or some of its rows, in dataset order.

        Only the columns asked for are read, and only the row groups that hold wanted rows. However the
        dataset is cut into shards and row groups, every batch has exactly `batch_rows` rows; the last may be
        shorter. Memory: one row group and two batches.

        Args:
            columns: Which ones; `embedding` becomes `Batch.embeddings`, float16 widened to float32.
            rows: Numbers of the wanted rows: int64, ascending, none twice; all by default.
            batch_rows: Rows in a batch.

        Yields:
            The rows.

        Raises:
            UsageError: A column is not there, a row number is out of range or order, or `batch_rows` under 1.
            DataError: A shard is missing, damaged or not as the manifest says, or a vector is not finite.
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
        held: list[_Piece] = []
        count = 0
        for piece in self._pieces(columns, self._wanted(rows)):
            held.append(piece)
            count += len(piece.rows)
            while count >= batch_rows:
                over = count - batch_rows
                last, rest = held[-1].cut(len(held[-1].rows) - over)
                yield self._batch([*held[:-1], last])
                held, count = ([rest], over) if over else ([], 0)
        if held:
            yield self._batch(held)

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
            with self._opened(self.manifest.shards[0]) as (_, file):
                return file.schema_arrow.remove_metadata().empty_table().select(present)
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
                f"{self.uri}: rows {wanted.min()} to {wanted.max()} are asked for; the dataset has rows 0 to "
                f"{self.rows - 1}"
            )
        if (np.diff(wanted) <= 0).any():
            raise UsageError(f"{self.uri}: the row numbers are not ascending, or one is there twice; sort them")
        return wanted

    def _pieces(self, columns: Sequence[str], wanted: Rows | None) -> Iterator[_Piece]:
        for shard, first in zip(self.manifest.shards, self._starts[:-1].tolist(), strict=True):
            local = None
            if wanted is not None:
                low, high = np.searchsorted(wanted, [first, first + shard.rows])
                if low == high:
                    continue
                local = wanted[low:high] - first
            with self._opened(shard) as (uri, file):
                yield from self._shard_pieces(uri, file, columns, local, first)

    def _shard_pieces(
        self, uri: str, file: pq.ParquetFile, columns: Sequence[str], wanted: Rows | None, first: int
    ) -> Iterator[_Piece]:
        start = 0
        others = [name for name in columns if name != "embedding"]
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            local = np.arange(count, dtype=np.int64)
            if wanted is not None:
                low, high = np.searchsorted(wanted, [start, start + count])
                local = wanted[low:high] - start
            if local.size:
                with _damage(uri, f"row group {group}"):
                    table = file.read_row_group(group, columns=list(columns))
                vectors = self._vectors(uri, file, table, group, start) if "embedding" in columns else None
                table = table.select(others)
                if local.size < count:
                    table = table.take(pa.array(local))
                    vectors = None if vectors is None else vectors[local]
                yield _Piece(local + (first + start), vectors, table)
            start += count

    def _vectors(self, uri: str, file: pq.ParquetFile, table: pa.Table, group: int, start: int) -> npt.NDArray[Any]:
        try:
            vectors = vectors_of(pa.concat_arrays(table.column("embedding").chunks), self.dimension)
        except ValueError as error:
            raise DataError(f"{uri}: column 'embedding', row group {group}: {error}; run the backfill again") from error
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            name = file.read_row_group(group, columns=["id"]).column("id")[row].as_py()
            raise DataError(
                f"{uri}: column 'embedding', row {start + row + 1} (id {name!r}): the vector has a NaN or an "
                "infinity; check the model and run the backfill again"
            )
        return vectors

    def _batch(self, pieces: list[_Piece]) -> Batch:
        rows = np.concatenate([piece.rows for piece in pieces])
        embeddings = np.empty((len(rows), 0), np.float32)
        if pieces[0].vectors is not None:
            # One copy, which also widens float16 and frees the row groups.
            embeddings = np.empty((len(rows), self.dimension), np.float32)
            np.concatenate([piece.vectors for piece in pieces if piece.vectors is not None], out=embeddings)
        return Batch(rows, embeddings, pa.concat_tables([piece.table for piece in pieces]))

    @contextmanager
    def _opened(self, shard: Shard) -> Generator[tuple[str, pq.ParquetFile]]:
        uri = store.join(self.uri, shard.name)
        if shard.name not in self._checked:
            check_shard(uri, shard)
        with store.open_read(uri) as handle:
            with _damage(uri, "the footer"):
                file = pq.ParquetFile(handle)
            with file:
                self._check_schema(uri, shard, file)
                self._checked.add(shard.name)
                yield uri, file

    def _check_schema(self, uri: str, shard: Shard, file: pq.ParquetFile) -> None:
        schema = file.schema_arrow.remove_metadata()
        if file.metadata.num_rows != shard.rows:
            raise DataError(
                f"{uri}: the shard has {file.metadata.num_rows} rows, its manifest says {shard.rows}; restore it "
                "or run the backfill again"
            )
        if tuple(schema.names) != self._names:
            raise DataError(
                f"{uri}: the shard has the columns {', '.join(schema.names)}, its manifest says "
                f"{', '.join(self._names)}; restore it or run the backfill again"
            )
        kind = schema.field("embedding").type
        if not pa.types.is_fixed_size_list(kind) or kind.list_size != self.dimension:
            raise DataError(
                f"{uri}: column 'embedding' holds {kind}, its manifest says dimension {self.dimension}; restore "
                "it or run the backfill again"
            )
        item = {pa.float32(): "float32", pa.float16(): "float16"}.get(kind.value_type, str(kind.value_type))
        if item != self.manifest.dtype:
            raise DataError(
                f"{uri}: column 'embedding' holds {item}, its manifest says {self.manifest.dtype}; restore it or "
                "run the backfill again"
            )
        known = self._schema = self._schema or schema
        for name in self.manifest.columns:
            here, before = schema.field(name).type, known.field(name).type
            if here != before:
                raise DataError(
                    f"{uri}: column {name!r} holds {here}, an earlier shard holds {before}; run the backfill again"
                )


@contextmanager
def _damage(uri: str, where: str) -> Generator[None]:
    try:
        yield
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{uri}: is not a whole Parquet file ({where}: {' '.join(str(error).split())[:200]}); restore it or "
            "run the backfill again"
        ) from error
