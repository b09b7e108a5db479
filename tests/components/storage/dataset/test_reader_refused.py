"""Datasets and shards that are not right: each is refused with one line."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects import store


def batch(rows: int = 5, dimension: int = 2, **columns: Any) -> pa.RecordBatch:
    vectors = np.arange(rows * dimension, dtype=np.float32).reshape(rows, dimension)
    given = {
        "id": pa.array([f"r{i}" for i in range(rows)]),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
        "n": pa.array(range(rows)),
        **columns,
    }
    return pa.RecordBatch.from_pydict({name: column for name, column in given.items() if column is not None})


def written(folder: str, name: str = "a.parquet", **columns: Any) -> Shard:
    return write_shard(folder, name, [batch(**columns)], dimension=2, dtype="float32", key="k")


def manifest_of(*shards: Shard, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "model": "m",
        "revision": "r",
        "dimension": 2,
        "normalized": True,
        "dtype": "float32",
        "columns": ("n",),
    }
    return Manifest(**{**values, **changes, "shards": shards})


@pytest.fixture
def dataset(place: str) -> str:
    write_manifest(place, manifest_of(written(place), written(place, "b.parquet")))
    return place


def read(folder: str) -> None:
    dataset = EmbeddingsDataset.open(folder)
    for _ in dataset.batches(("id", "embedding", *dataset.manifest.columns)):
        pass


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(DataError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"embedding": pa.array([[1.0, NAN]] * 5, pa.list_(pa.float32()))}, ["row 1 (id 'r0')", "NaN"]),
        ({"embedding": pa.array([[1.0, 2.0]] * 4 + [[INF, 0]], pa.list_(pa.float32(), 2))}, ["row 5 (id 'r4')"]),
        ({"embedding": pa.array([[1.0, 2.0, 3.0]] * 5, pa.list_(pa.float32(), 3))}, ["3 numbers, not 2"]),
        ({"embedding": pa.array([[1.0, 2.0], [1.0]] + [[1.0, 2.0]] * 3)}, ["row 2", "1 numbers, not 2"]),
        ({"embedding": pa.array([None] + [[1.0, 2.0]] * 4, pa.list_(pa.float32(), 2))}, ["nulls"]),
        ({"embedding": pa.array([[None, 1.0]] * 5, pa.list_(pa.float32(), 2))}, ["nulls"]),
        ({"embedding": pa.array([[1, 2]] * 5)}, ["list<", "not lists of float32"]),
        ({"embedding": pa.array(["x"] * 5)}, ["string", "not lists"]),
        ({"id": pa.array(["a", None, "c", "d", "e"])}, ["'id', row 2", "null"]),
        ({"id": pa.array(range(5))}, ["'id'", "int64", "expected string"]),
        ({"id": None}, ["the columns embedding, n", "expected id"]),
        ({"embedding": None}, ["the columns id, n", "expected id"]),
    ],
)
def test_shards_that_are_not_written(place: str, columns: dict[str, Any], parts: list[str]) -> None:
    refused(lambda: written(place, **columns), "a.parquet", *parts)
    assert store.list_files(place) == []


def test_numbers_too_large_for_float16(place: str) -> None:
    large = batch(embedding=pa.array([[1.0, 70000.0]] * 5, pa.list_(pa.float32(), 2)))
    refused(
        lambda: write_shard(place, "a.parquet", [large], dimension=2, dtype="float16", key="k"), "row 1", "halffloat"
    )
    assert store.list_files(place) == []


@pytest.mark.parametrize("batches", [[], [batch().slice(5)], [batch().slice(0, 0), batch().slice(2, 0)]])
def test_a_shard_without_rows_is_not_written(place: str, batches: list[pa.RecordBatch]) -> None:
    refused(
        lambda: write_shard(place, "a.parquet", batches, dimension=2, dtype="float32", key="k"), "there are no rows"
    )
    assert store.list_files(place) == []


def test_batches_that_differ(place: str) -> None:
    for other in (batch(n=None), batch(n=pa.array(["x"] * 5))):
        refused(
            lambda other=other: write_shard(
                place, "a.parquet", [batch(), other], dimension=2, dtype="float32", key="k"
            ),
            "a.parquet",
            "give all batches the same",
        )
    assert store.list_files(place) == []


def test_shard_settings_that_cannot_be(place: str) -> None:
    for settings in ({"dimension": 0}, {"dtype": "float64"}, {"row_group_rows": 0}):
        with pytest.raises(UsageError):
            write_shard(place, "a.parquet", [batch()], **{"dimension": 2, "dtype": "float32", "key": "k", **settings})
    for name in ("", "../a", "a/b", ".a"):
        refused(lambda name=name: written(place, name), "shard name")


def test_an_error_in_the_rows_leaves_no_shard(place: str) -> None:
    def rows() -> Any:
        yield batch()
        raise RuntimeError("the encoder broke")

    with pytest.raises(RuntimeError, match="the encoder broke"):
        write_shard(place, "a.parquet", rows(), dimension=2, dtype="float32", key="k", row_group_rows=2)
    assert store.list_files(place) == []


def test_the_manifest_is_written_last_and_only_over_whole_shards(place: str) -> None:
    shard = written(place)
    for wrong, what in (
        (Shard("b.parquet", 5, shard.bytes, shard.crc32c), "the shard is missing"),
        (Shard("a.parquet", 5, shard.bytes + 1, shard.crc32c), "bytes, its manifest says"),
        (Shard("a.parquet", 5, shard.bytes, "AAAAAA=="), "crc32c is"),
    ):
        refused(lambda wrong=wrong: write_manifest(place, manifest_of(wrong)), wrong.name, what)
    refused(lambda: read(place), place, "no manifest.json", "run the backfill to its end")


def test_a_shard_that_is_missing(dataset: str) -> None:
    store.remove(store.join(dataset, "b.parquet"))
    refused(lambda: read(dataset), "b.parquet", "is missing", "restore it or run the backfill again")


def test_a_shard_of_another_size(dataset: str) -> None:
    uri = store.join(dataset, "b.parquet")
    store.write_bytes(uri, store.read_bytes(uri)[:-1])
    refused(lambda: read(dataset), "b.parquet", "bytes, its manifest says", "restore it")


def test_a_shard_of_another_content(dataset: str) -> None:
    uri = store.join(dataset, "b.parquet")
    content = bytearray(store.read_bytes(uri))
    content[60] ^= 1
    store.write_bytes(uri, bytes(content))
    refused(lambda: read(dataset), "b.parquet", "crc32c is", "restore it")


def raw_shard(folder: str, table: pa.Table, rows: int | None = None, **manifest: Any) -> None:
    """A dataset whose manifest agrees with the shard's bytes, whatever they are."""
    uri = store.join(folder, "a.parquet")
    with store.create(uri) as handle:
        pq.write_table(table, handle)
    info = store.stat(uri)
    shard = Shard("a.parquet", table.num_rows if rows is None else rows, info.size, store.crc32c(info))
    write_manifest(folder, manifest_of(shard, **manifest))


