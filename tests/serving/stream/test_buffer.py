"""The buffer and the fence by themselves."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from driftline.serving.records.record import Coordinates, Record, TextEvent
from driftline.serving.stream.buffer import Buffer, MicroBatch, WriteFence
from driftline.serving.stream.settings import BatchLimits, BufferLimits
from driftline.serving.stream.work_items import Incoming


def item(text: str, offset: int = 0, received_s: float = 0.0) -> Incoming:
    record = Record(b"k", text.encode(), (), Coordinates("texts", 0, offset, 0))
    return Incoming(record, TextEvent("k", text), len(text) + 1, received_s)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.integers(1, 200), max_size=40), st.integers(1, 7), st.integers(1, 60))
def test_batches_hold_everything_in_order_within_their_limits(lengths: list[int], records: int, tokens: int) -> None:
    clock = Clock()
    buffer = Buffer(BatchLimits(records, tokens, linger_ms=1.0), BufferLimits(1000, 10**9), clock=clock)
    items = [item("x" * length, offset) for offset, length in enumerate(lengths)]
    buffer.add(items, "member")
    clock.now = 1.0
    taken: list[Incoming] = []
    while len(buffer):
        batch = buffer.take()
        assert batch is not None
        assert 1 <= len(batch.items) <= records
        assert len(batch.items) == 1 or sum(one.tokens(0) for one in batch.items) <= tokens
        taken += batch.items
    assert taken == items
    assert buffer.bytes == 0


def test_a_batch_waits_for_more_until_it_is_full_or_its_time_is_up() -> None:
    buffer = Buffer(BatchLimits(records=2, linger_ms=60_000), BufferLimits())
    taken: list[MicroBatch | None] = []
    thread = threading.Thread(target=lambda: taken.append(buffer.take()))
    thread.start()
    buffer.add([item("a", 0, time.monotonic())], None)
    thread.join(0.05)
    assert not taken
    buffer.add([item("b", 1, time.monotonic())], None)
    thread.join(30)
    assert [len(batch.items) for batch in taken if batch] == [2]


def test_a_closed_buffer_gives_nothing_more_and_a_restarted_one_forgets() -> None:
    clock = Clock()
    buffer = Buffer(BatchLimits(linger_ms=0), BufferLimits(), clock=clock)
    buffer.add([item("old")], None)
    buffer.restart(3)
    assert (len(buffer), buffer.bytes) == (0, 0)
    buffer.add([item("new")], "m")
    batch = buffer.take()
    assert batch == MicroBatch(3, (item("new"),), "m")
    buffer.close()
    assert buffer.take() is None


def test_a_full_buffer_says_so_and_has_room_again_at_half() -> None:
    buffer = Buffer(BatchLimits(records=1, linger_ms=0), BufferLimits(records=4, bytes=1000))
    buffer.add([item("a", n) for n in range(4)], None)
    assert buffer.full
    buffer.take()
    assert not buffer.full
    assert not buffer.has_room
    buffer.take()
    assert buffer.has_room
    buffer.add([item("x" * 1000)], None)
    assert buffer.full


def test_nothing_passes_after_a_write_that_failed_until_the_next_epoch() -> None:
    fence = WriteFence()
    assert fence.acquire(0)
    fence.release(written=True)
    assert fence.acquire(0)
    fence.release(written=False)
    assert not fence.is_open
    assert not fence.acquire(0)
    epoch = fence.next_epoch()
    assert not fence.acquire(0), "a batch of the epoch before"
    assert fence.acquire(epoch)
    fence.release(written=True)
    assert fence.is_open


def test_shutting_waits_for_the_write_under_way() -> None:
    fence = WriteFence()
    assert fence.acquire(0)
    assert not fence.shut(0.01)
    threading.Timer(0.05, lambda: fence.release(written=True)).start()
    assert fence.shut(30)
    assert not fence.acquire(0)
