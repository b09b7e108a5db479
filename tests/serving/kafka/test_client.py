"""The private parts of kafka-python that are used: a version without them fails here, not in a worker."""

from __future__ import annotations

from typing import Any

from driftline.serving.kafka.client import forget_late_answers, is_joining, join_group, open_consumer
from tests.support.brokers import create_topics, eventually, fresh, settings_of


def test_kafka_python_has_the_private_parts_that_are_used(bootstrap: str) -> None:
    topic = fresh("t")
    create_topics(bootstrap, {topic: 1})
    consumer: Any = open_consumer(settings_of(bootstrap), group=fresh("g"))
    try:
        coordinator = consumer._coordinator
        assert isinstance(coordinator._offset_fetch_futures, dict)
        assert coordinator.rejoining is False
        for name in ("need_rejoin", "request_rejoin", "coordinator_unknown", "poll"):
            assert callable(getattr(coordinator, name))
        consumer.subscribe([topic])
        assert coordinator.need_rejoin()
        eventually(lambda: join_group(consumer, 5.0))
        assert not is_joining(consumer)
        assert len(consumer.assignment()) == 1
        coordinator._offset_fetch_futures["kept"] = object()
        forget_late_answers(consumer)
        assert coordinator._offset_fetch_futures == {}
    finally:
        consumer.close()


def test_a_reader_without_a_group_joins_none(bootstrap: str) -> None:
    consumer = open_consumer(settings_of(bootstrap), group=None)
    try:
        assert not is_joining(consumer)
        assert join_group(consumer, 0.0)
    finally:
        consumer.close()
