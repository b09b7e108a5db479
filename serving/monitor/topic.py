"""The topic of embeddings, read whole by one consumer from offsets that the monitor keeps itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from driftline.components.errors import UsageError
from driftline.components.steps import LOGGER
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import brokers
from driftline.serving.kafka.reader import OffsetGoneError, TopicReader
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.monitor.merge import TimeMerge
from driftline.serving.monitor.settings import StartAt
from driftline.serving.records.record import Record

_POLL_RECORDS: Final = 500
_HELD_RECORDS: Final = 10_000  # of all partitions together; a record is some kilobytes
_LEAST_HELD: Final = 100
_PATIENCE_S: Final = 2.0  # a leader that moves elsewhere takes about that
_ENDS_INTERVAL_S: Final = 1.0  # how old the lag may be
_START_S: Final = 30.0
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
        self._clock = clock
        self._reachable = clock()
        self._looked = clock()
        self.lost = 0
        # No group: nothing may move the partitions elsewhere, and offsets are kept beside the state they belong to.
        self._reader = TopicReader(kafka, topic, auto_offset_reset="none", metadata_max_age_ms=_METADATA_AGE_MS)
        try:
            partitions = sorted(self._reader.partitions())
            if not partitions:
                raise UsageError(
                    f"topic {topic}: is not at {brokers(kafka)}; name the topic that the stream worker writes, or "
                    "create it"
                )
            self._reader.assign(partitions)
            first = self._reader.first_offsets(partitions, _START_S)
            self._ends = self._reader.end_offsets(partitions, _START_S)
            fresh = self._ends if start_at == "latest" and offsets is None else first
            known = {} if offsets is None else offsets
            self._positions = {
                number: self._seek(number, known.get(number, fresh[number]), first[number]) for number in partitions
            }
        except BaseException:
            self._reader.close()
            raise
        self.offsets = dict(self._positions)
        self._merge = TimeMerge(partitions, _PATIENCE_S, clock)
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
        self._reader.pause([number for number in self._positions if self._merge.held(number) >= self._most_held])
        try:
            polled = self._reader.poll(timeout_s, _POLL_RECORDS)
            for number, known in self._positions.items():
                self._positions[number] = max(known, self._reader.position(number, 0.0))
        except OffsetGoneError:
            self._reposition()
            return []
        for records in polled.values():
            self._merge.add(records)
        return self._merge.take(self._at_end, _POLL_RECORDS)

    def lags(self) -> dict[int, int]:
        """Return how many records, by partition, there are that have not been taken; transactions' marks count too."""
        return {
            number: max(0, end - self._positions[number]) + self._merge.held(number)
            for number, end in self._ends.items()
        }

    def unreachable_s(self) -> float:
        """Return for how many seconds no broker has answered."""
        return self._clock() - self._reachable

    def close(self) -> None:
        """End the connection."""
        self._reader.close()

    def _at_end(self, partition: int) -> bool:
        return self._positions[partition] >= self._ends[partition]

    def _look_around(self) -> None:
        """Learn how far the partitions go, and of new ones, once in a while."""
        if self._clock() - self._looked < _ENDS_INTERVAL_S:
            return
        try:
            added = self._reader.partitions() - self._positions.keys()
            if added:
                self._add(sorted(added))
            self._ends = self._reader.end_offsets(self._ends)
            self._reachable = self._clock()
        except UnavailableError:
            pass  # `unreachable_s` grows; the last known offsets count until then
        self._looked = self._clock()

    def _add(self, added: list[int]) -> None:
        first = self._reader.first_offsets(added)
        self._positions |= first
        self._reader.assign(self._positions)
        for number, offset in self._positions.items():
            self._reader.seek(number, offset)
        self._ends |= first
        for number in added:
            self._merge.add_partition(number)
        LOGGER.info("topic %s: partitions %s are new and watched too", self._reader.topic, added)

    def _reposition(self) -> None:
        """Go on where the topic's records are, after some were removed before they were read."""
        first = self._reader.first_offsets(self._positions, _START_S)
        self._ends = self._reader.end_offsets(self._positions, _START_S)
        for number, position in self._positions.items():
            self._positions[number] = self._seek(number, position, first[number], self._ends[number])

    def _seek(self, partition: int, wanted: int, first: int, end: int | None = None) -> int:
        """Go to an offset, or to the nearest one that there is; return it.

        Args:
            partition: its number.
            wanted: the offset.
            first: the first one that the partition has.
            end: its end, where the broker has refused the offset; else it is left to the broker to do so, as some name
                an end that lies before the last record's.
        """
        topic, offset = self._reader.topic, max(wanted, first)
        if offset > wanted:
            self.lost += offset - wanted
            LOGGER.warning(
                "%s[%d]: %d records from offset %d on were removed before they were watched",
                *(topic, partition, offset - wanted, wanted),
            )
        if end is not None and offset > end:
            offset = end
            LOGGER.warning(
                "%s[%d]: ends at offset %d, and %d had been watched: the topic was made anew or lost its end; "
                "what comes next is watched",
                *(topic, partition, offset, wanted),
            )
        self._reader.seek(partition, offset)
        return offset
