"""Reads one shard of an embeddings dataset, row group by row group, after a check that it is the manifest's."""

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

from driftline.components.errors import DataError
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.prefetch import Room, Source, Value
from driftline.components.storage.dataset.shard_checks import opened_checked
from driftline.components.storage.dataset.shard_format import vectors_of, whole_parquet
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import FileInfo

Rows = npt.NDArray[np.int64]
Checked = dict[str, FileInfo]


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
