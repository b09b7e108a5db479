"""The embeddings topic, as a member of a consumer group reads it from offsets that the archive itself keeps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from driftline.components.errors import DataError
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.reader import GroupReader
from driftline.serving.records.record import Record

LOGGER: Final = logging.getLogger("driftline.archive")


class Source(Protocol):
    """Records of the partitions that this worker has, by their numbers. Belongs to one thread."""

    def poll(self, timeout_s: float, max_records: int) -> dict[int, list[Record]]:
        """Return what there is, each partition's records in order."""
        ...

    def assigned(self) -> set[int]:
        """Return the partitions that this worker has now."""
        ...

    def take_revoked(self) -> set[int]:
        """Return the partitions that were revoked, and perhaps assigned again, since the last call."""
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
        """Return the offset behind the last record as last heard from the broker; None before that."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit for the lag display only; a failure is logged."""
        ...

    def pause(self, partitions: set[int]) -> None:
        """Have `poll` return records of all partitions but these."""
        ...

    def close(self) -> None:
        """End the membership; a static one waits for its return."""
        ...


class KafkaSource(GroupReader):
    """A source on a topic; see :class:`Source`."""

    def assigned(self) -> set[int]:
        """Return the partitions that this worker has or, while it joins the group, had before.

        Nobody else is given them before the join is over: what was read of them is written meanwhile.
        """
        return self._last_assigned()

    def go_to(self, partition: int, offset: int) -> int:
        """Go on at an offset, or at the oldest record behind it; return where.

        Raises:
            DataError: the topic ends before the offset.
            UnavailableError: the broker does not say now.
        """
        first, end = self.first_offsets([partition])[partition], self.end_offsets([partition])[partition]
        # One past the end is allowed: there are brokers that name the last record's offset as the end.
        if offset > end + 1:
            raise DataError(
                f"topic {self.topic}, partition {partition}: ends at offset {end}, the archive has it up to "
                f"{offset}; the topic was made anew or lost records: archive it into another folder"
            )
        start = max(first, offset)
        if 0 < offset < first:
            LOGGER.error(
                "topic %s, partition %d: records %d to %d had expired before they were archived",
                self.topic,
                partition,
                offset,
                first - 1,
            )
        self.seek(partition, start)
        return start

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit for the lag display only; a failure is logged."""
        try:
            super().commit(offsets)
        except UnavailableError as error:
            LOGGER.warning("%s; the lag shows late", error)
