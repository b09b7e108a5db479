"""What Driftline adds to kafka-python's clients, on a real broker."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kafka.admin import NewPartitions
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.serving.kafka.client import assigned, committed, open_admin, open_consumer, poll
from tests.support.brokers import create_topics, eventually, fresh, noida_broker, settings_of


def test_an_answer_that_came_too_late_does_not_pass_for_the_committed_offset() -> None:
    with noida_broker() as bootstrap:
        _ask_too_early(bootstrap)


def _ask_too_early(bootstrap: str) -> None:
    topic, group = fresh("t"), fresh("g")
    create_topics(bootstrap, {topic: 1})
    at = TopicPartition(topic, 0)
    asking = open_consumer(settings_of(bootstrap), group=group)
    other = open_consumer(settings_of(bootstrap), group=group)
    try:
        for consumer in (asking, other):
            consumer.assign([at])
        assert committed(asking, [at], 10) == {at: None}
        other.commit({at: OffsetAndMetadata(3, "", -1)})
        with pytest.raises(KafkaTimeoutError):
            asking.committed(at, timeout_ms=0)
        time.sleep(0.5)  # the answer comes, and is kept
        other.commit({at: OffsetAndMetadata(5, "", -1)})
        assert committed(asking, [at], 10) == {at: 5}
    finally:
        asking.close()
        other.close()


def test_a_join_that_a_poll_began_and_did_not_wait_for_is_made_good() -> None:
    """kafka-python by itself leaves such a member without partitions and heartbeats, for good."""
    with noida_broker() as bootstrap:
        topic = fresh("t")
        create_topics(bootstrap, {topic: 1})
        consumer: Any = open_consumer(settings_of(bootstrap), group=fresh("g"), metadata_max_age_ms=300)
        admin = open_admin(settings_of(bootstrap))
        try:
            consumer.subscribe([topic])
            eventually(lambda: poll(consumer, 0.1) or len(assigned(consumer)) == 1)
            admin.create_partitions({topic: NewPartitions(3)})
            eventually(lambda: consumer.poll(timeout_ms=0) or consumer._coordinator.rejoining)
            time.sleep(1.0)  # the broker lets it join meanwhile
            assert assigned(consumer) == set()
            eventually(lambda: poll(consumer, 0.1) or len(assigned(consumer)) == 3, timeout_s=20)
        finally:
            consumer.close()
            admin.close()
