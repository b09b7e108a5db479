"""An embeddings dataset that is right: written in shards, read back in any cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.prefetch import ReadAhead
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.shards import finished_shard
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects import store

Vectors = npt.NDArray[np.float32]


def batch_of(vectors: npt.NDArray[np.floating], first: int = 0) -> pa.RecordBatch:
    rows, dimension = vectors.shape
    numbers = range(first, first + rows)
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array([f"r{i}" for i in numbers], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
            "label": pa.array([None if i % 5 == 0 else f"l{i % 3}" for i in numbers], pa.string()),
            "n": pa.array(list(numbers), pa.int64()),
        }
    )


def write_dataset(
    folder: str, vectors: Vectors, shard_rows: list[int], dtype: str = "float32", row_group_rows: int = 4096
) -> EmbeddingsDataset:
    shards: list[Shard] = []
    first = 0
    for i, rows in enumerate(shard_rows):
        part = vectors[first : first + rows]
        shards.append(
            write_shard(
                folder,
                f"part-{i:05}.parquet",
                [batch_of(part, first)],
                dimension=vectors.shape[1],
                dtype=dtype,
                key="k",
                row_group_rows=row_group_rows,
            )
        )
        first += rows
    manifest = Manifest("m", "r", vectors.shape[1], False, dtype, ("label", "n"), tuple(shards))
    write_manifest(folder, manifest)
    return EmbeddingsDataset.open(folder)


def some_vectors(rows: int, dimension: int = 4) -> Vectors:
    return np.random.default_rng(rows).standard_normal((rows, dimension)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back_from_either_store(place: str, dtype: str) -> None:
    vectors = some_vectors(100, 8)
    dataset = write_dataset(place, vectors, [40, 1, 59], dtype, row_group_rows=16)
    assert (dataset.uri, dataset.rows, dataset.dimension) == (place, 100, 8)
    (batch,) = dataset.batches()
    assert batch.ids == [f"r{i}" for i in range(100)]
    assert batch.embeddings.dtype == np.float32
    assert batch.embeddings.flags.c_contiguous
    np.testing.assert_array_equal(batch.embeddings, vectors.astype(dtype).astype(np.float32))
    np.testing.assert_array_equal(batch.rows, np.arange(100))
    assert dataset.manifest == Manifest.from_json(store.read_json(store.join(place, "manifest.json")))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_gives_the_same_batches(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    shard_rows = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    total = sum(shard_rows)
    vectors = some_vectors(total, 3)
    folder = tmp_path_factory.mktemp("dataset")
    dtype = data.draw(st.sampled_from(["float32", "float16"]))
    dataset = write_dataset(str(folder), vectors, shard_rows, dtype, data.draw(st.integers(1, 40)))
    wanted = data.draw(st.none() | st.sets(st.integers(0, total - 1)).map(sorted))
    rows = None if wanted is None else np.array(wanted, dtype=np.int64)
    batch_rows = data.draw(st.integers(1, 50))
    batches = list(dataset.batches(("id", "n", "embedding"), rows, batch_rows))
    expected = list(range(total)) if wanted is None else wanted
    assert [len(batch.rows) for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
    assert [row for batch in batches for row in batch.rows.tolist()] == expected
    assert [row for batch in batches for row in batch.table.column("n").to_pylist()] == expected
    assert [name for batch in batches for name in batch.ids] == [f"r{i}" for i in expected]
    for batch in batches:
        stored = vectors[batch.rows].astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(batch.embeddings, stored)
        assert batch.embeddings.flags.c_contiguous


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    dataset = write_dataset(str(tmp_path), some_vectors(10), [10])
    (batch,) = dataset.batches(("label",))
    assert batch.embeddings.shape == (len(batch.rows), 0)
    assert batch.table.column_names == ["label"]
    (batch,) = dataset.batches(("embedding",))
    assert batch.table.num_columns == 0
    assert [dataset.has_column(name) for name in ("id", "embedding", "label", "none")] == [True, True, True, False]


def test_only_the_row_groups_and_shards_asked_for_are_read(tmp_path: Path) -> None:
    vectors = some_vectors(300, 1024)
    dataset = write_dataset(str(tmp_path), vectors, [100, 200], row_group_rows=50)
    # Were the first shard looked at, it would be found damaged.
    (tmp_path / "part-00000.parquet").write_bytes(b"")
    second = pq.ParquetFile(tmp_path / "part-00001.parquet")
    sizes = [second.metadata.row_group(i).total_byte_size for i in range(4)]
    second.close()
    reads: list[int] = []
    whole = store.open_read

    class Counted:
        def __init__(self, handle: object) -> None:
            self._handle = handle

        def __getattr__(self, name: str) -> object:
            return getattr(self._handle, name)

        def read(self, size: int = -1) -> bytes:
            content = self._handle.read(size)  # type: ignore[attr-defined]
            reads.append(len(content))
            return content

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *error: object) -> None:
            self._handle.close()  # type: ignore[attr-defined]

    list(dataset.batches(("id",), np.array([100], dtype=np.int64)))  # the second is checked here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "open_read", lambda file: Counted(whole(file)))
        (batch,) = dataset.batches(rows=np.array([260, 270], dtype=np.int64))
    np.testing.assert_array_equal(batch.embeddings, vectors[[260, 270]])
    # The footer is guessed to lie within the last 64 KiB.
    assert sizes[3] / 2 < sum(reads) < sizes[3] + 80_000 < sum(sizes) / 2


def test_take_gives_rows_in_the_order_asked(place: str) -> None:
    vectors = some_vectors(50)
    dataset = write_dataset(place, vectors, [20, 30], row_group_rows=7)
    table = dataset.take([49, 3, 3, 20, 0], ("n", "none", "embedding", "id"))
    assert table.column_names == ["n", "embedding", "id"]
    assert table.column("n").to_pylist() == [49, 3, 3, 20, 0]
    assert table.column("id").to_pylist() == ["r49", "r3", "r3", "r20", "r0"]
    np.testing.assert_array_equal(
        np.array(table.column("embedding").to_pylist(), np.float32), vectors[[49, 3, 3, 20, 0]]
    )
    assert dataset.take([], ("id", "n")).num_rows == 0
    assert dataset.take([1], ("none",)).num_columns == 0


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([-1], "rows -1 to -1"),
        ([0, 10], "the dataset has rows 0 to 9"),
        ([3, 2], "not ascending"),
        ([2, 2], "not ascending"),
        ([0.5], "int64"),
        ([[1]], "shape"),
    ],
)
def test_row_numbers_that_cannot_be(tmp_path: Path, rows: list[object], what: str) -> None:
    dataset = write_dataset(str(tmp_path), some_vectors(10), [10])
    with pytest.raises(UsageError, match=what):
        list(dataset.batches(rows=np.array(rows)))


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    dataset = write_dataset(str(tmp_path), some_vectors(10), [10])
    with pytest.raises(UsageError, match=r"the columns none are not there; choose among: id, embedding, label, n"):
        list(dataset.batches(("id", "none")))
    with pytest.raises(UsageError, match="choose among"):
        list(dataset.batches(()))
    with pytest.raises(UsageError, match="batch_rows is 0"):
        list(dataset.batches(batch_rows=0))
    with pytest.raises(UsageError, match="the dataset has rows 0 to 9"):
        dataset.take([10], ("none",))


def test_a_dataset_larger_than_the_memory_it_takes(tmp_path: Path) -> None:
    dimension, rows = 256, 16_384
    generator = np.random.default_rng(0)

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, rows, 512):
            yield batch_of(generator.standard_normal((512, dimension)).astype(np.float32), first)

    size = rows * dimension * 4
    pool = pa.default_memory_pool()
    start = pool.bytes_allocated()
    arrow_peak = 0
    tracemalloc.start()
    shard = write_shard(
        str(tmp_path), "a.parquet", batches(), dimension=dimension, dtype="float32", key="k", row_group_rows=512
    )
    write_manifest(str(tmp_path), Manifest("m", "r", dimension, False, "float32", ("label", "n"), (shard,)))
    seen = 0
    ahead = ReadAhead(bytes=size // 16)
    for batch in EmbeddingsDataset.open(str(tmp_path), ahead).batches(batch_rows=700):
        seen += len(batch.rows)
        arrow_peak = max(arrow_peak, pool.bytes_allocated() - start)
    _, python_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == rows
    assert arrow_peak < size / 4
    # NumPy's arrays are counted here, and most of what is read ahead is not.
    assert python_peak < size / 2


def test_a_shard_has_the_same_bytes_however_its_rows_come(place: str) -> None:
    vectors = some_vectors(100, 8)
    contents: set[bytes] = set()
    shards: set[Shard] = set()
    for cut in (100, 7, 1, 33, 50):
        batches = [batch_of(vectors[i : i + cut], i) for i in range(0, 100, cut)]
        shards.add(write_shard(place, "a.parquet", batches, dimension=8, dtype="float32", key="k", row_group_rows=30))
        contents.add(store.read_bytes(store.join(place, "a.parquet")))
    # A slice of a larger batch, and lists of any length.
    large = batch_of(np.concatenate([vectors, vectors]))
    lists = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    variable = large.slice(0, 100).set_column(1, "embedding", lists)
    for batch in (large.slice(0, 100), variable):
        shards.add(write_shard(place, "a.parquet", [batch], dimension=8, dtype="float32", key="k", row_group_rows=30))
        contents.add(store.read_bytes(store.join(place, "a.parquet")))
    assert len(contents) == len(shards) == 1


def test_the_file_is_plain_parquet(tmp_path: Path) -> None:
    write_dataset(str(tmp_path), some_vectors(10, 3), [10], "float16", row_group_rows=4)
    table = pq.read_table(tmp_path / "part-00000.parquet")
    assert table.column_names == ["id", "embedding", "label", "n"]
    kind = table.schema.field("embedding").type
    assert (kind.value_type, kind.list_size) == (pa.float16(), 3)
    assert table.schema.metadata[b"driftline.key"] == b"k"
    assert table.column("label").null_count == 2
    assert pq.ParquetFile(tmp_path / "part-00000.parquet").num_row_groups == 3


def test_a_finished_shard_is_known_by_its_key(place: str) -> None:
    assert finished_shard(place, "a.parquet", "k") is None
    written = write_shard(place, "a.parquet", [batch_of(some_vectors(10))], dimension=4, dtype="float32", key="k")
    assert finished_shard(place, "a.parquet", "k") == written
    assert finished_shard(place, "a.parquet", "other") is None
    content = store.read_bytes(store.join(place, "a.parquet"))
    for cut in (0, 3, 10, len(content) // 2, len(content) - 1):
        store.write_bytes(store.join(place, "a.parquet"), content[:cut])
        assert finished_shard(place, "a.parquet", "k") is None
