"""A dataset read ahead of its consumer: bounded, in order, its errors in their place, no thread or file left open."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest

from driftline.components.errors import DataError, StorageError
from driftline.components.storage.dataset import shards
from driftline.components.storage.dataset.manifest import Manifest
from driftline.components.storage.dataset.prefetch import THREAD_NAME, ReadAhead, waited_s
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import FileInfo

DIMENSION = 256
GROUP_ROWS = 128
GROUP_BYTES = GROUP_ROWS * DIMENSION * 4
LONG_S = 30.0


def write_dataset(folder: str, shards: int, groups: int = 8) -> None:
    """Random vectors, so that nothing is compressed away: `groups` row groups of GROUP_BYTES in each shard."""
    generator = np.random.default_rng(0)

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(groups):
            vectors = generator.standard_normal(GROUP_ROWS * DIMENSION).astype(np.float32)
            yield pa.record_batch(
                {
                    "id": pa.array([f"r{row}" for row in range(GROUP_ROWS)]),
                    "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIMENSION),
                }
            )

    written = tuple(
        write_shard(
            folder,
            f"part-{number:05}.parquet",
            batches(),
            dimension=DIMENSION,
            dtype="float32",
            key="k",
            row_group_rows=GROUP_ROWS,
        )
        for number in range(shards)
    )
    write_manifest(folder, Manifest("m", "r", DIMENSION, False, "float32", (), written))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONG_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


@pytest.fixture
def open_files(monkeypatch: pytest.MonkeyPatch) -> list[BinaryIO]:
    """The files opened from here on."""
    files: list[BinaryIO] = []
    whole = store.open_read

    def opened(file: str | FileInfo) -> BinaryIO:
        files.append(whole(file))
        return files[-1]

    monkeypatch.setattr(store, "open_read", opened)
    return files


def test_what_is_read_ahead_is_bounded(tmp_path: Path) -> None:
    write_dataset(str(tmp_path), shards=6, groups=16)
    room, count = 8 * GROUP_BYTES, 3
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    batches = EmbeddingsDataset.open(str(tmp_path), ReadAhead(room, count)).batches(batch_rows=GROUP_ROWS)
    held: list[int] = []
    for number, _ in enumerate(batches):
        if number % 20 == 0:
            # The consumer is slow here: everything is read that will be.
            assert number > 60 or until(lambda: pool.bytes_allocated() - before > room // 2)
            time.sleep(0.1)
        held.append(pool.bytes_allocated() - before)
    # Of 96 row groups eight may wait; besides, two in each thread, compressed and not, and two with the consumer.
    assert max(held) < room + (2 * count + 2) * GROUP_BYTES
    assert max(held) < 96 * GROUP_BYTES / 5


def test_a_bound_below_one_row_group_gives_the_same_rows(tmp_path: Path) -> None:
    write_dataset(str(tmp_path), shards=3, groups=3)
    free = [batch.embeddings for batch in EmbeddingsDataset.open(str(tmp_path)).batches(batch_rows=100)]
    tight = EmbeddingsDataset.open(str(tmp_path), ReadAhead(1, 1)).batches(batch_rows=100)
    np.testing.assert_array_equal(np.concatenate([batch.embeddings for batch in tight]), np.concatenate(free))


def test_shards_are_opened_while_the_consumer_is_busy(place: str, open_files: list[BinaryIO]) -> None:
    write_dataset(place, shards=3, groups=1)
    open_files.clear()
    batches = EmbeddingsDataset.open(place).batches(batch_rows=GROUP_ROWS)
    next(batches)
    # Each shard's rows are there, and the shard closed, before the second is asked for; nothing else wakes the threads.
    assert until(lambda: len(open_files) > 3 and all(file.closed for file in open_files))
    assert len(list(batches)) == 2
    assert until(lambda: threads() == [])


@pytest.mark.parametrize("damage", ["missing", "another content", "another size"])
def test_a_damaged_shard_is_refused_after_the_rows_before_it(place: str, damage: str) -> None:
    write_dataset(place, shards=4, groups=2)
    uri = store.join(place, "part-00002.parquet")
    content = bytearray(store.read_bytes(uri))
    if damage == "missing":
        store.remove(uri)
    elif damage == "another size":
        store.write_bytes(uri, bytes(content[:-1]))
    else:
        content[2000] ^= 1
        store.write_bytes(uri, bytes(content))
    rows: list[int] = []
    batches = EmbeddingsDataset.open(place).batches(batch_rows=GROUP_ROWS)
    with pytest.raises(DataError, match=r"part-00002\.parquet"):
        rows.extend(row for batch in batches for row in batch.rows.tolist())
    assert rows == list(range(4 * GROUP_ROWS))
    assert until(lambda: threads() == [])


def test_nothing_of_a_damaged_shard_is_decoded(tmp_path: Path) -> None:
    write_dataset(str(tmp_path), shards=1, groups=8)
    path = tmp_path / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[-20_000] ^= 1  # in the last row group
    path.write_bytes(bytes(content))
    batches = EmbeddingsDataset.open(str(tmp_path)).batches(batch_rows=1)
    with pytest.raises(DataError, match="crc32c"):
        next(batches)


def test_a_store_that_fails_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(str(tmp_path), shards=3, groups=2)
    whole = store.open_read

    def failing(file: str | FileInfo) -> BinaryIO:
        if isinstance(file, FileInfo) and file.uri.endswith("part-00001.parquet"):
            raise StorageError(f"{file.uri}: cannot read: the disk is gone")
        return whole(file)

    dataset = EmbeddingsDataset.open(str(tmp_path))
    monkeypatch.setattr(store, "open_read", failing)
    batches = dataset.batches(batch_rows=2 * GROUP_ROWS)
    assert next(batches).rows[-1] == 2 * GROUP_ROWS - 1
    with pytest.raises(StorageError, match="the disk is gone"):
        next(batches)
    assert list(batches) == []


def test_an_early_end_leaves_no_thread_and_no_file_open(place: str, open_files: list[BinaryIO]) -> None:
    write_dataset(place, shards=5)
    batches = EmbeddingsDataset.open(place).batches(batch_rows=10)
    next(batches)
    batches.close()
    assert until(lambda: threads() == [] and all(file.closed for file in open_files))


def test_a_consumer_that_fails_leaves_no_thread_and_no_file_open(tmp_path: Path, open_files: list[BinaryIO]) -> None:
    write_dataset(str(tmp_path), shards=5)

    def consume() -> None:
        for _ in EmbeddingsDataset.open(str(tmp_path)).batches(batch_rows=10):
            raise RuntimeError("no room on the device")

    with pytest.raises(RuntimeError, match="no room"):
        consume()
    assert until(lambda: threads() == [] and all(file.closed for file in open_files))


def test_two_readers_of_one_dataset_at_once(tmp_path: Path) -> None:
    write_dataset(str(tmp_path), shards=4, groups=2)
    dataset = EmbeddingsDataset.open(str(tmp_path))
    for one, other in zip(dataset.batches(batch_rows=70), dataset.batches(batch_rows=70), strict=True):
        np.testing.assert_array_equal(one.embeddings, other.embeddings)
        np.testing.assert_array_equal(one.rows, other.rows)


def test_waiting_is_counted_and_the_consumers_own_time_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(str(tmp_path), shards=2, groups=1)
    dataset = EmbeddingsDataset.open(str(tmp_path))
    whole = store.open_read

    def slow(file: str | FileInfo) -> BinaryIO:
        time.sleep(0.2)
        return whole(file)

    monkeypatch.setattr(store, "open_read", slow)
    before = waited_s()
    for _ in dataset.batches(batch_rows=GROUP_ROWS):
        first = waited_s()
        assert first - before >= 0.2
        time.sleep(0.1)
        assert waited_s() == first


def test_a_shard_is_checked_once_and_again_when_it_changes(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(place, shards=1, groups=1)
    uri = store.join(place, "part-00000.parquet")
    content = store.read_bytes(uri)
    sums: list[str] = []
    whole = shards.stream_crc32c
    monkeypatch.setattr(shards, "stream_crc32c", lambda handle: sums.append("") or whole(handle))
    dataset = EmbeddingsDataset.open(place)
    for _ in range(3):
        assert len(list(dataset.batches(batch_rows=GROUP_ROWS))) == 1
    assert len(sums) == (0 if place.startswith("gs://") else 1)
    store.write_bytes(uri, content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    # A local file is found to be another; an object is no longer there in the version that was checked.
    with pytest.raises((DataError, StorageError), match=r"part-00000\.parquet"):
        list(dataset.batches())


def test_what_is_read_is_what_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is given to another file right after the check: the checked one is read to its end."""
    write_dataset(str(tmp_path), shards=1, groups=2)
    path = tmp_path / "part-00000.parquet"
    whole = shards.stream_crc32c

    def replaced(handle: BinaryIO) -> str:
        found = whole(handle)
        (tmp_path / "other").write_bytes(b"another file")
        (tmp_path / "other").replace(path)
        return found

    expected = np.concatenate([batch.embeddings for batch in EmbeddingsDataset.open(str(tmp_path)).batches()])
    monkeypatch.setattr(shards, "stream_crc32c", replaced)
    (batch,) = EmbeddingsDataset.open(str(tmp_path)).batches()
    np.testing.assert_array_equal(batch.embeddings, expected)
    assert path.read_bytes() == b"another file"


def test_readers_that_only_the_collector_finds_end(tmp_path: Path) -> None:
    """The collector closes them wherever it happens to run, in threads that they need, too: nothing may wait there."""
    write_dataset(str(tmp_path), shards=5, groups=4)
    dataset = EmbeddingsDataset.open(str(tmp_path), ReadAhead(3 * GROUP_BYTES, 2))
    thresholds = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    try:
        for number in range(80):
            batches = dataset.batches(batch_rows=(30, 100, 300)[number % 3])
            next(batches)
            cycle: list[object] = [batches]
            cycle.append(cycle)
            del batches, cycle
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert until(lambda: threads() == [])