TABLE = pa.Table.from_batches([batch()])
NANS = pa.array([[1.0, 2.0]] * 3 + [[NAN, 1.0], [1.0, 2.0]], pa.list_(pa.float32(), 2))
NULLS = pa.array([[1.0, 2.0]] * 4 + [None], pa.list_(pa.float32(), 2))
LISTS = pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float32()))
DOUBLES = pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float64(), 2))


@pytest.mark.parametrize(
    ("table", "manifest", "parts"),
    [
        (TABLE, {"rows": 6}, ["5 rows, its manifest says 6"]),
        (TABLE, {"columns": ()}, ["columns id, embedding, n, its manifest says id, embedding"]),
        (TABLE, {"columns": ("m",)}, ["its manifest says id, embedding, m"]),
        (TABLE, {"dimension": 3}, ["its manifest says dimension 3"]),
        (TABLE, {"dtype": "float16"}, ["holds float32, its manifest says float16"]),
        (TABLE.set_column(1, "embedding", LISTS), {}, ["its manifest says dimension 2"]),
        (TABLE.set_column(1, "embedding", DOUBLES), {}, ["holds double, its manifest says float32"]),
        (TABLE.set_column(1, "embedding", NANS), {}, ["row 4 (id 'r3')", "NaN"]),
        (TABLE.set_column(1, "embedding", NULLS), {}, ["nulls"]),
    ],
)
def test_a_shard_that_is_not_as_the_manifest_says(
    tmp_path: Path, table: pa.Table, manifest: dict[str, Any], parts: list[str]
) -> None:
    raw_shard(str(tmp_path), table, **manifest)
    refused(lambda: read(str(tmp_path)), "a.parquet", "again", *parts)


def test_a_shard_that_is_no_parquet(tmp_path: Path) -> None:
    for content in (b"not parquet", Path(__file__).read_bytes()):
        (tmp_path / "a.parquet").write_bytes(content)
        info = store.stat(str(tmp_path / "a.parquet"))
        write_manifest(str(tmp_path), manifest_of(Shard("a.parquet", 5, info.size, store.crc32c(info))))
        refused(lambda: read(str(tmp_path)), "a.parquet", "not a whole Parquet file")


def test_shards_of_different_types(tmp_path: Path) -> None:
    first = written(str(tmp_path))
    second = written(str(tmp_path), "b.parquet", n=pa.array(["x"] * 5))
    write_manifest(str(tmp_path), manifest_of(first, second))
    refused(lambda: read(str(tmp_path)), "b.parquet", "column 'n' holds string, an earlier shard holds int64")


