"""The embeddings topic, as a member of a consumer group reads it from offsets that the archive itself keeps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    RetriableError,  # pyright: ignore[reportAttributeAccessIssue]  # (its stubs are older than it)
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import DataError, one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import assigned, poll, record_of
from driftline.serving.records.record import Record

LOGGER: Final = logging.getLogger("driftline.archive")

_ANSWER_TIMEOUT_MS: Final = 5000  # a broker that is there answers in milliseconds; the loop must go on turning
_CLOSE_TIMEOUT_MS: Final = 5000


class Source(Protocol):
    """Records of the partitions that this worker has, by their numbers. Belongs to one thread."""

    def poll(self, timeout_s: float, max_records: int) -> dict[int, list[Record]]:
        """Return what there is, each partition's records in order."""
        ...

    def assigned(self) -> set[int]:
        """Return the partitions that this worker has now."""
        ...

    def take_revoked(self) -> set[int]:
        """Return the partitions that were taken away, and perhaps given back, since this was last asked."""
        ...

    def go_to(self, partition: int, offset: int) -> int:
        """Go on at an offset, or at the oldest record behind it; return where."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Go on at an offset that was read before."""
        ...

    def position(self, partition: int) -> int:
        """Return the offset behind everything that was returned by `poll`."""
        ...

    def end(self, partition: int) -> int | None:
        """Return the offset behind the last record, as the broker said it last; None where it did not yet."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell the group how far the archive is; it is no loss where that fails."""
        ...

    def pause(self, partitions: set[int]) -> None:
        """Have `poll` return records of all partitions but these."""
        ...

    def close(self) -> None:
        """End the membership; a static one waits for its return."""
        ...


class KafkaSource:
    """A source on a KafkaConsumer; see :class:`Source`.

    Args:
        consumer: with its group and its instance id.
        topic: the embeddings topic.
    """

    def __init__(self, consumer: Any, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._listener = _Listener()
        consumer.subscribe([topic], listener=self._listener)

    def poll(self, timeout_s: float, max_records: int) -> dict[int, list[Record]]:
        """Return what there is, each partition's records in order.

        Raises:
            UnavailableError: the broker refuses, for good.
        """
        try:
            polled = poll(self._consumer, timeout_s, max_records)
        except FencedInstanceIdError as error:
            raise UnavailableError(
                "consumer group: another worker has the same instance-id; give each one an id of its own"
            ) from error
        except RetriableError as error:
            LOGGER.warning("topic %s: %s; trying again", self._topic, one_line(error))
            return {}
        except KafkaError as error:
            raise UnavailableError(
                f"topic {self._topic}: {one_line(error)}; see to the broker and its rights"
            ) from error
        return {at.partition: [record_of(found) for found in records] for at, records in polled.items()}

    def assigned(self) -> set[int]:
        """Return the partitions that this worker has now."""
        return {at.partition for at in self._consumer.assignment()}

    def take_revoked(self) -> set[int]:
        """Return the partitions that were taken away, and perhaps given back, since this was last asked."""
        revoked, self._listener.revoked = self._listener.revoked, set()
        return revoked

    def go_to(self, partition: int, offset: int) -> int:
        """Go on at an offset, or at the oldest record behind it; return where.

        Raises:
            DataError: the topic ends before the offset.
            UnavailableError: the broker does not say now.
        """
        at = self._at(partition)
        try:
            first = self._consumer.beginning_offsets([at], timeout_ms=_ANSWER_TIMEOUT_MS)[at]
            end = self._consumer.end_offsets([at], timeout_ms=_ANSWER_TIMEOUT_MS)[at]
        except KafkaError as error:
            raise UnavailableError(f"topic {self._topic}: offsets: {one_line(error)}") from error
        # One past the end is allowed: there are brokers that name the last record's offset as the end.
        if offset > end + 1:
            raise DataError(
                f"topic {self._topic}, partition {partition}: ends at offset {end}, the archive has it up to "
                f"{offset}; the topic was made anew or lost records: archive it into another folder"
            )
        start = max(first, offset)
        if 0 < offset < first:
            LOGGER.error(
                "topic %s, partition %d: records %d to %d had expired before they were archived",
                self._topic,
                partition,
                offset,
                first - 1,
            )
        self.seek(partition, start)
        return start

    def seek(self, partition: int, offset: int) -> None:
        """Go on at an offset that was read before."""
        self._consumer.seek(self._at(partition), offset)

    def position(self, partition: int) -> int:
        """Return the offset behind everything that was returned by `poll`.

        Raises:
            UnavailableError: the broker does not say now.
        """
        try:
            return self._consumer.position(self._at(partition), timeout_ms=_ANSWER_TIMEOUT_MS)
        except KafkaError as error:
            raise UnavailableError(f"topic {self._topic}: position: {one_line(error)}") from error

    def end(self, partition: int) -> int | None:
        """Return the offset behind the last record, as the broker said it last; None where it did not yet."""
        return self._consumer.highwater(self._at(partition))

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell the group how far the archive is; it is no loss where that fails."""
        mine = assigned(self._consumer)
        kept = {
            self._at(at): OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items() if self._at(at) in mine
        }
        if kept:
            try:
                self._consumer.commit(kept, timeout_ms=_ANSWER_TIMEOUT_MS)
            except KafkaError as error:
                LOGGER.warning("topic %s: commit: %s; the lag shows late", self._topic, one_line(error))

    def pause(self, partitions: set[int]) -> None:
        """Have `poll` return records of all partitions but these."""
        mine = self.assigned()
        resumed = [at for at in self._consumer.paused() if at.partition not in partitions]
        self._consumer.resume(*resumed)
        self._consumer.pause(*(self._at(number) for number in partitions & mine))

    def close(self) -> None:
        """End the membership; a static one waits for its return."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_MS)
        except KafkaError as error:
            LOGGER.warning("topic %s: leaving the group: %s", self._topic, one_line(error))

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)


class _Listener(ConsumerRebalanceListener):
    """Remembers what happened, for the loop to look at."""

    def __init__(self) -> None:
        self.revoked: set[int] = set()

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.revoked |= {at.partition for at in revoked}

    def on_partitions_lost(self, lost: Any) -> None:
        self.revoked |= {at.partition for at in lost}

    def on_partitions_assigned(self, assigned: Any) -> None:
        pass
