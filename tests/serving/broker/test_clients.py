"""What Driftline adds to kafka-python's clients, on a real broker."""

from __future__ import annotations

import time

import pytest
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.serving.broker.clients import committed, open_consumer
from tests.support.brokers import create_topics, fresh, noida_broker, settings_of


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
