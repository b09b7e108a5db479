"""Dead letters: read, counted by reason, and sent back to the topic that they came from, each once."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import UsageError, one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import brokers, open_consumer, open_producer
from driftline.serving.kafka.reading import records_before
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.provenance import DeadLetter, read_dead_letter, replay_headers
from driftline.serving.records.record import Record, header
from driftline.serving.stream.producing import produce
from driftline.serving.stream.results import VALUE_OMITTED, Result

REPLAY_GROUP_SUFFIX: Final = ".replay"
FOREIGN: Final = "unknown"
"""Reason shown for a record whose headers are none of a dead letter."""

_BATCH: Final = 500
_METADATA_BYTES: Final = 4000  # of the 4096 that brokers take beside a committed offset, by default
_EMPTY_OFFSETS: Final = 10_000_000  # longest stretch of offsets that a mark may span


@dataclass(slots=True)
class ReasonCount:
    """Dead letters of one reason.

    Attributes:
        reason: the code.
        letters: how many there are.
        replayed: how many of these have been sent back.
        newest_ms: when the last one was written, milliseconds since 1970 UTC.
        example: a message.
    """

    reason: str
    letters: int = 0
    replayed: int = 0
    newest_ms: int = 0
    example: str = ""


@dataclass(slots=True)
class Replayed:
    """What a replay did.

    Attributes:
        sent: letters sent back.
        earlier: letters that an earlier replay had sent back, those before the first one that waits not counted.
        other: letters that were not asked for.
        unfit: letters that cannot be sent back: foreign ones, and those without what made the record.
    """

    sent: int = 0
    earlier: int = 0
    other: int = 0
    unfit: int = 0


@dataclass(slots=True)
class _Mark:
    """Which letters of a partition have been sent back: all before an offset, and some behind it."""

    base: int = 0
    done: set[int] = field(default_factory=set[int])


def count_letters(kafka: KafkaSettings, topic: str, group: str, reasons: Collection[str] = ()) -> list[ReasonCount]:
    """Return how many dead letters there are, by reason, the most frequent first.

    Args:
        kafka: how to reach the cluster.
        topic: of the dead letters.
        group: the replays' group.
        reasons: that are counted; none for all.

    Raises:
        UsageError: there is no such topic.
        UnavailableError: the broker does not answer.
    """
    counts: dict[str, ReasonCount] = {}
    with _letters_topic(kafka, topic, group) as (consumer, partitions):
        marks = _read_marks(consumer, partitions)
        ends = _seek(consumer, dict.fromkeys(partitions, 0))
        for at, letter in records_before(consumer, ends):
            dead = read_dead_letter(letter)
            reason = FOREIGN if dead is None else dead.reason
            if reasons and reason not in reasons:
                continue
            count = counts.setdefault(reason, ReasonCount(reason))
            count.letters += 1
            count.replayed += _is_done(marks[at], letter.at.offset)
            count.newest_ms = max(count.newest_ms, letter.at.timestamp_ms)
            count.example = count.example if dead is None else dead.message
    return sorted(counts.values(), key=lambda count: (-count.letters, count.reason))


def replay_letters(
    kafka: KafkaSettings,
    source: str,
    topic: str,
    group: str,
    *,
    reasons: Collection[str] = (),
    limit: int | None = None,
    dry_run: bool = False,
) -> Replayed:
    """Send dead letters back to the topic that they came from; their first place and their attempts stay with them.

    Letters and the note of which have been sent are written in one transaction, so that a second replay sends only what
    the first one did not, whenever that one ended.

    Args:
        kafka: how to reach the cluster.
        source: topic of the texts.
        topic: of the dead letters.
        group: whose committed offsets say what has been sent; the same for all replays of the topic.
        reasons: that are sent; none for all.
        limit: letters to send at most; None for all.
        dry_run: whether only to count.

    Raises:
        UsageError: there is no such topic, or too scattered a choice to be noted.
        UnavailableError: the broker does not answer, or another replay runs.
    """
    result = Replayed()
    # Opened first: a replay that was cut short is then settled, and the offsets are final.
    producer: Any = None if dry_run else _producer(kafka, group)
    try:
        with _letters_topic(kafka, topic, group) as (consumer, partitions):
            marks = _read_marks(consumer, partitions)
            ends = _seek(consumer, {at: mark.base for at, mark in marks.items()})
            waiting: dict[TopicPartition, set[int]] = {at: set() for at in partitions}
            chosen: list[tuple[TopicPartition, Record]] = []
            for at, letter in records_before(consumer, ends):
                if letter.at.offset in marks[at].done:
                    result.earlier += 1
                    continue
                waiting[at].add(letter.at.offset)
                dead = read_dead_letter(letter)
                if dead is None or _is_unfit(letter, dead):
                    result.unfit += 1
                elif (reasons and dead.reason not in reasons) or (limit is not None and len(chosen) >= limit):
                    result.other += 1
                else:
                    chosen.append((at, letter))
            for first in range(0, len(chosen), _BATCH):
                batch = chosen[first : first + _BATCH]
                if producer is not None:
                    for at, letter in batch:
                        waiting[at].discard(letter.at.offset)
                        marks[at].done.add(letter.at.offset)
                    _send(producer, source, batch, _offsets(marks, waiting, ends), group)
                result.sent += len(batch)
    except KafkaError as error:
        raise UnavailableError(f"topic {topic}: {one_line(error)}; is another replay running?") from error
    finally:
        if producer is not None:
            producer.close(timeout=5)
    return result


def _producer(kafka: KafkaSettings, group: str) -> Any:
    producer: Any = open_producer(kafka, transactional_id=group)
    try:
        producer.init_transactions()
    except KafkaError as error:
        producer.close(timeout=0)
        raise UnavailableError(f"transactions: {one_line(error)}; can the brokers do them?") from error
    return producer


def _send(
    producer: Any,
    source: str,
    batch: Sequence[tuple[TopicPartition, Record]],
    offsets: dict[TopicPartition, OffsetAndMetadata],
    group: str,
) -> None:
    producer.begin_transaction()
    results = [Result(source, letter.key, letter.value, replay_headers(letter), letter) for _, letter in batch]
    for outcome in produce(producer, results):
        if outcome is not None:
            raise outcome
    producer.send_offsets_to_transaction(offsets, group)
    producer.commit_transaction()


def _is_unfit(letter: Record, dead: DeadLetter) -> bool:
    """Return whether the record cannot be made again from its letter."""
    return header(letter.headers, VALUE_OMITTED) is not None or dead.reason == "tombstone-without-key"


def _is_done(mark: _Mark, offset: int) -> bool:
    return offset < mark.base or offset in mark.done


def _offsets(
    marks: dict[TopicPartition, _Mark], waiting: dict[TopicPartition, set[int]], ends: dict[TopicPartition, int]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return what to commit: in each partition the first letter that waits, and which behind it do not."""
    offsets: dict[TopicPartition, OffsetAndMetadata] = {}
    for at, mark in marks.items():
        base = min(waiting[at], default=ends[at])
        note = _note(base, {offset for offset in mark.done if offset > base})
        if len(note) > _METADATA_BYTES:
            raise UsageError(
                f"topic {at.topic}: the letters that are left alone lie scattered among more that are sent back than "
                "can be noted; choose more reasons, or a lower limit"
            )
        offsets[at] = OffsetAndMetadata(base, note, -1)
    return offsets