SHARD = Shard("a.parquet", 5, 100, "AAAAAA==")
GOOD = manifest_of(SHARD).to_json()
DELETES = {"name": "d.parquet", "rows": 2, "bytes": 1, "crc32c": "x"}


def test_a_manifest_comes_back() -> None:
    manifest = manifest_of(SHARD, Shard("b.parquet", 2, 1, "x"))
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    assert again == manifest
    assert again.rows == 7
    assert again.digest == manifest.digest
    assert manifest.digest.startswith("sha256:")
    assert len(manifest.digest) == len("sha256:") + 64
    assert manifest_of(SHARD).digest != manifest.digest
    assert manifest_of(SHARD, revision="ü").digest != manifest_of(SHARD, revision="u").digest


def test_a_manifest_with_vectors_comes_back() -> None:
    whole = manifest_of(SHARD)
    manifest = replace(whole, deletes=Shard(**DELETES))
    assert (manifest.rows, manifest.stored_rows) == (3, 5)
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    assert manifest.digest != whole.digest
    others = replace(manifest, deletes=Shard(**{**DELETES, "crc32c": "y"}))
    assert others.digest != manifest.digest
    assert replace(whole, deletes=Shard(**{**DELETES, "rows": 5})).rows == 0


def test_a_manifest_of_version_1_is_read_and_keeps_its_identity() -> None:
    first = {key: value for key, value in GOOD.items() if key != "deletes"} | {"version": 1}
    manifest = Manifest.from_json(first)
    assert manifest == manifest_of(SHARD)
    assert manifest.deletes is None
    canonical = json.dumps(first, sort_keys=True, separators=(",", ":"))
    assert manifest.digest == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"format": "other"}, "the format is 'other'"),
        ({"version": 3}, "version 3 cannot be read, this Driftline reads versions 1 and 2"),
        ({"version": 1}, "unknown keys: deletes"),
        ({"version": "1"}, "version '1' cannot be read"),
        ({"model": None}, "'model' is null, expected str"),
        ({"dimension": 2.0}, "'dimension' is 2.0, expected int"),
        ({"dimension": True}, "'dimension' is true, expected int"),
        ({"dimension": 0}, "the dimension is 0"),
        ({"normalized": 1}, "'normalized' is 1, expected bool"),
        ({"dtype": "float64"}, "the dtype is 'float64'"),
        ({"rows": 6}, "6 rows are stated, the shards have 5"),
        ({"columns": [1]}, "column 1 is not a name"),
        ({"columns": ["n", "n"]}, "there twice"),
        ({"columns": ["id"]}, "there twice"),
        ({"shards": []}, "at least one shard"),
        ({"shards": GOOD["shards"] * 2}, "named once"),
        ({"shards": [5]}, "shard 0 is not an object"),
        ({"shards": [{**GOOD["shards"][0], "rows": 0}]}, "0 rows"),
        ({"shards": [{**GOOD["shards"][0], "name": "../../a"}]}, "plain file name"),
        ({"shards": [{"name": "a"}]}, "missing keys: bytes, crc32c, rows"),
        ({"more": 1}, "unknown keys: more"),
        ({"deletes": []}, "'deletes' is [], expected dict or null"),
        ({"deletes": {"name": "d"}}, "the deletion vectors: missing keys: bytes, crc32c, rows"),
        ({"deletes": DELETES}, "5 rows are stated, the shards have 5, less the 2 deleted"),
        ({"deletes": {**DELETES, "rows": 6}, "rows": 0}, "6 rows are to be left out, the shards have 5"),
        ({"deletes": {**DELETES, "rows": 0}}, "0 rows"),
        ({"deletes": {**DELETES, "name": "a.parquet"}, "rows": 3}, "'a.parquet' is a shard and the deletion vectors"),
        ({"deletes": {**DELETES, "name": "../d"}, "rows": 3}, "plain file name"),
    ],
)
def test_manifests_that_are_refused(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    value = {**copy.deepcopy(GOOD), **change}
    refused(lambda: Manifest.from_json(value), part)
    store.write_json(str(tmp_path / "manifest.json"), value)
    refused(lambda: EmbeddingsDataset.open(str(tmp_path)), "manifest.json", part)


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_manifests_with_a_missing_key(missing: str) -> None:
    refused(lambda: Manifest.from_json({key: value for key, value in GOOD.items() if key != missing}), missing)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"\xff"])
def test_a_manifest_that_is_no_json_object(place: str, content: bytes) -> None:
    store.write_bytes(store.join(place, "manifest.json"), content)
    refused(lambda: EmbeddingsDataset.open(place), "manifest.json", "is not")


def test_no_dataset(place: str) -> None:
    refused(lambda: EmbeddingsDataset.open(place), place, "no manifest.json", "run the backfill")
