"""What was read of a partition and is not archived yet."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from driftline.serving.archive.events import Row, Tombstone

CARRIED: tuple[str, ...] = ("text", "time", "topic", "partition", "offset")
"""The archive's columns, besides `id` and `embedding`."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedRow:
    """A row, and the place that it belongs to."""

    place: str
    row: Row

    @property
    def id(self) -> str:
        """The text's id."""
        return self.row.embedded.id

    @property
    def offset(self) -> int:
        """The record's offset."""
        return self.row.offset

    @property
    def bytes(self) -> int:
        """Memory that it takes, about."""
        return self.row.bytes


class Pending:
    """Events of one partition in the order of their offsets.

    Attributes:
        next_offset: the offset to go on at once they are archived; records that are none of the archive's count too.
        events: rows and tombstones.
        bytes: memory that they take, about.
        since_s: when the first of the records was read, on the clock that the reader used; None where there is none.
    """

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.events: list[PlacedRow | Tombstone] = []
        self.bytes = 0
        self.since_s: float | None = None

    def add(self, event: PlacedRow | Tombstone) -> None:
        """Append an event; `pass_over` must have been told of its offset."""
        self.events.append(event)
        self.bytes += event.bytes

    def pass_over(self, offset: int, now_s: float) -> None:
        """Note that a record was read."""
        self.next_offset = offset + 1
        if self.since_s is None:
            self.since_s = now_s

    def by_place(self) -> dict[str, list[Row]]:
        """Return the rows of each place, in the order of their offsets."""
        places: dict[str, list[Row]] = defaultdict(list)
        for event in self.events:
            if isinstance(event, PlacedRow):
                places[event.place].append(event.row)
        return dict(places)


def record_batch(rows: list[Row], topic: str, partition: int) -> pa.RecordBatch:
    """Return rows as the columns of a shard; a text is null where it was not carried along, times are UTC in ms.

    Memory: one copy of the vectors.
    """
    vectors = np.stack([row.embedded.vector for row in rows])
    count = len(rows)
    return pa.record_batch(
        {
            "id": pa.array([row.embedded.id for row in rows], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            "text": pa.array([row.embedded.text for row in rows], pa.string()),
            "time": pa.array([row.time_ms for row in rows], pa.timestamp("ms", tz="UTC")),
            "topic": pa.repeat(pa.scalar(topic, pa.string()), count),
            "partition": pa.repeat(pa.scalar(partition, pa.int32()), count),
            "offset": pa.array([row.offset for row in rows], pa.int64()),
        }
    )
