"""Objects read by ranges: the bytes, how many requests they cost, and what becomes of the threads."""

from __future__ import annotations

import gc
import io
import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import StorageError
from driftline.components.storage.objects.gcs_reader import ObjectFile, RangedObject
from tests.components.storage.objects.test_store import crc32c_of

KIB = 1 << 10
CONTENT = random.Random(1).randbytes(3_000_000)


class Source:
    """Bytes in memory as a store of ranges, which notes what was asked for."""

    def __init__(
        self, content: bytes = CONTENT, gate: threading.Event | None = None, barrier: threading.Barrier | None = None
    ) -> None:
        self.content = content
        self._barrier = barrier
        self.asked: list[tuple[int, int]] = []
        self.together = self.most = 0
        self._gate = gate
        self._lock = threading.Lock()

    def fetch(self, start: int, end: int, stop: threading.Event) -> bytes:
        with self._lock:
            self.asked.append((start, end))
            self.together += 1
            self.most = max(self.most, self.together)
        if self._barrier is not None:
            self._barrier.wait(30)
        while self._gate is not None and not self._gate.is_set() and not stop.is_set():
            time.sleep(0.001)
        with self._lock:
            self.together -= 1
        return self.content[start:end]

    @property
    def fetched(self) -> int:
        return sum(end - start for start, end in self.asked)

    def opened(self, range_bytes: int = 64 * KIB, in_flight: int = 4, crc32c: str | None = None) -> ObjectFile:
        return ObjectFile(
            RangedObject(
                "gs://b/x", len(self.content), crc32c, self.fetch, range_bytes=range_bytes, in_flight=in_flight
            )
        )