def _note(base: int, done: Collection[int]) -> str:
    """Write offsets as a compressed row of bits, from the base on."""
    if not done:
        return ""
    bits = 0
    for offset in done:
        bits |= 1 << (offset - base)
    packed = zlib.compress(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), 9)
    return base64.b85encode(packed).decode()


def _noted(base: int, note: str) -> set[int]:
    if not note:
        return set()
    try:
        unpacked = zlib.decompressobj().decompress(base64.b85decode(note), _EMPTY_OFFSETS // 8)
    except (ValueError, zlib.error, binascii.Error) as error:
        raise UsageError(
            f"replays: the note beside committed offset {base} is damaged; is the group used by another program?"
        ) from error
    bits = int.from_bytes(unpacked, "little")
    return {base + place for place in range(bits.bit_length()) if bits >> place & 1}


def _read_marks(consumer: Any, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, _Mark]:
    marks: dict[TopicPartition, _Mark] = {}
    for at in partitions:
        found = consumer.committed(at, metadata=True, timeout_ms=30_000)
        marks[at] = _Mark() if found is None else _Mark(found.offset, _noted(found.offset, found.metadata or ""))
    return marks


@contextmanager
def _letters_topic(kafka: KafkaSettings, topic: str, group: str) -> Generator[tuple[Any, list[TopicPartition]]]:
    consumer = open_consumer(kafka, group=group)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise UsageError(f"topic {topic}: is not at {brokers(kafka)}; name the topic of the dead letters")
        consumer.assign(partitions)  # not a member: the group only keeps the offsets
        yield consumer, partitions
    except KafkaError as error:
        raise UnavailableError(f"topic {topic}: {one_line(error)}") from error
    finally:
        consumer.close()


def _seek(consumer: Any, starts: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Go to offsets, or behind what the topic no longer holds, and return where the partitions end."""
    partitions = [*starts]
    first = consumer.beginning_offsets(partitions)
    for at, offset in starts.items():
        consumer.seek(at, max(offset, first[at]))
    return consumer.end_offsets(partitions)
