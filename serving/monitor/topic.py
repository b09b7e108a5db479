"""The topic of embeddings, read whole by one consumer from offsets that the monitor keeps itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,  # pyright: ignore[reportAttributeAccessIssue] - the types are those of kafka-python 2
    OffsetOutOfRangeError,
)
from kafka.structs import TopicPartition

from driftline.components.errors import UsageError, one_line
from driftline.components.steps import LOGGER
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import brokers, open_consumer, poll, record_of
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.monitor.merge import TimeMerge
from driftline.serving.monitor.settings import StartAt
from driftline.serving.records.record import Record

_POLL_RECORDS: Final = 500
_HELD_RECORDS: Final = 10_000  # of all partitions together; a record is some kilobytes
_LEAST_HELD: Final = 100
_PATIENCE_S: Final = 2.0  # a leader that moves elsewhere takes about that
_ENDS_INTERVAL_S: Final = 1.0  # how old the lag may be
_ENDS_TIMEOUT_MS: Final = 5_000  # a broker that is away holds up the loop, and with it SIGTERM, no longer
_START_TIMEOUT_MS: Final = 30_000
_METADATA_AGE_MS: Final = 60_000  # after which partitions that were added are seen


class EmbeddingsTopic:
    """Reads all partitions of a topic, merged by time. Not safe for use by several threads at once.

    Attributes:
        offsets: where reading began, by partition; partitions that appear later begin at their start.
        lost: records that were gone before they could be read, as far as offsets tell.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        offsets: Mapping[int, int] | None,
        start_at: StartAt,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Find the partitions and go to the offsets.

        Args:
            kafka: how to reach the cluster.
            topic: the topic.
            offsets: by partition, of the next record to read; None to begin as ``start_at`` says.
            start_at: where to begin without offsets.
            clock: seconds, monotonic.

        Raises:
            UsageError: the topic is not there.
            UnavailableError: no broker answers.
        """
        self._kafka = kafka
        self._topic = topic
        self._clock = clock
        self._reachable = clock()
        self._looked = clock()
        self.lost = 0
        # No group: nothing may move the partitions elsewhere, and offsets are kept beside the state they belong to.
        self._consumer: Any = open_consumer(
            kafka, group=None, auto_offset_reset="none", metadata_max_age_ms=_METADATA_AGE_MS
        )
        try:
            numbers = self._consumer.partitions_for_topic(topic)
            if not numbers:
                raise UsageError(
                    f"topic {topic}: is not at {brokers(kafka)}; name the topic that the stream worker writes, or "
                    "create it"
                )
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            self._consumer.assign(partitions)
            first: dict[TopicPartition, int] = self._consumer.beginning_offsets(
                partitions, timeout_ms=_START_TIMEOUT_MS
            )
            self._ends: dict[TopicPartition, int] = self._consumer.end_offsets(partitions, timeout_ms=_START_TIMEOUT_MS)
            fresh = self._ends if start_at == "latest" and offsets is None else first
            known = {} if offsets is None else offsets
            wanted = {tp: known.get(tp.partition, fresh[tp]) for tp in partitions}
            self._positions = {tp: self._seek(tp, wanted[tp], first[tp]) for tp in partitions}
        except BaseException as error:
            self._consumer.close()
            if isinstance(error, KafkaError):
                raise self._unavailable(error) from error
            raise
        self.offsets = {tp.partition: position for tp, position in self._positions.items()}
        self._merge = TimeMerge((tp.partition for tp in partitions), _PATIENCE_S, clock)
        self._most_held = max(_LEAST_HELD, _HELD_RECORDS // len(partitions))

    def poll(self, timeout_s: float) -> list[Record]:
        """Return the next records; none where none came in so many seconds.

        Raises:
            UnavailableError: the broker refuses to give them.
        """
        self._look_around()
        taken = self._merge.take(self._at_end, _POLL_RECORDS)
        if taken:
            return taken
        try:
            polled = poll(self._consumer, timeout_s, _POLL_RECORDS)
            self._positions = {tp: self._position(tp) for tp in self._positions}
        except (OffsetOutOfRangeError, LogTruncationError):
            self._reposition()
            return []
        except KafkaError as error:
            raise self._unavailable(error) from error
        for tp, records in polled.items():
            self._merge.add(record_of(record) for record in records)
            if self._merge.held(tp.partition) >= self._most_held:
                self._consumer.pause(tp)
        taken = self._merge.take(self._at_end, _POLL_RECORDS)
        self._consumer.resume(
            *(tp for tp in self._consumer.paused() if self._merge.held(tp.partition) < self._most_held)
        )
        return taken

    def lags(self) -> dict[int, int]:
        """Return how many records, by partition, there are that have not been taken; transactions' marks count too."""
        return {
            tp.partition: max(0, end - self._positions[tp]) + self._merge.held(tp.partition)
            for tp, end in self._ends.items()
        }

    def unreachable_s(self) -> float:
        """Return for how many seconds no broker has answered."""
        return self._clock() - self._reachable

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()

    def _position(self, tp: TopicPartition) -> int:
        position = self._consumer.position(tp, timeout_ms=0)
        return self._positions[tp] if position is None else position

    def _at_end(self, partition: int) -> bool:
        tp = TopicPartition(self._topic, partition)
        return self._positions[tp] >= self._ends[tp]

    def _look_around(self) -> None:
        """Learn how far the partitions go, and of new ones, once in a while."""
        now = self._clock()
        if now - self._looked < _ENDS_INTERVAL_S:
            return
        try:
            known = self._consumer.partitions_for_topic(self._topic)
            added = [TopicPartition(self._topic, n) for n in sorted(known - set(self._merge.partitions))]
            if added:
                self._add(added)
            ends = self._consumer.end_offsets([*self._ends], timeout_ms=_ENDS_TIMEOUT_MS)
        except KafkaError:
            pass  # told by `unreachable_s`; what was known counts until then
        else:
            self._ends = ends
            self._reachable = self._clock()
        self._looked = self._clock()

    def _add(self, added: list[TopicPartition]) -> None:
        first = self._consumer.beginning_offsets(added, timeout_ms=_ENDS_TIMEOUT_MS)
        paused = self._consumer.paused()
        self._positions = {**self._positions, **first}
        self._consumer.assign([*self._positions])
        for tp, offset in self._positions.items():
            self._consumer.seek(tp, offset)
        self._consumer.pause(*paused)
        self._ends = {**self._ends, **first}
        for tp in added:
            self._merge.add_partition(tp.partition)
        LOGGER.info("topic %s: partitions %s are new and watched too", self._topic, [tp.partition for tp in added])

    def _reposition(self) -> None:
        """Go on where the topic's records are, after some were removed before they were read."""
        partitions = [*self._ends]
        try:
            first = self._consumer.beginning_offsets(partitions, timeout_ms=_START_TIMEOUT_MS)
            self._ends = self._consumer.end_offsets(partitions, timeout_ms=_START_TIMEOUT_MS)
        except KafkaError as error:
            raise self._unavailable(error) from error
        for tp in partitions:
            self._positions[tp] = self._seek(tp, self._positions[tp], first[tp], self._ends[tp])

    def _seek(self, tp: TopicPartition, wanted: int, first: int, end: int | None = None) -> int:
        """Go to an offset, or to the nearest one that there is; return it.

        Args:
            tp: the partition.
            wanted: the offset.
            first: the first one that the partition has.
            end: its end, where the broker has refused the offset; else it is left to the broker to do so, as some name
                an end that lies before the last record's.
        """
        offset = max(wanted, first)
        if offset > wanted:
            self.lost += offset - wanted
            LOGGER.warning(
                "%s[%d]: %d records from offset %d on were removed before they were watched",
                *(tp.topic, tp.partition, offset - wanted, wanted),
            )
        if end is not None and offset > end:
            offset = end
            LOGGER.warning(
                "%s[%d]: ends at offset %d, and %d had been watched: the topic was made anew or lost its end; "
                "what comes next is watched",
                *(tp.topic, tp.partition, offset, wanted),
            )
        self._consumer.seek(tp, offset)
        return offset

    def _unavailable(self, error: KafkaError) -> UnavailableError:
        if isinstance(error, KafkaTimeoutError):
            return UnavailableError(f"Kafka at {brokers(self._kafka)}: does not answer; check the network")
        reason = one_line(error)
        return UnavailableError(f"topic {self._topic} at {brokers(self._kafka)}: {reason}; check the access rights")
