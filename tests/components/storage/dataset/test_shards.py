"""A shard read back: right, or refused with what is wrong; and written only where it may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.components.errors import DataError, StorageConflict
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.dataset.shards import finished_shard, verify_shard
from driftline.components.storage.dataset.writer import write_shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import ANY, Over

NAN = float("nan")


def batch(**columns: Any) -> pa.RecordBatch:
    vectors = np.arange(20, dtype=np.float32)
    given = {
        "id": pa.array([f"r{row}" for row in range(10)]),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 2),
        "n": pa.array(range(10)),
        **columns,
    }
    return pa.RecordBatch.from_pydict({name: column for name, column in given.items() if column is not None})


def written(folder: str, dtype: str = "float32") -> Shard:
    return write_shard(folder, "a.parquet", [batch()], dimension=2, dtype=dtype, key="k", row_group_rows=4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_shard_that_is_right(place: str, dtype: str) -> None:
    verify_shard(place, written(place, dtype), "k")


def test_a_shard_that_is_another(place: str) -> None:
    shard = written(place)
    for other, key, part in (
        (shard, "l", "comes from other texts, another model or other settings (its key is 'k', expected 'l')"),
        (replace(shard, rows=11), "k", "the shard has 10 rows, 11 were written"),
        (replace(shard, bytes=1), "k", "its manifest says 1"),
        (replace(shard, crc32c="AAAAAA=="), "k", "crc32c is"),
        (replace(shard, name="b.parquet"), "k", "the shard is missing"),
    ):
        with pytest.raises(DataError) as error:
            verify_shard(place, other, key)
        assert part in str(error.value)


def raw(folder: Path, key: str | None = "k", **columns: Any) -> Shard:
    """A shard that its description fits, whatever is in it."""
    path = str(folder / "a.parquet")
    table = pa.Table.from_batches([batch(**columns)])
    if key is not None:
        table = table.replace_schema_metadata({"driftline.key": key})
    pq.write_table(table, path, row_group_size=4)
    info = store.stat(path)
    return Shard("a.parquet", 10, info.size, store.crc32c(info))


def ids(*changes: tuple[int, str | None]) -> pa.Array:
    names: list[str | None] = [f"r{row}" for row in range(10)]
    for row, name in changes:
        names[row] = name
    return pa.array(names)


def vectors(row: int, vector: list[float | None] | None, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([[1.0, 2.0]] * row + [vector] + [[1.0, 2.0]] * (9 - row), kind or pa.list_(pa.float32(), 2))


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        # In one row group, and in two.
        ({"id": ids((1, "r0"))}, ["column 'id': 'r0' is there 2 times"]),
        ({"id": ids((8, "r0"), (9, "r0"))}, ["column 'id': 'r0' is there 3 times"]),
        ({"id": ids((6, None))}, ["column 'id', row 7: the id is null"]),
        ({"id": pa.array(range(10))}, ["expected id (string)"]),
        ({"id": None}, ["the columns embedding, n; expected id"]),
        ({"embedding": None}, ["the columns id, n; expected id"]),
        ({"embedding": vectors(5, [1.0, NAN])}, ["column 'embedding', row 6 (id 'r5')", "NaN"]),
        ({"embedding": vectors(0, [float("inf"), 1.0])}, ["row 1 (id 'r0')", "infinity"]),
        ({"embedding": vectors(8, None)}, ["row 9 on", "nulls"]),
        ({"embedding": vectors(4, [None, 1.0])}, ["row 5 on", "nulls"]),
        ({"embedding": vectors(0, [1.0, 2.0], pa.list_(pa.float64(), 2))}, ["holds fixed_size_list", "expected fixed"]),
        ({"embedding": vectors(0, [1.0], pa.list_(pa.float32()))}, ["holds list", "expected fixed"]),
        ({"key": None}, ["its key is missing, expected 'k'"]),
    ],
)
def test_a_shard_that_is_wrong_inside(tmp_path: Path, columns: dict[str, Any], parts: list[str]) -> None:
    shard = raw(tmp_path, **columns)
    with pytest.raises(DataError) as error:
        verify_shard(str(tmp_path), shard, "k")
    message = str(error.value)
    assert "\n" not in message
    for part in ("a.parquet", "again", *parts):
        assert part in message


def test_every_byte_of_a_shard_is_verified(tmp_path: Path) -> None:
    shard = written(str(tmp_path))
    path = tmp_path / "a.parquet"
    content = path.read_bytes()
    for at in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[at] ^= 0x40
        path.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match="crc32c"):
            verify_shard(str(tmp_path), shard, "k")
        # Were the description of these bytes, what is read of them may be right, or is refused.
        again = replace(shard, crc32c=store.crc32c(str(path)))
        assert verdict(str(tmp_path), again) in ("right", "refused")


def verdict(folder: str, shard: Shard) -> str:
    try:
        verify_shard(folder, shard, "k")
    except DataError:
        return "refused"
    return "right"


def test_a_shard_is_written_over_what_it_may_alone(place: str) -> None:
    uri = store.join(place, "a.parquet")

    def write(key: str, over: Over) -> Shard:
        return write_shard(place, "a.parquet", [batch()], dimension=2, dtype="float32", key=key, over=over)

    write("first", None)
    first = store.stat(uri)
    with pytest.raises(StorageConflict):
        write("second", None)
    assert finished_shard(place, "a.parquet", "first") is not None
    second = write("second", first)
    with pytest.raises(StorageConflict):
        write("third", first)
    verify_shard(place, second, "second")
    verify_shard(place, write("third", ANY), "third")
