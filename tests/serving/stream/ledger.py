"""The fault test's ledger: what was sent, what came out, and what is wrong with that."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from driftline.serving.records.embeddings import read_embedding
from driftline.serving.records.provenance import ERROR_REASON
from driftline.serving.records.record import Record, header
from tests.serving.stream.workers import by_source
from tests.support.brokers import Sent

_POISON: tuple[tuple[bytes, str], ...] = (
    (b"{", "not-json"),
    (b"[1]", "not-an-object"),
    (b'{"body": 1}', "no-text"),
    (b'{"text": ""}', "empty-text"),
    (b'{"text": "  "}', "blank-text"),
    (b'{"text": 7}', "text-type"),
    (b"\xff\xfe", "encoding"),
)


@dataclass
class Traffic:
    """Records of repeated keys, a few of them tombstones or poison; each has its number in a header."""

    sent: list[Sent] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    tombstones: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, records: int, seed: int) -> Traffic:
        chance = random.Random(seed)
        traffic = cls()
        for number in range(records):
            key = f"k{chance.randrange(records // 10)}".encode()
            kind = chance.random()
            value: bytes | None = json.dumps({"text": f"text {number} of a stream"}).encode()
            if kind < 0.05:
                value = None
                traffic.tombstones.add(number)
            elif kind < 0.10:
                value, traffic.reasons[number] = chance.choice(_POISON)
            traffic.sent.append((key, value, (("number", str(number).encode()),)))
        return traffic


@dataclass(frozen=True)
class Ledger:
    """What came out for what was sent.

    Attributes:
        sent: records sent.
        received: records of the output and the dead letters.
        vectors: results that hold a vector.
        tombstones: results that are tombstones.
        dead_letters: dead letters by reason.
        missing: records that nothing came out for.
        doubled: results beyond the first one of a record.
        misplaced: results of another kind, or another key, than their record asks for.
        disordered: results that came before one of an earlier record of their key.
    """

    sent: int
    received: int
    vectors: int
    tombstones: int
    dead_letters: dict[str, int]
    missing: int
    doubled: int
    misplaced: int
    disordered: int

    @classmethod
    def of(
        cls,
        traffic: Traffic,
        source: Sequence[Record],
        output: Sequence[Record],
        dead: Sequence[Record],
        only: Container[int] | None = None,
    ) -> Ledger:
        """Compare; all three are read with read_committed, partition by partition.

        Args:
            traffic: what was sent.
            source: the topic of texts.
            output: the topic of embeddings.
            dead: the topic of dead letters.
            only: numbers of the records to look at; None for all.
        """
        numbers = {
            (str(record.at.partition), str(record.at.offset)): int(header(record.headers, "number") or b"-1")
            for record in source
        }
        if only is not None:
            numbers = {place: number for place, number in numbers.items() if number in only}
            output, dead = (
                [record for record in records if by_source([record]).keys() <= numbers.keys()]
                for records in (output, dead)
            )
        results = {numbers[place]: found for place, found in by_source([*output, *dead]).items()}
        misplaced = 0
        for number, found in results.items():
            key, value, _ = traffic.sent[number]
            reason = traffic.reasons.get(number, "").encode() or None
            for result in found:
                right = result.key == key and header(result.headers, ERROR_REASON) == reason
                if reason is not None:
                    right &= result.value == value
                elif value is None or result.value is None:
                    right &= result.value is value
                else:
                    right &= read_embedding(result.value).text == json.loads(value)["text"]
                misplaced += not right
        return cls(
            sent=len(numbers),
            received=len(output) + len(dead),
            vectors=sum(record.value is not None for record in output),
            tombstones=sum(record.value is None for record in output),
            dead_letters=dict(Counter((header(record.headers, ERROR_REASON) or b"").decode() for record in dead)),
            missing=len(set(numbers.values()) - results.keys()),
            doubled=sum(len(found) - 1 for found in results.values()),
            misplaced=misplaced,
            disordered=_disordered(numbers, output),
        )

    def __str__(self) -> str:
        lines = [f"{name:12} {getattr(self, name)}" for name in self.__dataclass_fields__]
        return "\n".join(lines)


def _disordered(numbers: dict[tuple[str, str], int], output: Sequence[Record]) -> int:
    last: dict[bytes | None, int] = defaultdict(lambda: -1)
    count = 0
    for record in output:
        [(place, _)] = by_source([record]).items()
        number = numbers[place]
        count += number < last[record.key]
        last[record.key] = max(number, last[record.key])
    return count
