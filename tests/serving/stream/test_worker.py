"""The worker on a real broker, one trouble at a time: how each ends, and which metric shows it."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pytest
from kafka import KafkaConsumer

from driftline.components.errors import UsageError
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import FencedError
from driftline.serving.records.embeddings import EmbeddedText, read_embedding
from driftline.serving.records.provenance import VALUE_OMITTED
from driftline.serving.records.record import Coordinates, Record, header
from driftline.serving.stream.settings import BatchLimits, BufferLimits
from tests.serving.stream.workers import (
    FakeEncoder,
    RunningWorker,
    Topics,
    by_source,
    check_vectors,
    running,
    texts,
    vector_of,
)
from tests.support.brokers import committed, create_topics, ends, eventually, fresh, produce, read_topic

DELIVERIES = ["exactly-once", "at-least-once"]


@pytest.fixture
def topics(bootstrap: str) -> Topics:
    return Topics.create(bootstrap)


def output(topics: Topics) -> list[Record]:
    return read_topic(topics.bootstrap, topics.output)


def dead(topics: Topics) -> list[Record]:
    return read_topic(topics.bootstrap, topics.dead_letters)


def lag_of(worker: RunningWorker, topics: Topics, partition: int) -> float | None:
    labels = {"topic": topics.source, "partition": str(partition)}
    return worker.registry.get_sample_value("driftline_stream_lag_records", labels)


def is_done(topics: Topics) -> bool:
    sent = {partition: end for partition, end in ends(topics.bootstrap, topics.source).items() if end}
    return committed(topics.bootstrap, topics.group, topics.source) == sent


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_each_record_has_its_result(topics: Topics, delivery: str) -> None:
    sent = [
        *texts(300, keys=20),
        (b"k1", None, (("own", b"2"),)),
        (b"k2", b"{", ()),
        (b"\xff", b"x", ()),
    ]
    produce(topics.bootstrap, topics.source, sent)
    with running(topics, delivery=delivery, batch=BatchLimits(records=64)) as worker:
        eventually(lambda: is_done(topics))
        assert worker.metric("written_records_total", outcome="embedding") == 300
        assert worker.metric("written_records_total", outcome="tombstone") == 1
        assert worker.metric("dead_letters_total", reason="key-encoding") == 1
        eventually(lambda: {lag_of(worker, topics, number) for number in range(4)} == {0.0})
    found = output(topics)
    check_vectors([record for record in found if record.value is not None])
    [tombstone] = [record for record in found if record.value is None]
    assert tombstone.key == b"k1"
    assert header(tombstone.headers, "own") == b"2"
    letters = {header(letter.headers, "driftline-error-reason"): letter for letter in dead(topics)}
    assert set(letters) == {b"not-json", b"key-encoding"}
    assert (letters[b"not-json"].key, letters[b"not-json"].value) == (b"k2", b"{")
    assert letters[b"key-encoding"].key == b"\xff"
    assert all(len(results) == 1 for results in by_source([*found, *dead(topics)]).values())
    last: dict[bytes | None, int] = defaultdict(lambda: -1)
    for record in found:
        if record.value is not None:
            number = int((read_embedding(record.value).text or "").split()[1])
            assert number > last[record.key]
            last[record.key] = number


def test_results_have_no_texts_and_short_vectors_where_that_is_asked_for(topics: Topics) -> None:
    produce(topics.bootstrap, topics.source, [(b"a", b"plain words", ())])
    with running(topics, payload="text", with_text=False, vectors="base64"):
        eventually(lambda: is_done(topics))
    [record] = output(topics)
    assert record.value is not None
    value = json.loads(record.value)
    assert set(value) == {"id", "model", "revision", "embedding"}
    assert isinstance(value["embedding"], str)
    np.testing.assert_array_equal(read_embedding(record.value).vector, vector_of("plain words"))


def test_a_second_worker_shares_the_partitions_and_a_rebalance_in_mid_batch_doubles_nothing(topics: Topics) -> None:
    slow = FakeEncoder(seconds=0.4)
    limits = {"batch": BatchLimits(records=20), "buffer": BufferLimits(records=100)}
    produce(topics.bootstrap, topics.source, texts(800, keys=40))
    with running(topics, slow, **limits) as first:
        eventually(lambda: first.metric("commits_total") >= 3)
        with running(topics, slow, instance_id="w1", **limits) as second:
            eventually(lambda: (first.metric("partitions"), second.metric("partitions")) == (2, 2))
            produce(topics.bootstrap, topics.source, texts(100, keys=40, start=800))
            eventually(lambda: second.metric("commits_total") >= 1)
            assert first.metric("rebalances_total") >= 2
        eventually(lambda: is_done(topics))
        eventually(lambda: first.metric("partitions") == 4)
    found = output(topics)
    assert len(found) == 900
    assert all(len(results) == 1 for results in by_source(found).values())


def test_a_text_that_the_model_fails_on_is_a_dead_letter(topics: Topics) -> None:
    produce(topics.bootstrap, topics.source, texts(100))
    with running(topics, FakeEncoder(fails=frozenset({"text 7", "text 42"}))) as worker:
        eventually(lambda: is_done(topics))
        assert worker.metric("dead_letters_total", reason="model") == 2
    assert sorted(letter.key or b"" for letter in dead(topics)) == [b"k42", b"k7"]
    assert len(output(topics)) == 98


def test_a_model_that_fails_on_everything_ends_the_worker_and_loses_nothing(topics: Topics) -> None:
    produce(topics.bootstrap, topics.source, texts(10))
    everything = frozenset({"a text like any other", *(f"text {number}" for number in range(10))})
    worker = RunningWorker(topics, FakeEncoder(fails=everything), topics.settings())
    worker.thread.join(30)
    assert isinstance(worker.error, UnavailableError)
    assert "it fails on every text (this text is too much)" in str(worker.error)
    assert (output(topics), dead(topics)) == ([], [])
    with running(topics):
        eventually(lambda: is_done(topics))
    assert len(output(topics)) == 10


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_result_too_large_for_its_topic_is_a_dead_letter(topics: Topics, delivery: str) -> None:
    """Brokers take 1,048,588 bytes by default; a text of a little less comes in, and not out with its vector."""
    fits_in = json.dumps({"text": "a" * 1_048_300}).encode()
    sent = [*texts(20, keys=3), (b"large", fits_in, ()), *texts(20, keys=3, start=20)]
    produce(topics.bootstrap, topics.source, sent)
    with running(topics, delivery=delivery) as worker:
        eventually(lambda: is_done(topics))
        assert worker.metric("dead_letters_total", reason="too-large") == 1
    [letter] = dead(topics)
    assert (letter.key, letter.value) == (b"large", b"")
    assert int(header(letter.headers, VALUE_OMITTED) or b"") == len(fits_in)
    found = output(topics)
    check_vectors(found)
    assert {len(results) for results in by_source(found).values()} == {1}
    assert len(found) == 40


def test_it_pauses_where_the_buffer_is_full_and_goes_on(topics: Topics) -> None:
    gate = threading.Event()

    class Blocked(FakeEncoder):
        def encode(self, texts: Sequence[str]):
            gate.wait(60)
            return super().encode(texts)

    produce(topics.bootstrap, topics.source, texts(500))
    limits = {"batch": BatchLimits(records=10), "buffer": BufferLimits(records=50)}
    with running(topics, Blocked(), options={"health_port": 0}, **limits) as worker:
        eventually(lambda: worker.metric("paused") == 1)
        assert worker.metric("buffered_records") <= 60
        assert worker.metric("received_records_total") < 200
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/livez") as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics") as answer:
            assert b"driftline_stream_paused 1.0" in answer.read()
        gate.set()
        eventually(lambda: is_done(topics))
        eventually(lambda: worker.metric("paused") == 0)
    assert len(output(topics)) == 500


def test_a_worker_told_to_end_finishes_what_is_in_hand(topics: Topics) -> None:
    produce(topics.bootstrap, topics.source, texts(2000))  # ten seconds' work
    with running(topics, FakeEncoder(seconds=0.2), batch=BatchLimits(records=20)) as worker:
        eventually(lambda: worker.metric("commits_total") >= 2)
    found = output(topics)
    assert 40 <= len(found) < 2000
    done = committed(topics.bootstrap, topics.group, topics.source)
    places = {(record.at.partition, record.at.offset) for record in read_topic(topics.bootstrap, topics.source)}
    assert len(found) == sum(offset < done.get(partition, 0) for partition, offset in places)
    with running(topics):
        eventually(lambda: is_done(topics))
    assert {len(results) for results in by_source(output(topics)).values()} == {1}
    assert len(output(topics)) == 2000


def test_a_slow_reader_of_the_output_holds_nothing_up(topics: Topics) -> None:
    reader = KafkaConsumer(
        topics.output, bootstrap_servers=topics.bootstrap, group_id=fresh("slow"), auto_offset_reset="earliest"
    )
    produce(topics.bootstrap, topics.source, texts(200))
    with running(topics):
        while not reader.poll(timeout_ms=200, max_records=1):
            pass
        produce(topics.bootstrap, topics.source, texts(200, start=200))
        eventually(lambda: is_done(topics))
    reader.close()
    assert len(output(topics)) == 400


def test_an_observer_sees_what_was_committed(topics: Topics) -> None:
    class Seen:
        def __init__(self) -> None:
            self.batches: list[tuple[EmbeddedText, Coordinates]] = []

        def observe(self, batch: Sequence[tuple[EmbeddedText, Coordinates]]) -> None:
            self.batches += batch

    seen = Seen()
    produce(topics.bootstrap, topics.source, [*texts(50), (b"k", None, ())])
    with running(topics, options={"observe": lambda registry: nullcontext(seen)}):
        eventually(lambda: is_done(topics))
    assert sorted(embedded.id for embedded, _ in seen.batches) == sorted(f"k{number}" for number in range(50))
    assert {at.topic for _, at in seen.batches} == {topics.source}


def test_another_worker_of_the_same_name_shuts_the_first_one_out(topics: Topics) -> None:
    produce(topics.bootstrap, topics.source, texts(10))
    first = RunningWorker(topics, FakeEncoder(), topics.settings())
    eventually(lambda: is_done(topics))
    with running(topics) as second:
        eventually(lambda: second.metric("partitions") == 4)
        produce(topics.bootstrap, topics.source, texts(100, start=10))
        first.thread.join(60)
        assert isinstance(first.error, FencedError)
        eventually(lambda: is_done(topics))
    assert {len(results) for results in by_source(output(topics)).values()} == {1}
    assert len(output(topics)) == 110


@pytest.mark.parametrize(("missing", "create"), [("source", True), ("output", False), ("dead_letters", False)])
def test_a_missing_topic_is_named(bootstrap: str, missing: str, create: bool) -> None:
    names = {"source": fresh("texts"), "output": fresh("embeddings"), "dead_letters": fresh("dead")}
    create_topics(bootstrap, {name: 2 for kind, name in names.items() if kind != missing})
    topics = Topics(bootstrap, names["source"], names["output"], names["dead_letters"], fresh("group"))
    settings = topics.settings(dead_letters=names["dead_letters"])
    worker = RunningWorker(topics, FakeEncoder(), settings, create_topics=create)
    worker.thread.join(30)
    assert isinstance(worker.error, UsageError)
    assert f"topic {names[missing]}: is not at {bootstrap}; create it" in str(worker.error)


def test_missing_topics_of_results_are_created_where_that_is_wanted(bootstrap: str) -> None:
    source = fresh("texts")
    create_topics(bootstrap, {source: 3})
    topics = Topics(bootstrap, source, fresh("embeddings"), source + ".dead-letters", fresh("group"))
    produce(bootstrap, source, [*texts(5), (b"k", b"{", ())])
    with running(topics, options={"create_topics": True}):
        eventually(lambda: is_done(topics))
    assert set(ends(bootstrap, topics.output)) == set(ends(bootstrap, topics.dead_letters)) == {0, 1, 2}
    assert (len(output(topics)), len(dead(topics))) == (5, 1)


@pytest.mark.slow
def test_memory_is_flat(topics: Topics) -> None:
    """Resident memory after many batches is that after a few."""
    page = os.sysconf("SC_PAGE_SIZE")

    def resident() -> int:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * page

    with running(topics, batch=BatchLimits(records=200), with_text=False) as worker:
        sizes: list[int] = []
        for round_ in range(8):
            produce(topics.bootstrap, topics.source, texts(1500, keys=50, start=1500 * round_))
            eventually(
                lambda count=1500 * (round_ + 1): worker.metric("written_records_total", outcome="embedding") == count
            )
            sizes.append(resident())
    assert sizes[-1] < sizes[2] + 24 * 2**20
