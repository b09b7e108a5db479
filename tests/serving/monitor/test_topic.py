"""The topic of embeddings on a real broker: offsets, order, transactions, partitions that come, records that go."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions

from driftline.components.errors import UsageError
from driftline.serving.monitor import topic as module
from driftline.serving.monitor.topic import EmbeddingsTopic
from driftline.serving.records.record import Record
from tests.support.brokers import create_topics, eventually, fresh, settings_of, tansu_broker


@pytest.fixture
def new_topic(bootstrap: str) -> Callable[[int], str]:
    def create(partitions: int) -> str:
        name = fresh("embeddings")
        create_topics(bootstrap, {name: partitions})
        return name

    return create


EPOCH_MS = round(time.time() * 1000) - 3_600_000
"""An hour ago: brokers remove records that are older than a topic's retention."""


def send(bootstrap: str, topic: str, places: list[tuple[int, int]]) -> None:
    """Produce records of given (partition, milliseconds after EPOCH_MS)."""
    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:
        for partition, time_ms in places:
            producer.send(topic, key=b"k", value=b"v", partition=partition, timestamp_ms=EPOCH_MS + time_ms)
        producer.flush()


def taken(topic: EmbeddingsTopic, count: int) -> list[Record]:
    """Poll until there are so many records, and a little longer."""
    found: list[Record] = []
    eventually(lambda: found.extend(topic.poll(0.2)) or len(found) >= count)
    return [*found, *topic.poll(0.2)]


def times(records: list[Record]) -> list[int]:
    return [found.at.timestamp_ms - EPOCH_MS for found in records]


def opened(bootstrap: str, topic: str, offsets: dict[int, int] | None = None) -> closing[EmbeddingsTopic]:
    return closing(EmbeddingsTopic(settings_of(bootstrap), topic, offsets, "earliest"))


def test_what_lies_there_comes_by_time_from_any_offsets(bootstrap: str, new_topic: Callable[[int], str]) -> None:
    name = new_topic(3)
    places = [(number * number % 3, 1_000 + 7 * number % 50) for number in range(60)]
    send(bootstrap, name, places)
    with opened(bootstrap, name) as topic:
        whole = [found.at for found in taken(topic, 60)]
    assert len(whole) == 60
    heads = dict(reversed(places))
    assert whole[0].timestamp_ms == EPOCH_MS + min(heads.values())
    for cut in (1, 17, 42):
        offsets = {partition: sum(at.partition == partition for at in whole[:cut]) for partition in range(3)}
        with opened(bootstrap, name, offsets) as topic:
            assert [found.at for found in taken(topic, 60 - cut)] == whole[cut:]


def test_where_a_new_monitor_begins(bootstrap: str, new_topic: Callable[[int], str]) -> None:
    name = new_topic(2)
    send(bootstrap, name, [(0, 1), (0, 2), (1, 3)])
    with closing(EmbeddingsTopic(settings_of(bootstrap), name, None, "latest")) as topic:
        assert topic.offsets == {0: 2, 1: 1}
        send(bootstrap, name, [(1, 4)])
        assert times(taken(topic, 1)) == [4]
    # A partition that the state does not know is new: it is watched from its start.
    with closing(EmbeddingsTopic(settings_of(bootstrap), name, {0: 1}, "latest")) as topic:
        assert topic.offsets == {0: 1, 1: 0}


def test_aborted_records_are_not_seen_and_marks_hold_nothing_up(
    bootstrap: str, new_topic: Callable[[int], str]
) -> None:
    name = new_topic(2)
    with closing(KafkaProducer(bootstrap_servers=bootstrap, transactional_id=fresh("writer"))) as producer:
        producer.init_transactions()
        for number in range(3):
            producer.begin_transaction()
            for place in range(10):
                producer.send(
                    name, key=b"k", value=b"v", partition=place % 2, timestamp_ms=EPOCH_MS + 1_000 * number + place
                )
            if number == 1:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
    clock = [0.0]
    with closing(EmbeddingsTopic(settings_of(bootstrap), name, None, "earliest", lambda: clock[0])) as topic:
        # By this clock, no patience is ever used up.
        assert times(taken(topic, 20)) == [*range(10), *range(2_000, 2_010)]
        eventually(lambda: topic.poll(0.1) == [] and topic.lags() == {0: 0, 1: 0})


def test_the_lag(bootstrap: str, new_topic: Callable[[int], str]) -> None:
    name = new_topic(2)
    send(bootstrap, name, [(0, 1), (0, 2), (1, 3)])
    with opened(bootstrap, name) as topic:
        assert topic.lags() == {0: 2, 1: 1}
        taken(topic, 3)
        assert topic.lags() == {0: 0, 1: 0}


def test_partitions_that_are_added_are_watched(
    bootstrap: str, new_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_METADATA_AGE_MS", 300)
    name = new_topic(1)
    send(bootstrap, name, [(0, 1)])
    with opened(bootstrap, name) as topic:
        taken(topic, 1)
        with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
            admin.create_partitions({name: NewPartitions(3)})
        send(bootstrap, name, [(0, 2), (1, 3), (2, 4)])
        assert [(found.at.partition, found.at.offset) for found in taken(topic, 3)] == [(0, 1), (1, 0), (2, 0)]


def test_records_that_were_removed_are_counted(
    bootstrap: str, new_topic: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    name = new_topic(1)
    send(bootstrap, name, [(0, time_ms) for time_ms in range(10)])
    with opened(bootstrap, name) as topic, closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        admin.delete_records({TopicPartition(name, 0): 8})
        assert [found.at.offset for found in taken(topic, 2)] == [8, 9]
        assert topic.lost == 8
    with opened(bootstrap, name, {0: 3}) as topic:
        assert (topic.offsets, topic.lost) == ({0: 8}, 5)
    assert f"{name}[0]: 8 records from offset 0 on were removed before they were watched" in caplog.messages


def test_a_topic_that_was_made_anew_is_watched_from_its_end(
    bootstrap: str, new_topic: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    name = new_topic(1)
    send(bootstrap, name, [(0, 1), (0, 2)])
    with opened(bootstrap, name, {0: 500}) as topic:
        eventually(lambda: topic.poll(0.2) == [] and "made anew" in caplog.text)
        send(bootstrap, name, [(0, 3)])
        assert times(taken(topic, 1)) == [3]
    assert f"{name}[0]: ends at offset 2, and 500 had been watched" in caplog.text


def test_tansu_gives_each_record_once_over_a_restart() -> None:
    with tansu_broker() as bootstrap:
        name = fresh("embeddings")
        create_topics(bootstrap, {name: 2})
        send(bootstrap, name, [(number % 2, number) for number in range(20)])
        with opened(bootstrap, name) as topic:
            assert len(taken(topic, 20)) == 20
        with opened(bootstrap, name, {0: 10, 1: 10}) as topic:
            send(bootstrap, name, [(0, 99)])
            assert times(taken(topic, 1)) == [99]


def test_a_missing_topic_is_told(bootstrap: str) -> None:
    with pytest.raises(UsageError, match=r"topic none: is not at .*; name the topic that the stream worker writes"):
        EmbeddingsTopic(settings_of(bootstrap), "none", None, "earliest")
