"""Deletion vectors: the rows of an embeddings dataset that readers leave out, in a Parquet file beside the shards.

A shard is never written again to take a row out of it: the manifest names one file of deletion vectors instead.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage.dataset.manifest import Manifest, Shard, check_shard_name
from driftline.components.storage.dataset.shards import opened_checked, whole_parquet
from driftline.components.storage.objects import store

Rows = npt.NDArray[np.int64]

_SCHEMA = pa.schema([pa.field("shard", pa.string(), nullable=False), pa.field("row", pa.int64(), nullable=False)])


def write_deletion_vectors(folder: str, rows: Mapping[str, Rows], *, salt: str = "") -> Shard:
    """Write which rows of which shards to leave out; the manifest's `deletes` is what this returns.

    The file's name, `deletes-<16 hexadecimal digits>.parquet`, comes from the rows and `salt`, so that to write the
    same again changes nothing, and those of a manifest that is there stay as they are. Memory: some 20 bytes a row.

    Args:
        folder: The dataset's folder.
        rows: For each shard's name the rows within it, from 0, int64, in any order; a row that is there twice counts
            once.
        salt: Sets the file apart from that of others who leave out the same rows, so that one can be removed while
            the other is in use.

    Returns:
        The file, with its rows, size and checksum.

    Raises:
        UsageError: A row number is under 0 or no whole number, or there is no row at all.
        DataError: A name is not a plain file name.
        StorageError: It cannot be written.
    """
    sorted_rows = {name: _unique(name, rows[name]) for name in sorted(rows)}
    given = {name: numbers for name, numbers in sorted_rows.items() if numbers.size}
    if not given:
        raise UsageError(f"{folder}: there are no rows to leave out; give the manifest no deletion vectors")
    digest = hashlib.sha256(salt.encode())
    for name, numbers in given.items():
        digest.update(f"{name}\n{len(numbers)}\n".encode())
        digest.update(numbers.astype("<i8").tobytes())
    table = pa.table(
        [
            pa.concat_arrays([pa.repeat(name, len(numbers)) for name, numbers in given.items()]),
            pa.array(np.concatenate(list(given.values()))),
        ],
        schema=_SCHEMA,
    )
    name = f"deletes-{digest.hexdigest()[:16]}.parquet"
    uri = store.join(folder, name)
    if not _is_there(uri, table):
        with store.create(uri) as handle:
            pq.write_table(table, handle, compression="zstd")
    info = store.stat(uri)
    return Shard(name, table.num_rows, info.size, store.crc32c(info))


def _unique(name: str, rows: Rows) -> Rows:
    check_shard_name(name)
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and not np.issubdtype(numbers.dtype, np.integer)):
        raise UsageError(
            f"deletion vectors: shard {name!r}: the rows have shape {numbers.shape} and dtype {numbers.dtype}; give "
            "row numbers, int64"
        )
    if numbers.size and numbers.min() < 0:
        raise UsageError(f"deletion vectors: shard {name!r}: row {numbers.min()} is under 0; give row numbers from 0")
    return np.unique(numbers.astype(np.int64))


def _is_there(uri: str, table: pa.Table) -> bool:
    """Say whether the file holds these rows already: another version of pyarrow may write them in other bytes."""
    if not store.exists(uri):
        return False
    with store.open_read(uri) as handle:
        try:
            return pq.read_table(handle).equals(table)
        except StorageError:
            raise
        except (pa.ArrowException, OSError):
            return False


def read_deletion_vectors(folder: str, manifest: Manifest) -> dict[str, Rows]:
    """Read which rows of a dataset's shards to leave out.

    Memory: 8 bytes a row, thrice that while reading.

    Returns:
        For each shard that has such rows its name and their numbers within it: int64, ascending, none twice.

    Raises:
        DataError: The file is missing or damaged, is not as the manifest says, holds rows out of order or twice, or
            names a shard or a row that the dataset does not have.
        StorageError: It cannot be read.
    """
    if manifest.deletes is None:
        return {}
    uri = store.join(folder, manifest.deletes.name)
    with (
        opened_checked(uri, manifest.deletes, "deletion vectors file") as (_, handle),
        whole_parquet(uri, "the deletion vectors"),
        pq.ParquetFile(handle) as file,
    ):
        schema = file.schema_arrow.remove_metadata()
        if schema.names != _SCHEMA.names or schema.types != _SCHEMA.types:
            _refuse(uri, f"the columns are {_columns(schema)}, expected {_columns(_SCHEMA)}")
        table = file.read()
    if table.num_rows != manifest.deletes.rows:
        _refuse(uri, f"there are {table.num_rows} rows, the manifest says {manifest.deletes.rows}")
    if any(column.null_count for column in table.columns):
        _refuse(uri, "a shard or a row is null")
    codes = pc.dictionary_encode(table.column("shard").combine_chunks())
    rows: Rows = table.column("row").to_numpy()
    known = {shard.name: shard.rows for shard in manifest.shards}
    names: list[str] = codes.dictionary.to_pylist()
    starts = [0, *(np.flatnonzero(np.diff(codes.indices.to_numpy())) + 1).tolist(), len(rows)]
    if len(starts) != len(names) + 1 or names != sorted(names):
        _refuse(uri, "the shards' names are not sorted")
    found: dict[str, Rows] = {}
    for name, start, stop in zip(names, starts, starts[1:], strict=False):
        numbers = rows[start:stop]
        if name not in known:
            _refuse(uri, f"shard {name!r} is not one of the dataset's")
        if (np.diff(numbers) <= 0).any():
            _refuse(uri, f"the rows of shard {name!r} are not ascending, or one is there twice")
        if numbers[0] < 0 or numbers[-1] >= known[name]:
            row = numbers[0] if numbers[0] < 0 else numbers[-1]
            _refuse(uri, f"row {row} of shard {name!r} is not there, it has {known[name]}")
        found[name] = numbers
    return found


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _refuse(uri: str, why: str) -> NoReturn:
    raise DataError(f"{uri}: {why}; restore it or run the backfill again")
