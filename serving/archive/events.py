"""Records of the embeddings topic: rows to keep, ids to delete, or poison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from driftline.serving.archive.layout import is_datable
from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText, read_embedding
from driftline.serving.records.provenance import read_source
from driftline.serving.records.record import Record

FUTURE_MS: Final = 24 * 3600 * 1000
"""Times further ahead of the archive's clock are taken for a clock that is wrong; less is time zones and drift."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A text's vector, and where it came from.

    Attributes:
        offset: of its record in its partition.
        time_ms: the text's time, milliseconds since 1970 UTC.
        embedded: the vector.
        doubtful_time: whether the record says no time that can be right, so that the row bears the archive's own.
    """

    offset: int
    time_ms: int
    embedded: EmbeddedText
    doubtful_time: bool = False

    @property
    def bytes(self) -> int:
        """Memory that it takes, about: the vector, the text, and what Python needs to hold them."""
        text = self.embedded.text
        return self.embedded.vector.nbytes + (0 if text is None else len(text)) + len(self.embedded.id) + 500


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
        """Memory that it takes, about."""
        return len(self.id) + 200


def read_event(record: Record, now_ms: int) -> Row | Tombstone:
    """Return what a record says.

    A row's time is that of the text's own record, which the stream worker carries in the headers; without them it is
    the time of the record itself. Times that cannot be right give way to the next best, at last to `now_ms`.

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