def readers() -> set[threading.Thread]:
    """The threads of this and of earlier readers, which may still be ending."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("driftline-read")}


def eventually(true: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 1_200_000)),
        st.tuples(st.just("readinto"), st.integers(0, 600_000)),
        st.tuples(st.just("readline"), st.integers(0, 500)),
        st.tuples(st.just("from start"), st.integers(0, 3_500_000)),
        st.tuples(st.just("from here"), st.integers(-400_000, 400_000)),
        st.tuples(st.just("from end"), st.integers(-3_000_000, 10)),
    ),
    max_size=30,
)


@given(steps, st.integers(1, 5), st.integers(1_000, 900_000))
def test_any_reading_gives_the_bytes_of_a_plain_file(
    steps: list[tuple[str, int]], in_flight: int, range_bytes: int
) -> None:
    source, plain = Source(), io.BytesIO(CONTENT)
    with source.opened(range_bytes, in_flight, crc32c_of(CONTENT)) as file:
        for what, amount in steps:
            if what == "readinto":
                mine, other = bytearray(amount), bytearray(amount)
                assert file.readinto(mine) == plain.readinto(other)
                assert mine == other
            elif what == "read":
                assert file.read(amount) == plain.read(amount)
            elif what == "readline":
                assert file.readline(amount) == plain.readline(amount)
            else:
                whence = {"from start": 0, "from here": 1, "from end": 2}[what]
                there = amount + (0, plain.tell(), len(CONTENT))[whence]
                if there >= 0:
                    assert file.seek(amount, whence) == plain.seek(amount, whence)
            assert file.tell() == plain.tell()
    assert all(end - start <= max(range_bytes, 256 * KIB) for start, end in source.asked)
    assert source.most <= in_flight


def test_reading_in_order_asks_for_every_byte_once_and_ahead() -> None:
    source = Source()
    with source.opened(crc32c=crc32c_of(CONTENT)) as file:
        for start in range(0, len(CONTENT), 10_000):
            assert file.read(10_000) == CONTENT[start : start + 10_000]
            if start == 2_000_000:
                # By now whole ranges, as many as may be in flight, were asked for before the reader got there.
                assert max(end for _, end in source.asked) > file.tell() + 3 * 64 * KIB
        assert file.read() == b""
    assert source.fetched == len(CONTENT)


def test_what_is_read_ahead_is_bounded_and_no_more_than_was_read() -> None:
    gate = threading.Event()
    gate.set()
    source = Source(gate=gate)
    with source.opened(range_bytes=64 * KIB, in_flight=4) as file:
        for read in range(0, 2_000_000, 1_000):
            assert file.read(1_000) == CONTENT[read : read + 1_000]
            # One buffer of small reads, and as much again as was read in a row; at most four ranges.
            assert source.fetched <= 256 * KIB + min(2 * (read + 1_000), read + 1_000 + 5 * 64 * KIB) + 256 * KIB


def test_a_large_read_is_split_and_one_that_jumps_fetches_just_what_it_asks_for() -> None:
    source = Source()
    with source.opened() as file:
        for start, size in ((2_500_000, 300_000), (100_000, 700_000), (1_500_000, 400_000)):
            file.seek(start)
            before = source.fetched
            assert file.read(size) == CONTENT[start : start + size]
            assert source.fetched - before == size


def test_a_small_part_costs_one_request_and_no_thread() -> None:
    source, before = Source(), readers()
    with source.opened() as file:
        file.seek(-1000, io.SEEK_END)
        assert file.read() == CONTENT[-1000:]
        assert readers() <= before
    assert source.asked == [(len(CONTENT) - 1000, len(CONTENT))]


def parquet_shard(groups: int, rows: int) -> tuple[bytes, pq.FileMetaData]:
    ids = pa.array([f"text-{i}" for i in range(groups * rows)])
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.random.default_rng(0).random(groups * rows * 64, np.float32)), 64
    )
    out = io.BytesIO()
    pq.write_table(pa.table({"id": ids, "embedding": vectors}), out, row_group_size=rows, compression="none")
    return out.getvalue(), pq.read_metadata(io.BytesIO(out.getvalue()))


def test_one_column_of_a_parquet_file_fetches_the_footer_and_that_column() -> None:
    content, metadata = parquet_shard(groups=3, rows=8192)
    source = Source(content)
    with source.opened(range_bytes=512 * KIB) as file, pq.ParquetFile(file) as parquet:
        for group in range(3):
            parquet.read_row_group(group, columns=["embedding"])
    sizes = [metadata.row_group(i).column(1).total_compressed_size for i in range(3)]
    assert source.fetched == sum(sizes) + 64 * KIB  # the footer: pyarrow asks for the last 64 KiB
    assert len(source.asked) == 1 + sum(math.ceil(size / (512 * KIB)) for size in sizes)


def test_a_whole_parquet_file_costs_its_bytes_and_little_more() -> None:
    content, _ = parquet_shard(groups=3, rows=8192)
    source = Source(content)
    with source.opened(range_bytes=512 * KIB) as file, pq.ParquetFile(file) as parquet:
        assert sum(batch.num_rows for batch in parquet.iter_batches()) == 3 * 8192
    assert source.fetched <= len(content) + 64 * KIB
    assert len(source.asked) <= 24


@pytest.mark.parametrize("how", ["closed", "closed early", "forgotten"])
def test_threads_end(how: str) -> None:
    gate, before = threading.Event(), readers()
    source = Source(gate=gate)
    file = source.opened()
    gate.set()
    file.read(600 * KIB)
    assert readers() - before
    if how == "closed":
        file.close()
    elif how == "closed early":
        gate.clear()
        file.seek(0)
        refused: list[str] = []

        def read() -> None:
            with pytest.raises(ValueError, match="closed") as error:
                file.read(600 * KIB)
            refused.append(str(error.value))

        waiting = threading.Thread(target=read)
        waiting.start()
        eventually(lambda: source.together > 0)
        file.close()
        waiting.join(30)
        assert len(refused) == 1
    else:
        del file
        gc.collect()
    eventually(lambda: readers() <= before)


def test_a_failure_reaches_the_reader_and_a_later_read_asks_again() -> None:
    source, before = Source(), readers()
    broken = threading.Event()
    broken.set()

    def fetch(start: int, end: int, stop: threading.Event) -> bytes:
        if broken.is_set() and start > 500_000:
            raise StorageError("gs://b/x: cannot read: no")
        return source.fetch(start, end, stop)

    with ObjectFile(RangedObject("gs://b/x", len(CONTENT), None, fetch, range_bytes=64 * KIB)) as file:
        with pytest.raises(StorageError, match="cannot read: no"):
            file.read()
        broken.clear()
        file.seek(0)
        assert file.read() == CONTENT
    eventually(lambda: readers() <= before)


@pytest.mark.parametrize("size", [-1, 10_000, 700_000])
def test_damage_shows_when_the_last_byte_is_read_in_order(size: int) -> None:
    damaged = CONTENT[:1_234_567] + bytes([CONTENT[1_234_567] ^ 1]) + CONTENT[1_234_568:]

    def read_all(content: bytes) -> bytes:
        with Source(content).opened(crc32c=crc32c_of(CONTENT)) as file:
            return b"".join(iter(lambda: file.read(size), b""))

    assert read_all(CONTENT) == CONTENT
    with pytest.raises(StorageError, match=r"gs://b/x: cannot read: the bytes were damaged on their way"):
        read_all(damaged)


def test_an_empty_object_costs_nothing() -> None:
    source = Source(b"")
    with source.opened(crc32c="AAAAAA==") as file:
        assert file.read() == file.read(5) == b""
    assert source.asked == []


def test_a_closed_file_is_not_read_and_no_position_is_negative(tmp_path: Path) -> None:
    file = Source().opened()
    with pytest.raises(ValueError, match="before the first byte"):
        file.seek(-1)
    file.close()
    file.close()
    for call in (file.read, lambda: file.read(5), lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            call()
