"""Writes the shards of an embeddings dataset: atomically, and the same bytes for the same rows."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.dataset.deletion_vectors import read_deletion_vectors
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, Manifest, Shard, check_shard_name
from driftline.components.storage.dataset.shards import (
    KEY,
    check_shard,
    embedding_type,
    finished_shard,
    vectors_of,
    verify_shard,
)
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import ANY, FileInfo, Over
from driftline.components.storage.objects.owned_object import OwnedObject, Replacement

__all__ = ["finished_shard", "verify_shard", "write_manifest", "write_shard"]


def write_shard(
    folder: str,
    name: str,
    batches: Iterable[pa.RecordBatch],
    *,
    dimension: int,
    dtype: str,
    key: str,
    row_group_rows: int = 4096,
    over: Over = ANY,
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
        over: What may be there already, and is replaced: anything, nothing (None), or that very version of a file.

    Returns:
        The shard, with its rows, size and checksum.

    Raises:
        DataError: A vector has a NaN or an infinity, or the wrong length; an id is null; there are no rows.
        UsageError: A setting is out of range.
        StorageConflict: Something else is there than `over` allows; it stays.
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
    with store.create(uri, over=over) as handle:
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
        metadata={KEY: key.encode()},
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


def replace_manifest(folder: str, manifest: Manifest, seen: FileInfo) -> Replacement:
    """Write a dataset's manifest over the one that was seen, after a look at every shard and the deletion vectors.

    Raises:
        DataError: As of `write_manifest`.
        StorageError: It is not known whether the manifest was written, or a shard cannot be looked at.
    """
    _check_files(folder, manifest)
    place = OwnedObject(store.join(folder, MANIFEST_NAME), seen)
    return place.replace(store.json_bytes(place.uri, manifest.to_json()))


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write a dataset's manifest, after a look at every shard and the deletion vectors: now it is complete.

    Args:
        folder: The dataset's folder.
        manifest: What is in it.

    Raises:
        DataError: A shard is missing, or has another size or checksum than the manifest says, or the deletion vectors
            name what is not there.
        StorageError: The manifest cannot be written, or a shard not be looked at.
    """
    _check_files(folder, manifest)
    store.write_json(store.join(folder, MANIFEST_NAME), manifest.to_json())


def _check_files(folder: str, manifest: Manifest) -> None:
    for shard in manifest.shards:
        check_shard(store.join(folder, shard.name), shard)
    read_deletion_vectors(folder, manifest)
