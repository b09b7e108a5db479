"""Records as they come off a topic and go onto one, and the text in them."""

from __future__ import annotations

from dataclasses import dataclass

Headers = tuple[tuple[str, bytes], ...]
"""A record's headers, in order; a name may be there more than once."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The place of a record.

    Attributes:
        topic: its topic.
        partition: its partition, from 0.
        offset: its offset in the partition.
        timestamp_ms: the record's time, milliseconds since 1970 UTC.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read, its content not yet parsed.

    Attributes:
        key: its key's bytes; None where it has none.
        value: its value's bytes; None for a tombstone.
        headers: its headers.
        at: where it lies.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    at: Coordinates


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """A record to write.

    Attributes:
        topic: where it goes.
        key: its key; None for none.
        value: its value; None for a tombstone.
        headers: its headers.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def bytes(self) -> int:
        """Bytes of its key, value and headers: a little less than what the broker counts."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


@dataclass(frozen=True, slots=True)
class TextEvent:
    """A text, or its deletion, as a record has it.

    Attributes:
        id: the text's id, not empty.
        text: the text, not blank, without half surrogate pairs; None where the text is deleted.
    """

    id: str
    text: str | None


def header(headers: Headers, name: str) -> bytes | None:
    """Return the last header of a name, compared without regard to case; None where there is none."""
    folded = name.lower()
    for found, value in reversed(headers):
        if found.lower() == folded:
            return value
    return None
