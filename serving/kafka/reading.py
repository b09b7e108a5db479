"""Topics read from their beginning to where they end, by nobody's group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from driftline.components.errors import UsageError, one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import brokers, open_consumer, poll, record_of
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.record import Record

_POLL_S: Final = 0.5
_SILENCE_S: Final = 30.0  # a broker that has what was asked for answers sooner, even one that has just been started


def read_topic(kafka: KafkaSettings, topic: str) -> Iterator[Record]:
    """Yield the committed records that a topic holds now; those of a partition in order.

    Args:
        kafka: how to reach the cluster.
        topic: the topic.

    Raises:
        UsageError: there is no such topic.
        UnavailableError: the broker does not answer, or stops answering.
    """
    consumer = open_consumer(kafka, group=None)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise UsageError(f"topic {topic}: is not at {brokers(kafka)}; check its name")
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        for _, record in records_before(consumer, ends):
            yield record
    except KafkaError as error:
        raise UnavailableError(f"topic {topic} at {brokers(kafka)}: {one_line(error)}") from error
    finally:
        consumer.close()


def records_before(consumer: Any, ends: Mapping[TopicPartition, int]) -> Iterator[tuple[TopicPartition, Record]]:
    """Yield the records from a consumer's positions on to where its partitions end.

    Args:
        consumer: with these partitions assigned.
        ends: the offset behind the last record wanted of each.

    Raises:
        UnavailableError: the broker has sent nothing for half a minute, although there is more.
    """
    heard_s = time.monotonic()
    while any((consumer.position(at) or 0) < end for at, end in ends.items()):
        polled = poll(consumer, _POLL_S)
        if polled:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > _SILENCE_S:
            topics = ", ".join(sorted({at.topic for at in ends}))
            raise UnavailableError(f"topic {topics}: the broker has sent nothing for {_SILENCE_S:.0f} s; try again")
        for at, records in polled.items():
            yield from ((at, record_of(found)) for found in records if found.offset < ends[at])
