"""Looks at shards that are there: are they those that the manifest names, finished, whole?"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage.dataset.manifest import DTYPES, Shard, check_shard_name
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import FileInfo, stream_crc32c

KEY = b"driftline.key"
"""Metadata of a shard's schema: what the shard comes from."""


def embedding_type(dimension: int, dtype: str) -> pa.DataType:
    """The Arrow type of the `embedding` column.

    Raises:
        UsageError: The dimension is not positive, or the dtype not `float32` or `float16`.
    """
    if dimension < 1 or dtype not in DTYPES:
        raise UsageError(f"dimension {dimension}, dtype {dtype!r}: expected at least 1, and {' or '.join(DTYPES)}")
    item = pa.float32() if dtype == "float32" else pa.float16()
    # Not nullable: Parquet then keeps no levels for it, which reads 1.5 times as fast.
    return pa.list_(pa.field("element", item, nullable=False), dimension)


def vectors_of(column: pa.Array, dimension: int) -> npt.NDArray[Any]:
    """View a list column as a matrix, without a copy where Arrow allows.

    Args:
        column: A list or fixed-size list array of numbers, without nulls.
        dimension: Numbers in each list.

    Returns:
        Shape (rows, dimension), of the column's dtype; may be read-only.

    Raises:
        ValueError: A list is null, has a null in it, or another length.
    """
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"holds {kind}, not lists of float32 or float16")
    if pa.types.is_fixed_size_list(kind):
        if kind.list_size != dimension:
            raise ValueError(f"holds vectors of {kind.list_size} numbers, not {dimension}")
    elif len(column):
        lengths = np.diff(column.offsets.to_numpy())
        wrong = np.flatnonzero(lengths != dimension)
        if column.null_count == 0 and wrong.size:
            raise ValueError(f"row {wrong[0] + 1} is a vector of {lengths[wrong[0]]} numbers, not {dimension}")
    values = column.flatten()
    if column.null_count or values.null_count:
        raise ValueError("holds nulls where numbers are expected")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), dimension)


@contextmanager
def whole_parquet(uri: str, where: str) -> Generator[None]:
    """Turn what pyarrow says of a damaged file into one clear line.

    Raises:
        DataError: The body failed for the file's content.
        StorageError: As the body raised it: the file could not be read.
    """
    try:
        yield
    except StorageError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{uri}: is not a whole Parquet file ({where}: {' '.join(str(error).split())[:200]}); restore it or "
            "run the backfill again"
        ) from error


@contextmanager
def opened_checked(
    uri: str, shard: Shard, what: str = "shard", known: FileInfo | None = None
) -> Generator[tuple[FileInfo, BinaryIO]]:
    """Open a file, after a comparison of its size and checksum with its description.

    The checksum of a gs:// object is in its metadata, and that very version is opened. A local file is streamed once
    through the handle that is then yielded, so that what is read is what was checked, also where the name is given to
    another file meanwhile; the second reading finds it in the page cache.

    Args:
        uri: Where the file is.
        shard: Its description.
        what: What it is called in messages.
        known: What was yielded for it before: its content is not looked at again, while the file is still the same.

    Yields:
        What is known of the file, and a handle at its start.

    Raises:
        DataError: It is missing or differs.
        StorageError: It cannot be read.
    """
    info = known if known is not None and known.crc32c is not None else _stat(uri, what)
    if info.size != shard.bytes:
        raise DataError(
            f"{uri}: the {what} has {info.size} bytes, its manifest says {shard.bytes}; restore it or run the "
            "backfill again"
        )
    with store.open_read(info) as handle:
        if info != known:
            found = info.crc32c
            if found is None:
                found = stream_crc32c(handle)
                handle.seek(0)
            if found != shard.crc32c:
                raise DataError(
                    f"{uri}: the {what}'s crc32c is {found}, its manifest says {shard.crc32c}; restore it or run the "
                    "backfill again"
                )
        yield info, handle


def _stat(uri: str, what: str) -> FileInfo:
    try:
        return store.stat(uri)
    except StorageError:
        if store.exists(uri):
            raise
        raise DataError(f"{uri}: the {what} is missing; restore it or run the backfill again") from None


def check_shard(uri: str, shard: Shard) -> None:
    """Compare a shard's size and checksum with its description.

    Of a gs:// object by its metadata, in one request; a local file is streamed once.

    Raises:
        DataError: It is missing or differs.
        StorageError: It cannot be read.
    """
    with opened_checked(uri, shard):
        pass


