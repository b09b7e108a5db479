"""Rows that are deleted: readers see the dataset without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.drift_settings import DriftSettings
from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.sampling.identity import Run
from driftline.components.sampling.pooled import pair
from driftline.components.storage.dataset.deletion_vectors import write_deletion_vectors
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects import store

Rows = npt.NDArray[np.int64]


def rows_of(*rows: int) -> Rows:
    return np.array(rows, np.int64)


def vectors_of(rows: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)


def write_dataset(folder: str, shard_rows: list[int], row_group_rows: int = 4096) -> Manifest:
    """A dataset of vectors_of(all rows), the id of each being its place in it; without its manifest."""
    vectors = vectors_of(sum(shard_rows))
    shards: list[Shard] = []
    first = 0
    for number, rows in enumerate(shard_rows):
        part = vectors[first : first + rows]
        batch = pa.record_batch(
            {
                "id": pa.array([str(first + row) for row in range(rows)]),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), 3),
            }
        )
        name = f"part-{number:05}.parquet"
        shards.append(
            write_shard(folder, name, [batch], dimension=3, dtype="float32", key="k", row_group_rows=row_group_rows)
        )
        first += rows
    return Manifest("m", "r", 3, False, "float32", (), tuple(shards))


def without(folder: str, manifest: Manifest, deleted: dict[str, Rows]) -> EmbeddingsDataset:
    write_manifest(folder, replace(manifest, deletes=write_deletion_vectors(folder, deleted)))
    return EmbeddingsDataset.open(folder)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_deletes_give_the_dataset_without_those_rows(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shard_rows = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    total = sum(shard_rows)
    gone = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=1)))
    starts = np.cumsum([0, *shard_rows])
    deleted = {
        f"part-{number:05}.parquet": np.array([row - start for row in gone if start <= row < stop], np.int64)
        for number, (start, stop) in enumerate(zip(starts.tolist(), starts[1:].tolist(), strict=False))
    }
    folder = str(tmp_path_factory.mktemp("dataset"))
    manifest = write_dataset(folder, shard_rows, data.draw(st.integers(1, 25)))
    dataset = without(folder, manifest, deleted)

    live = [row for row in range(total) if row not in gone]
    assert (dataset.rows, dataset.manifest.stored_rows) == (len(live), total)
    wanted = data.draw(st.none() | st.sets(st.integers(0, max(0, len(live) - 1)), max_size=len(live)).map(sorted))
    batch_rows = data.draw(st.integers(1, 50))
    rows = None if wanted is None else np.array(wanted, np.int64)
    batches = list(dataset.batches(rows=rows, batch_rows=batch_rows))
    expected = list(range(len(live))) if wanted is None else wanted
    assert [row for batch in batches for row in batch.rows.tolist()] == expected
    assert [name for batch in batches for name in batch.ids] == [str(live[row]) for row in expected]
    vectors = vectors_of(total)
    for batch in batches:
        np.testing.assert_array_equal(batch.embeddings, vectors[[live[row] for row in batch.rows]])
    assert all(len(batch.rows) == batch_rows for batch in batches[:-1])
    asked = data.draw(st.lists(st.integers(0, len(live) - 1), max_size=8)) if live else []
    assert dataset.take(asked, ["id"]).column("id").to_pylist() == [str(live[row]) for row in asked]


def test_deletes_are_kept_in_either_store(place: str) -> None:
    manifest = write_dataset(place, [4, 3])
    deletes = write_deletion_vectors(place, {"part-00001.parquet": rows_of(2, 0), "part-00000.parquet": rows_of(3, 3)})
    assert deletes.rows == 3
    with store.open_read(store.join(place, deletes.name)) as handle:
        table = pq.read_table(handle)
    assert table.to_pydict() == {
        "shard": ["part-00000.parquet", "part-00001.parquet", "part-00001.parquet"],
        "row": [3, 0, 2],
    }
    write_manifest(place, replace(manifest, deletes=deletes))
    dataset = EmbeddingsDataset.open(place)
    assert dataset.manifest.deletes == deletes
    assert [name for batch in dataset.batches() for name in batch.ids] == ["0", "1", "2", "5"]


def test_the_same_deletes_are_one_file_however_they_are_given(place: str) -> None:
    first = write_deletion_vectors(place, {"b": rows_of(1, 5), "a": rows_of(2), "c": rows_of()})
    before = store.stat(store.join(place, first.name))
    again = write_deletion_vectors(place, {"a": np.array([2], np.int32), "b": rows_of(5, 1, 5)})
    assert again == first
    # Not even written again: the manifest that names it may hold the checksum of another writer's bytes.
    assert store.stat(store.join(place, first.name)) == before
    others = [
        write_deletion_vectors(place, given)
        for given in (
            {"a": rows_of(2), "b": rows_of(1)},
            {"a": rows_of(2, 5), "b": rows_of(1)},
            {"a2": rows_of(5), "b": rows_of(1)},
        )
    ]
    assert len({first.name, *(other.name for other in others)}) == 4
    store.write_bytes(store.join(place, first.name), b"damaged")
    assert write_deletion_vectors(place, {"a": rows_of(2), "b": rows_of(1, 5)}) == first


@pytest.mark.parametrize(
    ("rows", "error", "part"),
    [
        ({}, UsageError, "no rows to leave out"),
        ({"a": rows_of()}, UsageError, "no rows to leave out"),
        ({"a": rows_of(-1)}, UsageError, "'a': row -1 is under 0"),
        ({"a": np.array([0.5])}, UsageError, "float64"),
        ({"a": np.array([[1]])}, UsageError, "shape (1, 1)"),
        ({"../a": rows_of(1)}, DataError, "plain file name"),
    ],
)
def test_deletes_that_are_not_written(tmp_path: Path, rows: dict[str, Any], error: type[Exception], part: str) -> None:
    with pytest.raises(error) as raised:
        write_deletion_vectors(str(tmp_path), rows)
    assert part in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_without_a_row_left_is_not_opened(tmp_path: Path) -> None:
    manifest = write_dataset(str(tmp_path), [2, 3, 2])
    dataset = without(str(tmp_path), manifest, {"part-00001.parquet": rows_of(0, 1, 2)})
    (tmp_path / "part-00001.parquet").unlink()
    (batch,) = dataset.batches()
    assert batch.ids == ["0", "1", "5", "6"]


def test_a_dataset_without_a_row_left(tmp_path: Path) -> None:
    manifest = write_dataset(str(tmp_path), [2, 1])
    gone = {"part-00000.parquet": rows_of(0, 1), "part-00001.parquet": rows_of(0)}
    dataset = without(str(tmp_path), manifest, gone)
    assert dataset.rows == 0
    assert list(dataset.batches()) == []
    assert dataset.take([], ["id"]).num_rows == 0
    with pytest.raises(UsageError, match="the dataset has no rows"):
        dataset.take([0], ["id"])


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(DataError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith("restore it or run the backfill again")
    for part in parts:
        assert part in message


def read(folder: str) -> None:
    for _ in EmbeddingsDataset.open(folder).batches():
        pass


@pytest.fixture
def dataset(place: str) -> tuple[str, str]:
    """A dataset with deletion vectors, and the URI of these."""
    manifest = write_dataset(place, [4, 3])
    deletes = write_deletion_vectors(place, {"part-00000.parquet": rows_of(1), "part-00001.parquet": rows_of(2)})
    write_manifest(place, replace(manifest, deletes=deletes))
    read(place)
    return place, store.join(place, deletes.name)


def test_a_deletes_file_that_is_missing(dataset: tuple[str, str]) -> None:
    folder, uri = dataset
    store.remove(uri)
    refused(lambda: read(folder), uri, "the deletion vectors file is missing")
    refused(lambda: EmbeddingsDataset.open(folder).take([0], ["id"]), uri, "the deletion vectors file is missing")


def test_a_deletes_file_that_is_cut_short(dataset: tuple[str, str]) -> None:
    folder, uri = dataset
    store.write_bytes(uri, store.read_bytes(uri)[:-1])
    refused(lambda: read(folder), uri, "the deletion vectors file has", "bytes, its manifest says")


def test_a_deletes_file_of_another_content(dataset: tuple[str, str]) -> None:
    folder, uri = dataset
    content = bytearray(store.read_bytes(uri))
    content[10] ^= 1
    store.write_bytes(uri, bytes(content))
    refused(lambda: read(folder), uri, "the deletion vectors file's crc32c is")


def test_a_folder_where_the_deletes_should_be(tmp_path: Path) -> None:
    manifest = write_dataset(str(tmp_path), [4])
    dataset = without(str(tmp_path), manifest, {"part-00000.parquet": rows_of(1)})
    deletes = dataset.manifest.deletes
    assert deletes is not None
    (tmp_path / deletes.name).unlink()
    (tmp_path / deletes.name).mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        read(str(tmp_path))


A, B = "part-00000.parquet", "part-00001.parquet"


def table(shards: list[str | None], rows: list[int | None], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"shard": pa.array(shards, pa.string()), "row": pa.array(rows, kind or pa.int64())})


@pytest.mark.parametrize(
    ("content", "rows", "part"),
    [
        (table([A, B], [1, 3]), 2, f"row 3 of shard '{B}' is not there, it has 3"),
        (table([A, B], [-1, 0]), 2, f"row -1 of shard '{A}' is not there, it has 4"),
        (table([A, A], [2, 1]), 2, f"the rows of shard '{A}' are not ascending"),
        (table([A, A], [1, 1]), 2, f"the rows of shard '{A}' are not ascending, or one is there twice"),
        (table([B, A], [0, 0]), 2, "the shards' names are not sorted"),
        (table([A, B, A], [0, 0, 1]), 3, "the shards' names are not sorted"),
        (table([A, "part-00002.parquet"], [0, 0]), 2, "shard 'part-00002.parquet' is not one of the dataset's"),
        (table([A, B], [0, 0]), 3, "there are 2 rows, the manifest says 3"),
        (table([A, None], [0, 0]), 2, "a shard or a row is null"),
        (table([A, B], [0, None]), 2, "a shard or a row is null"),
        (table([A, B], [0, 0], pa.int32()), 2, "row (int32), expected shard (string), row (int64)"),
        (table([A], [0]).rename_columns(["name", "row"]), 1, "name (string), row (int64), expected shard"),
        (table([A], [0]).append_column("n", pa.array([1])), 1, "n (int64), expected shard"),
    ],
)
def test_deletes_that_are_not_of_the_dataset(tmp_path: Path, content: pa.Table, rows: int, part: str) -> None:
    folder, uri = str(tmp_path), str(tmp_path / "deletes-x.parquet")
    manifest = write_dataset(folder, [4, 3])
    pq.write_table(content, uri)
    info = store.stat(uri)
    wrong = replace(manifest, deletes=Shard("deletes-x.parquet", rows, info.size, store.crc32c(info)))
    refused(lambda: write_manifest(folder, wrong), uri, part)
    assert not (tmp_path / "manifest.json").exists()
    store.write_json(store.join(folder, "manifest.json"), wrong.to_json())
    refused(lambda: read(folder), uri, part)


def test_deletes_that_are_no_parquet(tmp_path: Path) -> None:
    manifest = write_dataset(str(tmp_path), [4])
    (tmp_path / "d").write_bytes(b"not parquet")
    info = store.stat(str(tmp_path / "d"))
    wrong = replace(manifest, deletes=Shard("d", 1, info.size, store.crc32c(info)))
    refused(lambda: write_manifest(str(tmp_path), wrong), "not a whole Parquet file (the deletion vectors")


RUN = Run("0" * 32, "", "2026-11-30T00:00:00+00:00", "2026-11-30T00:00:00+00:00", "/out", "/out", "/out/history")
SETTINGS = DriftSettings(pca_components=0)


def test_a_drift_run_compares_the_rows_that_are_left(tmp_path: Path) -> None:
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")
    write_manifest(whole, write_dataset(whole, [30, 30]))
    manifest = write_dataset(cut, [30, 30])
    without(cut, manifest, {A: np.arange(5, 30, dtype=np.int64), B: rows_of(0, 29)})
    left = [*range(5), *range(31, 59)]
    datasets = EmbeddingsDataset.open(whole), EmbeddingsDataset.open(cut)
    pooled = pair(RUN, SETTINGS, *datasets)
    assert (pooled.n, pooled.rows) == (60, 60 + len(left))
    ids = [name for names, _ in pooled.batches() for name in names]
    assert ids == [str(row) for row in [*range(60), *left]]
    np.testing.assert_array_equal(
        np.concatenate([vectors for _, vectors in pooled.batches()])[60:], vectors_of(60)[left]
    )
    assert [name for name, _ in pooled.describe([60 + 5, 60])] == ["31", "0"]


def test_a_drift_run_needs_rows(tmp_path: Path) -> None:
    manifest = write_dataset(str(tmp_path), [3])
    dataset = without(str(tmp_path), manifest, {A: rows_of(0, 1, 2)})
    with pytest.raises(DataError, match="expected at least 2 rows to compare, got 0"):
        pair(RUN, SETTINGS, dataset, dataset)


def test_other_deletes_make_it_another_dataset_for_a_run(tmp_path: Path) -> None:
    manifest = write_dataset(str(tmp_path), [9])
    dataset = without(str(tmp_path), manifest, {A: rows_of(0)})
    pooled = pair(RUN, SETTINGS, dataset, dataset)
    without(str(tmp_path), manifest, {A: rows_of(1)})
    with pytest.raises(DataError, match="the dataset was replaced while the run was reading it"):
        list(pooled.batches())
