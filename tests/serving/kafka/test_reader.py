"""What the reader adds to kafka-python's consumer, on a real broker."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from kafka.admin import NewPartitions
from kafka.errors import KafkaTimeoutError

from driftline.components.errors import UsageError
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import open_admin
from driftline.serving.kafka.reader import GroupReader, OffsetGoneError, TopicReader, read_topic
from tests.support.brokers import create_topics, eventually, fresh, produce, settings_of


@pytest.fixture
def topic(bootstrap: str) -> str:
    name = fresh("t")
    create_topics(bootstrap, {name: 1})
    return name


def joined(reader: GroupReader, partitions: int) -> bool:
    return bool(reader.poll(0.1)) or len(reader.assigned()) == partitions


def test_an_answer_that_came_too_late_does_not_pass_for_the_committed_offset(bootstrap: str, topic: str) -> None:
    group = fresh("g")
    produce(bootstrap, topic, [(b"k", b"v", ())] * 6)
    with (
        closing(TopicReader(settings_of(bootstrap), topic, group=group)) as asking,
        closing(GroupReader(settings_of(bootstrap), topic, group)) as member,
    ):
        asking.assign([0])
        assert asking.committed([0]) == {}
        eventually(lambda: joined(member, 1))
        member.commit({0: 3})
        with pytest.raises(KafkaTimeoutError):
            asking._consumer.committed(asking._at(0), timeout_ms=0)
        kept = asking._consumer._coordinator._offset_fetch_futures
        eventually(lambda: asking._consumer.poll(timeout_ms=10) or all(found.is_done for found in kept.values()))
        member.commit({0: 5})
        assert asking.committed([0])[0].offset == 5


def test_a_join_that_a_poll_began_and_did_not_wait_for_is_made_good(bootstrap: str, topic: str) -> None:
    """kafka-python by itself leaves such a member without partitions and heartbeats, for good."""
    with (
        closing(GroupReader(settings_of(bootstrap), topic, fresh("g"), metadata_max_age_ms=300)) as reader,
        closing(open_admin(settings_of(bootstrap))) as admin,
    ):
        consumer = reader._consumer
        eventually(lambda: joined(reader, 1))
        admin.create_partitions({topic: NewPartitions(3)})
        eventually(lambda: consumer.poll(timeout_ms=0) or consumer._coordinator.rejoining)
        time.sleep(1.0)  # the broker lets it join meanwhile
        assert reader.assigned() == set()
        eventually(lambda: joined(reader, 3), timeout_s=20)


def test_a_member_goes_back_to_what_the_group_has_committed(bootstrap: str, topic: str) -> None:
    produce(bootstrap, topic, [(b"k", b"%d" % number, ()) for number in range(6)])
    group, revoked = fresh("g"), []
    with closing(GroupReader(settings_of(bootstrap), topic, group)) as reader:
        eventually(lambda: joined(reader, 1))
        assert reader.rewind() == {0: 0}
        reader.commit({0: 4, 1: 9})  # it has no partition 1
    with closing(GroupReader(settings_of(bootstrap), topic, group, lambda: revoked.append(1))) as reader:
        eventually(lambda: joined(reader, 1))
        assert reader.take_rebalanced()
        assert not reader.take_rebalanced()
        assert reader.membership() is not None
        assert reader.rewind() == {0: 4}
        assert [record.value for record in reader.read_until(reader.end_offsets([0]))] == [b"4", b"5"]
        assert (reader.position(0), reader.end(0)) == (6, 6)
    assert revoked == [1]
    assert reader.take_revoked() == {0}


def test_partitions_that_are_paused_give_nothing(bootstrap: str) -> None:
    topic = fresh("t")
    create_topics(bootstrap, {topic: 2})
    for number in (0, 1):
        produce(bootstrap, topic, [(b"k", b"%d" % number, ())], partition=number)
    with closing(TopicReader(settings_of(bootstrap), topic)) as reader:
        reader.assign(reader.partitions())
        assert reader.assigned() == {0, 1}
        reader.pause([1, 7])
        for number, offset in reader.first_offsets([0, 1]).items():
            reader.seek(number, offset)
        assert [record.value for record in reader.read_until({0: 1})] == [b"0"]
        assert reader.poll(0.2) == {}
        reader.pause([0])
        assert [record.value for record in reader.read_until({1: 1})] == [b"1"]


def test_an_offset_that_is_not_there_is_told(bootstrap: str, topic: str) -> None:
    with closing(TopicReader(settings_of(bootstrap), topic, auto_offset_reset="none")) as reader:
        reader.assign([0])
        reader.seek(0, 500)
        with pytest.raises(OffsetGoneError, match=f"topic {topic}: "):
            eventually(lambda: bool(reader.poll(0.1)))


def test_a_topic_is_read_from_its_beginning_to_its_end(bootstrap: str, topic: str) -> None:
    assert [*read_topic(settings_of(bootstrap), topic)] == []
    produce(bootstrap, topic, [(b"k", b"%d" % number, ()) for number in range(600)])
    assert [record.at.offset for record in read_topic(settings_of(bootstrap), topic)] == [*range(600)]


def test_a_missing_topic_and_a_missing_broker_are_told(bootstrap: str) -> None:
    with pytest.raises(UsageError, match=r"topic none: is not at .*; check its name"):
        next(read_topic(settings_of(bootstrap), "none"))
    with pytest.raises(UnavailableError, match=r"Kafka at 127\.0\.0\.1:9: .*; check the address"):
        TopicReader(settings_of("127.0.0.1:9"), "none", bootstrap_timeout_ms=500)
