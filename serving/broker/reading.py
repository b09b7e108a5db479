"""Topics read from their beginning to where they end, by nobody's group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from driftline.components.errors import UsageError
from driftline.serving.broker.clients import brokers, line, open_consumer, poll, record_of
from driftline.serving.broker.settings import KafkaSettings
from driftline.serving.errors import UnavailableError
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
        heard_s = time.monotonic()
        while any((consumer.position(at) or 0) < end for at, end in ends.items()):
            polled = poll(consumer, _POLL_S)
            if polled:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _SILENCE_S:
                raise UnavailableError(f"topic {topic}: the broker has sent nothing for {_SILENCE_S:.0f} s; try again")
            for at, records in polled.items():
                yield from (record_of(found) for found in records if found.offset < ends[at])
    except KafkaError as error:
        raise UnavailableError(f"topic {topic} at {brokers(kafka)}: {line(error)}") from error
    finally:
        consumer.close()
