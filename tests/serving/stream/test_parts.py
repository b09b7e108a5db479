"""The worker's parts by themselves: buffer, gate, encoding by halves, sizes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import DataError, UsageError
from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.records.record import Coordinates, Record, TextEvent, header
from driftline.serving.stream.buffer import Batch, Buffer
from driftline.serving.stream.encoding import encode_each
from driftline.serving.stream.gate import Gate
from driftline.serving.stream.incoming import Incoming
from driftline.serving.stream.letters import _note, _noted  # pyright: ignore[reportPrivateUsage]
from driftline.serving.stream.producing import KnownSizes
from driftline.serving.stream.results import VALUE_OMITTED, Result, ResultWriter
from driftline.serving.stream.settings import BatchLimits, BufferLimits, StreamSettings
from tests.serving.stream.workers import FakeEncoder, vector_of

WRITER = ResultWriter("out", "dead", "m", "r", "numbers", with_text=True)


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
    taken: list[Batch | None] = []
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
    assert batch == Batch(3, (item("new"),), "m")
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


def test_nothing_passes_after_a_write_that_failed_until_the_next_attempt() -> None:
    gate = Gate()
    assert gate.enter(0)
    gate.leave(written=True)
    assert gate.enter(0)
    gate.leave(written=False)
    assert not gate.is_open
    assert not gate.enter(0)
    attempt = gate.reopen()
    assert not gate.enter(0), "a batch of the attempt before"
    assert gate.enter(attempt)
    gate.leave(written=True)
    assert gate.is_open


def test_shutting_waits_for_the_write_under_way() -> None:
    gate = Gate()
    assert gate.enter(0)
    assert not gate.shut(0.01)
    threading.Timer(0.05, lambda: gate.leave(written=True)).start()
    assert gate.shut(30)
    assert not gate.enter(0)


@given(st.sets(st.integers(0, 30)), st.integers(0, 31))
def test_the_texts_that_fail_are_found_and_the_others_have_their_vectors(failing: set[int], count: int) -> None:
    texts = [f"text {number}" for number in range(count)]
    encoder = FakeEncoder(fails=frozenset(f"text {number}" for number in failing), error=DataError)
    found = encode_each(encoder, texts)
    assert len(found) == count
    for number, (text, result) in enumerate(zip(texts, found, strict=True)):
        if isinstance(result, PoisonError):
            assert number in failing
            assert result.reason == "model"
        else:
            assert number not in failing
            np.testing.assert_array_equal(result, vector_of(text))


def test_one_bad_text_costs_a_logarithm_of_calls() -> None:
    encoder = FakeEncoder(fails=frozenset({"text 700"}))
    encode_each(encoder, [f"text {number}" for number in range(1024)])
    assert len(encoder.batches) <= 2 + 2 * 10 + 1


def test_a_model_that_breaks_is_not_the_texts_fault() -> None:
    class Breaking(FakeEncoder):
        def encode(self, texts: Sequence[str]):
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(UnavailableError, match=r"it fails on every text .CUDA error"):
        encode_each(Breaking(), ["a", "b"])


def test_a_bug_is_not_taken_for_a_text_that_fails() -> None:
    class Odd(FakeEncoder):
        def encode(self, texts: Sequence[str]):
            raise AttributeError("no such thing")

    with pytest.raises(AttributeError):
        encode_each(Odd(), ["a"])


def test_what_a_topic_refused_is_not_sent_again() -> None:
    sizes = KnownSizes(WRITER.too_large)
    record = Record(b"k", b"v" * 1000, (), Coordinates("texts", 0, 1, 0))
    large = Result("out", b"k", b"x" * 5000, (), record)
    letter = sizes.refuse(large)
    assert (letter.topic, letter.reason, letter.value) == ("dead", "too-large", record.value)
    assert sizes.fit(Result("out", b"k", b"x" * 6000, (), record)).reason == "too-large"
    small = Result("out", b"k", b"x" * 10, (), record)
    assert sizes.fit(small) is small
    empty = sizes.refuse(letter)
    assert (empty.topic, empty.value, empty.reason) == ("dead", b"", "too-large")
    assert header(empty.headers, VALUE_OMITTED) == b"1000"
    assert sizes.fit(large) == empty


def test_a_record_with_neither_key_nor_value_has_a_dead_letter_that_can_be_sent() -> None:
    record = Record(None, None, (), Coordinates("texts", 0, 1, 0))
    letter = WRITER.dead_letter(record, PoisonError("tombstone-without-key", "it is nothing"))
    assert (letter.key, letter.value) == (None, b"")


@given(st.integers(0, 10**9), st.sets(st.integers(1, 5000)))
def test_notes_of_what_was_sent_back_are_read_as_written(base: int, behind: set[int]) -> None:
    done = {base + offset for offset in behind}
    assert _noted(base, _note(base, done)) == done


def test_a_note_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(UsageError, match="the note beside committed offset 7 is damaged"):
        _noted(7, "someone else's")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "texts"}, "must be three different ones"),
        ({"source": "no spaces, please"}, "source: expected 1 to 249 letters"),
        ({"instance_id": ""}, "instance-id: expected"),
        ({"buffer": BufferLimits(records=10)}, "buffer-records: expected at least a batch's 512"),
        ({"static": False, "stay": True}, "stay: a dynamic member has no place"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    plain = {"source": "texts", "output": "out", "group": "g", "instance_id": "w0"}
    with pytest.raises(UsageError, match=message):
        StreamSettings(**{**plain, **changes})  # type: ignore[arg-type]
