"""Headers with a record's origin, on outputs and on dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from driftline.serving.errors import PoisonError
from driftline.serving.records.record import Coordinates, Headers, Record, header

PREFIX: Final = "driftline-"
SOURCE_TOPIC: Final = PREFIX + "source-topic"
SOURCE_PARTITION: Final = PREFIX + "source-partition"
SOURCE_OFFSET: Final = PREFIX + "source-offset"
SOURCE_TIMESTAMP: Final = PREFIX + "source-timestamp-ms"
ERROR_REASON: Final = PREFIX + "error-reason"
ERROR_MESSAGE: Final = PREFIX + "error-message"
ATTEMPTS: Final = PREFIX + "attempts"
VALUE_OMITTED: Final = PREFIX + "value-bytes-omitted"
"""Header of a dead letter without its value, which was too large for the topic: the value's size."""

DEAD_LETTERS_SUFFIX: Final = ".dead-letters"
_MESSAGE_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a record could not be processed.

    Attributes:
        source: where the record lay.
        reason: the code of :class:`driftline.serving.errors.PoisonError`.
        message: the error's line.
        attempts: how often it was tried, replays included.
    """

    source: Coordinates
    reason: str
    message: str
    attempts: int


def dead_letters_topic(topic: str) -> str:
    """Return the name of the topic that takes another topic's dead letters."""
    return topic + DEAD_LETTERS_SUFFIX


def own_headers_removed(headers: Headers) -> Headers:
    """Return the headers that are the user's own."""
    return tuple((name, value) for name, value in headers if not name.lower().startswith(PREFIX))


def source_headers(record: Record) -> Headers:
    """Return a record's own headers, and after them where it lay."""
    at = record.at
    return (
        *own_headers_removed(record.headers),
        (SOURCE_TOPIC, at.topic.encode()),
        (SOURCE_PARTITION, str(at.partition).encode()),
        (SOURCE_OFFSET, str(at.offset).encode()),
        (SOURCE_TIMESTAMP, str(at.timestamp_ms).encode()),
    )


def read_source(headers: Headers) -> Coordinates | None:
    """Return the place that a record came from; None where its headers do not name one."""
    topic = header(headers, SOURCE_TOPIC)
    numbers = [header(headers, name) for name in (SOURCE_PARTITION, SOURCE_OFFSET, SOURCE_TIMESTAMP)]
    if topic is None or None in numbers:
        return None
    try:
        partition, offset, timestamp_ms = (int(number) for number in numbers if number is not None)
        return Coordinates(topic.decode("utf-8"), partition, offset, timestamp_ms)
    except ValueError:
        return None


def attempts_of(record: Record) -> int:
    """Return how often a record has been tried before, 0 for one that is no replay."""
    found = header(record.headers, ATTEMPTS)
    return int(found) if found is not None and found.isdigit() else 0


def dead_letter_headers(record: Record, error: PoisonError) -> Headers:
    """Return the headers of a record's dead letter: its own, where it lay, why, and how often it was tried.

    A replayed record keeps the coordinates of its first place, so that a dead letter leads to the record that somebody
    sent.
    """
    first = read_source(record.headers)
    at = record if first is None else Record(record.key, record.value, record.headers, first)
    return (
        *source_headers(at),
        (ERROR_REASON, error.reason.encode()),
        (ERROR_MESSAGE, str(error)[:_MESSAGE_CHARACTERS].encode("utf-8", "replace")),
        (ATTEMPTS, str(attempts_of(record) + 1).encode()),
    )


def replay_headers(letter: Record) -> Headers:
    """Return the headers with which a dead letter goes back to its topic: its source and its attempts stay."""
    return tuple((name, value) for name, value in letter.headers if name not in (ERROR_REASON, ERROR_MESSAGE))


def read_dead_letter(letter: Record) -> DeadLetter | None:
    """Return why a record became a dead letter; None where its headers are none of ours."""
    source = read_source(letter.headers)
    reason = header(letter.headers, ERROR_REASON)
    if source is None or reason is None:
        return None
    message = header(letter.headers, ERROR_MESSAGE) or b""
    return DeadLetter(
        source, reason.decode("utf-8", "replace"), message.decode("utf-8", "replace"), attempts_of(letter)
    )
