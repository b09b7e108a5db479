"""Writes the shards of an embeddings dataset: atomically, and the same bytes for the same rows."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage import store
from driftline.components.storage.checksum import stream_crc32c
from driftline.components.storage.manifest import (
    DTYPES,
    MANIFEST_NAME,
    Manifest,
    Shard,
    check_shard_name,
)

_KEY = b"driftline.key"


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


def write_shard(
    folder: str,
    name: str,
    batches: Iterable[pa.RecordBatch],
    *,
    dimension: int,
    dtype: str,
    key: str,
    row_group_rows: int = 4096,
) -> Shard:
    """Write one shard; it becomes visible whole, or not at all.

    The bytes depend on the rows, the schema and the settings alone, not on how the rows are cut into batches:
    to write a shard again changes nothing. Embeddings are split by byte and compressed by zstd (without loss:
    a sixth smaller than plain, and read as fast). Memory: one row group and one batch.

    Args:
        folder: The dataset's folder.
        name: The shard's file name.
        batches: Columns `id` (string), `embedding` (lists of float32 or float16) and the carried ones; all
            batches of one schema.
        dimension: Numbers in a vector.
        dtype: `float32` or `float16`: what is stored; wider numbers are rounded.
        key: Identifies the texts, the model and the settings that the shard comes from, for `finished_shard`.
        row_group_rows: Rows in a row group: what a reader reads at once.

    Returns:
        The shard, with its rows, size and checksum.

    Raises:
        DataError: A vector has a NaN or an infinity, or the wrong length; an id is null; there are no rows.
        UsageError: A setting is out of range.
        StorageError: The shard cannot be written.
    """
    check_shard_name(name)
    kind = embedding_type(dimension, dtype)
    if row_group_rows < 1:
        raise UsageError(f"row_group_rows is {row_group_rows}; give at least 1")
    uri = store.join(folder, name)
    incoming = iter(batches)
    first = next(incoming, None)
    if first is None:
        raise DataError(f"{uri}: there are no rows to write; give a shard at least one")
    schema = _shard_schema(uri, first.schema, kind, key)
    settings: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": [field.name for field in schema if field.name not in ("id", "embedding")],
        "column_encoding": {"embedding.list.element": "BYTE_STREAM_SPLIT"},
    }
    rows = 0
    with store.create(uri) as handle:
        with pq.ParquetWriter(handle, schema, **settings) as writer:
            for table in _row_groups(uri, _chain(first, incoming), schema, row_group_rows):
                writer.write_table(_checked(uri, table, rows, dimension, schema), row_group_size=row_group_rows)
                rows += table.num_rows
        if not rows:
            raise DataError(f"{uri}: there are no rows to write; give a shard at least one")
    info = store.stat(uri)
    return Shard(name, rows, info.size, store.crc32c(info))


def _shard_schema(uri: str, given: pa.Schema, kind: pa.DataType, key: str) -> pa.Schema:
    names: list[str] = given.names
    if len(set(names)) != len(names) or not {"id", "embedding"} <= set(names):
        raise DataError(
            f"{uri}: the batches have the columns {', '.join(names)}; expected id, embedding and carried ones, "
            "each once"
        )
    if not pa.types.is_string(given.field("id").type):
        raise DataError(f"{uri}: column 'id' holds {given.field('id').type}; expected string")
    carried = [field.remove_metadata() for field in given if field.name not in ("id", "embedding")]
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("embedding", kind, nullable=False),
            *carried,
        ],
        metadata={_KEY: key.encode()},
    )


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _row_groups(uri: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Cut the batches anew, into tables of exactly `rows` rows; the last may be shorter."""
    held: list[pa.RecordBatch] = []
    count = 0
    names: list[str] = schema.names
    for batch in batches:
        if set(batch.schema.names) != set(names):
            raise DataError(
                f"{uri}: a batch has the columns {', '.join(batch.schema.names)} where the first has "
                f"{', '.join(names)}; give all batches the same columns"
            )
        held.append(batch.select(names))
        count += batch.num_rows
        while count >= rows:
            table = _table(uri, held)
            yield table.slice(0, rows)
            held = table.slice(rows).to_batches()
            count -= rows
    if count:
        yield _table(uri, held)


def _table(uri: str, batches: list[pa.RecordBatch]) -> pa.Table:
    try:
        return pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches])
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{uri}: the batches differ in their columns' types ({' '.join(str(error).split())[:200]}); give all "
            "batches the same types"
        ) from error


def _checked(uri: str, table: pa.Table, first: int, dimension: int, schema: pa.Schema) -> pa.Table:
    """Check a row group, and bring it into the shard's types, each column in one chunk."""
    ids = table.column("id")
    if ids.null_count:
        row = int(ids.is_null().to_pylist().index(True))
        raise DataError(f"{uri}: column 'id', row {first + row + 1}: the id is null; give every row an id")
    column = pa.concat_arrays(table.column("embedding").chunks)
    try:
        given = vectors_of(column, dimension)
    except ValueError as error:
        raise DataError(
            f"{uri}: column 'embedding', rows {first + 1} to {first + table.num_rows}: {error}; give one vector "
            f"of {dimension} numbers a row"
        ) from error
    kind = schema.field("embedding").type
    # Too large a number becomes infinite in float16: refused below.
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(given, dtype=kind.value_type.to_pandas_dtype())
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise DataError(
            f"{uri}: column 'embedding', row {first + row + 1} (id {ids[row].as_py()!r}): the vector has a NaN or "
            f"an infinity as {kind.value_type}; check the model and its precision"
        )
    arrays = {name: pa.concat_arrays(table.column(name).chunks) for name in table.column_names if name != "embedding"}
    arrays["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind)
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


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
    with store.open_read(uri) as handle:
        try:
            with pq.ParquetFile(handle) as file:
                metadata = file.metadata
                written = (file.schema_arrow.metadata or {}).get(_KEY)
        except StorageError:
            raise
        except (pa.ArrowException, OSError):
            return None
        if written != key.encode() or metadata.num_rows < 1:
            return None
        checksum = info.crc32c
        if checksum is None:
            handle.seek(0)
            checksum = stream_crc32c(handle)
    return Shard(name, metadata.num_rows, info.size, checksum)


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write a dataset's manifest, after a look at every shard: from here on the dataset is there.

    Raises:
        DataError: A shard is missing, or has another size or checksum than the manifest says.
        StorageError: The manifest cannot be written, or a shard not be looked at.
    """
    for shard in manifest.shards:
        check_shard(store.join(folder, shard.name), shard)
    store.write_json(store.join(folder, MANIFEST_NAME), manifest.to_json())


def check_shard(uri: str, shard: Shard) -> None:
    """Compare a shard's size and checksum with its description.

    Of a gs:// object by its metadata; a local file is streamed once.

    Raises:
        DataError: It is missing or differs.
        StorageError: It cannot be looked at.
    """
    if not store.exists(uri):
        raise DataError(f"{uri}: the shard is missing; restore it or run the backfill again")
    info = store.stat(uri)
    if info.size != shard.bytes:
        raise DataError(
            f"{uri}: the shard has {info.size} bytes, its manifest says {shard.bytes}; restore it or run the "
            "backfill again"
        )
    found = store.crc32c(info)
    if found != shard.crc32c:
        raise DataError(
            f"{uri}: the shard's crc32c is {found}, its manifest says {shard.crc32c}; restore it or run the "
            "backfill again"
        )
