"""Records of the embeddings topic, read as rows to keep or ids to delete; rows as the columns of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from driftline.serving.archive.layout import is_datable
from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText, read_embedding
from driftline.serving.records.provenance import read_source
from driftline.serving.records.record import Record

FUTURE_MS: Final = 24 * 3600 * 1000
"""Times further ahead of the archive's clock come from a wrong clock; less is time zones and drift."""

CARRIED: tuple[str, ...] = ("text", "time", "topic", "partition", "offset")
"""The archive's columns, besides `id` and `embedding`."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A text's vector, and where it came from.

    Attributes:
        offset: of its record in its partition.
        time_ms: the text's time, milliseconds since 1970 UTC.
        embedded: the vector.
        doubtful_time: whether the record has no plausible time, so that the row has the archive's own.
    """

    offset: int
    time_ms: int
    embedded: EmbeddedText
    doubtful_time: bool = False

    @property
    def id(self) -> str:
        """The text's id."""
        return self.embedded.id

    @property
    def bytes(self) -> int:
        """Approximate memory: the vector, the text, and what Python needs to hold them."""
        text = self.embedded.text
        return self.embedded.vector.nbytes + (0 if text is None else len(text)) + len(self.id) + 500


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A text that is deleted.

    Attributes:
        offset: of its record in its partition.
        id: the text's id.
    """

    offset: int
    id: str

    @property
    def bytes(self) -> int:
        """Approximate memory."""
        return len(self.id) + 200


@dataclass(frozen=True, slots=True, eq=False)
class PlacedRow:
    """A row, and the path of the hourly dataset that it belongs to."""

    path: str
    row: Row

    @property
    def id(self) -> str:
        """The text's id."""
        return self.row.id

    @property
    def bytes(self) -> int:
        """Approximate memory."""
        return self.row.bytes


def read_event(record: Record, now_ms: int) -> Row | Tombstone:
    """Read a record of the topic.

    A row's time is that of the text's own record, which the stream worker carries in the headers; without them it is
    the time of the record itself. A time that is not plausible gives way to the next one, at last to `now_ms`.

    Args:
        record: as it came off the topic.
        now_ms: the archive's clock, milliseconds since 1970 UTC.

    Raises:
        PoisonError: ``key-encoding``, ``tombstone-without-key``, ``key-mismatch``, or as
            :func:`driftline.serving.records.embeddings.read_embedding` says.
    """
    try:
        key = None if record.key is None else record.key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PoisonError("key-encoding", f"record {record.at}: the key is not UTF-8; expected a text's id") from error
    if record.value is None:
        if not key:
            raise PoisonError(
                "tombstone-without-key", f"record {record.at}: neither key nor value; expected the id of a text"
            )
        return Tombstone(record.at.offset, key)
    embedded = read_embedding(record.value)
    if key and key != embedded.id:
        raise PoisonError(
            "key-mismatch",
            f"record {record.at}: the key is {key[:60]!r}, the embedding's id {embedded.id[:60]!r}; expected the same, "
            "or a tombstone would not find it",
        )
    source = read_source(record.headers)
    times = [record.at.timestamp_ms] if source is None else [source.timestamp_ms, record.at.timestamp_ms]
    for time_ms in times:
        if is_datable(time_ms) and time_ms <= now_ms + FUTURE_MS:
            return Row(record.at.offset, time_ms, embedded)
    return Row(record.at.offset, now_ms, embedded, doubtful_time=True)


def record_batch(rows: list[Row], topic: str, partition: int) -> pa.RecordBatch:
    """Return rows as the columns of a shard; a text is null where the record had none, times are UTC in ms.

    Memory: one copy of the vectors.
    """
    vectors = np.stack([row.embedded.vector for row in rows])
    count = len(rows)
    return pa.record_batch(
        {
            "id": pa.array([row.id for row in rows], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            "text": pa.array([row.embedded.text for row in rows], pa.string()),
            "time": pa.array([row.time_ms for row in rows], pa.timestamp("ms", tz="UTC")),
            "topic": pa.repeat(pa.scalar(topic, pa.string()), count),
            "partition": pa.repeat(pa.scalar(partition, pa.int32()), count),
            "offset": pa.array([row.offset for row in rows], pa.int64()),
        }
    )