def finished_shard(folder: str, name: str, key: str) -> Shard | None:
    """Describe a shard that is there already, whole and written with the same key; else None.

    Reads the footer, and locally the whole file for its checksum.

    Raises:
        StorageError: It cannot be known.
    """
    check_shard_name(name)
    uri = store.join(folder, name)
    if not store.exists(uri):
        return None
    info = store.stat(uri)
    with store.open_read(info) as handle:
        try:
            with pq.ParquetFile(handle) as file:
                metadata = file.metadata
                written = (file.schema_arrow.metadata or {}).get(KEY)
        except StorageError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return None
        if written != key.encode() or metadata.num_rows < 1:
            return None
        checksum = info.crc32c
        if checksum is None:
            handle.seek(0)
            checksum = stream_crc32c(handle)
    return Shard(name, metadata.num_rows, info.size, checksum)


def verify_shard(folder: str, shard: Shard, key: str) -> None:
    """Read a shard back wholly, as a backfill does before it writes the manifest.

    Its size and checksum, its key and number of rows, its columns' types, every id (there, and none twice within
    the shard) and every vector (its length, and finite) are looked at; carried columns are decoded. Memory: two row
    groups, and the shard's ids twice.

    Args:
        folder: The dataset's folder.
        shard: What `write_shard` returned.
        key: What it was written with.

    Raises:
        DataError: Something differs, or is damaged.
        StorageError: It cannot be read.
    """
    uri = store.join(folder, shard.name)
    ids: list[pa.Array] = []
    with (
        opened_checked(uri, shard) as (_, handle),
        whole_parquet(uri, "the footer"),
        pq.ParquetFile(handle) as file,
    ):
        dimension = _dimension(uri, file, shard, key)
        for group in range(file.num_row_groups):
            with whole_parquet(uri, f"row group {group}"):
                table = file.read_row_group(group)
            first = sum(map(len, ids))
            _check_vectors(uri, table, dimension, first)
            column = table.column("id").combine_chunks()
            if column.null_count:
                row = column.is_null().index(True).as_py()
                raise DataError(f"{uri}: column 'id', row {first + row + 1}: the id is null; run the backfill again")
            ids.append(column)
    counts = pc.value_counts(pa.chunked_array(ids))
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        name = twice[0]["values"].as_py()
        raise DataError(f"{uri}: column 'id': {name!r} is there {twice[0]['counts']} times; run the backfill again")


def _dimension(uri: str, file: pq.ParquetFile, shard: Shard, key: str) -> int:
    """Check what the footer says, and return the vectors' length."""
    schema = file.schema_arrow
    written = (schema.metadata or {}).get(KEY)
    if written != key.encode():
        raise DataError(
            f"{uri}: the shard comes from other texts, another model or other settings (its key is "
            f"{'missing' if written is None else repr(written.decode(errors='replace'))}, expected {key!r}); run the "
            "backfill again"
        )
    if file.metadata.num_rows != shard.rows:
        raise DataError(
            f"{uri}: the shard has {file.metadata.num_rows} rows, {shard.rows} were written; run the backfill again"
        )
    names: list[str] = schema.names
    kind = schema.field("embedding").type if names.count("embedding") == 1 else None
    if names.count("id") != 1 or not pa.types.is_string(schema.field("id").type) or kind is None:
        raise DataError(
            f"{uri}: the shard has the columns {', '.join(names)}; expected id (string), embedding and carried ones; "
            "run the backfill again"
        )
    if not pa.types.is_fixed_size_list(kind) or kind.value_type not in (pa.float32(), pa.float16()):
        raise DataError(
            f"{uri}: column 'embedding' holds {kind}, expected fixed-size lists of float32 or float16; run the "
            "backfill again"
        )
    return kind.list_size


def _check_vectors(uri: str, table: pa.Table, dimension: int, first: int) -> None:
    try:
        vectors = vectors_of(pa.concat_arrays(table.column("embedding").chunks), dimension)
    except ValueError as error:
        raise DataError(f"{uri}: column 'embedding', row {first + 1} on: {error}; run the backfill again") from error
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise DataError(
            f"{uri}: column 'embedding', row {first + row + 1} (id {table.column('id')[row].as_py()!r}): the vector "
            "has a NaN or an infinity; check the model and run the backfill again"
        )
