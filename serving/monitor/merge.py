"""One stream out of several partitions: by time, as far as what comes next is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from driftline.serving.records.record import Record


class TimeMerge:
    """Merges partitions' records by their timestamps; a partition's own order is never changed.

    Of the next records of all partitions, the one with the earliest time comes first, ties by partition. For that, the
    next record of each must be known: while a partition has none in hand and is not at its end, nothing comes out, for
    as long as ``patience_s`` allows. So what lies in the topic already comes in one order, wherever reading starts and
    however it is cut; and live records come about in the order in which they were written.
    """

    def __init__(self, partitions: Iterable[int], patience_s: float, clock: Callable[[], float]) -> None:
        """Begin with nothing in hand.

        Args:
            partitions: those that take part.
            patience_s: how long a partition that gives nothing holds up the others.
            clock: seconds, monotonic.
        """
        self._held: dict[int, deque[Record]] = {partition: deque() for partition in partitions}
        self._patience_s = patience_s
        self._clock = clock
        self._blocked_since: float | None = None

    def add_partition(self, partition: int) -> None:
        """Let another partition take part."""
        self._held.setdefault(partition, deque())

    def add(self, records: Iterable[Record]) -> None:
        """Take records, each partition's in their order."""
        for record in records:
            self._held[record.at.partition].append(record)

    def held(self, partition: int) -> int:
        """Return how many records of a partition are in hand."""
        return len(self._held[partition])

    def take(self, at_end: Callable[[int], bool], most: int) -> list[Record]:
        """Return the records whose turn is known, at most so many.

        Args:
            at_end: whether a partition has nothing more to give now; asked of those with nothing in hand.
            most: records to return at most.
        """
        taken: list[Record] = []
        heads = [(records[0].at.timestamp_ms, partition) for partition, records in self._held.items() if records]
        heapify(heads)
        missing = any(not records and not at_end(partition) for partition, records in self._held.items())
        while heads and len(taken) < most and not (missing and self._patient()):
            _, partition = heappop(heads)
            records = self._held[partition]
            taken.append(records.popleft())
            if records:
                heappush(heads, (records[0].at.timestamp_ms, partition))
            elif not missing:
                missing = not at_end(partition)
        if not (heads and missing):
            self._blocked_since = None
        return taken

    def _patient(self) -> bool:
        now = self._clock()
        if self._blocked_since is None:
            self._blocked_since = now
        return now - self._blocked_since < self._patience_s
