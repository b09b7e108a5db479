"""Dead letters: read, counted by reason, and sent back to the topic that they came from, each once."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import UsageError, one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import brokers, open_producer
from driftline.serving.kafka.reader import TopicReader
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.kafka.writer import TopicWriter
from driftline.serving.records.provenance import VALUE_OMITTED, DeadLetter, read_dead_letter, replay_headers
from driftline.serving.records.record import OutgoingRecord, Record, header

REPLAY_GROUP_SUFFIX: Final = ".replay"
FOREIGN: Final = "unknown"
"""Reason shown for a record whose headers are none of a dead letter."""

_ANSWER_S: Final = 30.0
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
    """Counts of a replay.

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
    """The letters of a partition that have been sent back: all before an offset, and some behind it."""

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
    with _dead_letters(kafka, topic, group) as (reader, marks):
        for letter in reader.read_until(_seek(reader, dict.fromkeys(marks, 0))):
            dead = read_dead_letter(letter)
            reason = FOREIGN if dead is None else dead.reason
            if reasons and reason not in reasons:
                continue
            count = counts.setdefault(reason, ReasonCount(reason))
            count.letters += 1
            count.replayed += _is_done(marks[letter.at.partition], letter.at.offset)
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
        group: its committed offsets record what has been sent; the same for all replays of the topic.
        reasons: that are sent; none for all.
        limit: letters to send at most; None for all.
        dry_run: whether only to count.

    Raises:
        UsageError: there is no such topic, or too scattered a choice to be noted.
        UnavailableError: the broker does not answer, or another replay runs.
    """
    result = Replayed()
    writer = TopicWriter(lambda: open_producer(kafka, transactional_id=group), transactional=True)
    try:
        if not dry_run:
            writer.start()  # first: a replay that was cut short is then settled, and the offsets are final
        with _dead_letters(kafka, topic, group) as (reader, marks):
            ends = _seek(reader, {number: mark.base for number, mark in marks.items()})
            waiting: dict[int, set[int]] = {number: set() for number in marks}
            chosen: list[Record] = []
            for letter in reader.read_until(ends):
                if letter.at.offset in marks[letter.at.partition].done:
                    result.earlier += 1
                    continue
                waiting[letter.at.partition].add(letter.at.offset)
                dead = read_dead_letter(letter)
                if dead is None or _is_unfit(letter, dead):
                    result.unfit += 1
                elif (reasons and dead.reason not in reasons) or (limit is not None and len(chosen) >= limit):
                    result.other += 1
                else:
                    chosen.append(letter)
            for first in range(0, len(chosen), _BATCH):
                batch = chosen[first : first + _BATCH]
                if not dry_run:
                    for letter in batch:
                        waiting[letter.at.partition].discard(letter.at.offset)
                        marks[letter.at.partition].done.add(letter.at.offset)
                    _send(writer, source, batch, _offsets(topic, marks, waiting, ends), group)
                result.sent += len(batch)
    except KafkaError as error:
        raise UnavailableError(f"topic {topic}: {one_line(error)}; is another replay running?") from error
    finally:
        writer.close()
    return result


def _send(
    writer: TopicWriter,
    source: str,
    batch: Sequence[Record],
    offsets: dict[TopicPartition, OffsetAndMetadata],
    group: str,
) -> None:
    writer.begin()
    outcomes = writer.write(
        [OutgoingRecord(source, letter.key, letter.value, replay_headers(letter)) for letter in batch]
    )
    for outcome in outcomes:
        if outcome is not None:
            raise outcome
    writer.commit(offsets, group)


def _is_unfit(letter: Record, dead: DeadLetter) -> bool:
    """Return whether the record cannot be made again from its letter."""
    return header(letter.headers, VALUE_OMITTED) is not None or dead.reason == "tombstone-without-key"


def _is_done(mark: _Mark, offset: int) -> bool:
    return offset < mark.base or offset in mark.done


def _offsets(
    topic: str, marks: dict[int, _Mark], waiting: dict[int, set[int]], ends: dict[int, int]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return what to commit: in each partition the first letter that waits, and which behind it do not."""
    offsets: dict[TopicPartition, OffsetAndMetadata] = {}
    for number, mark in marks.items():
        base = min(waiting[number], default=ends[number])
        note = _note(base, {offset for offset in mark.done if offset > base})
        if len(note) > _METADATA_BYTES:
            raise UsageError(
                f"topic {topic}: the letters that are left alone lie scattered among more that are sent back than "
                "can be noted; choose more reasons, or a lower limit"
            )
        offsets[TopicPartition(topic, number)] = OffsetAndMetadata(base, note, -1)
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


@contextmanager
def _dead_letters(kafka: KafkaSettings, topic: str, group: str) -> Generator[tuple[TopicReader, dict[int, _Mark]]]:
    """Open the topic of dead letters, with what of each partition has been sent back."""
    reader = TopicReader(kafka, topic, group=group)
    try:
        partitions = reader.partitions()
        if not partitions:
            raise UsageError(f"topic {topic}: is not at {brokers(kafka)}; name the topic of the dead letters")
        reader.assign(partitions)  # not a member: the group only keeps the offsets
        noted = reader.committed(partitions, _ANSWER_S)
        marks = {
            number: _Mark(noted[number].offset, _noted(noted[number].offset, noted[number].metadata or ""))
            if number in noted
            else _Mark()
            for number in sorted(partitions)
        }
        yield reader, marks
    finally:
        reader.close()


def _seek(reader: TopicReader, starts: dict[int, int]) -> dict[int, int]:
    """Go to offsets, or behind what the topic no longer holds, and return where the partitions end."""
    first = reader.first_offsets(starts.keys(), _ANSWER_S)
    for number, offset in starts.items():
        reader.seek(number, max(offset, first[number]))
    return reader.end_offsets(starts.keys(), _ANSWER_S)
