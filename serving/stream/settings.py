"""What is asked of a stream worker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from driftline.components.errors import UsageError
from driftline.serving.records.embeddings import VectorEncoding
from driftline.serving.records.payloads import PayloadFormat
from driftline.serving.records.provenance import dead_letters_topic

Delivery = Literal["exactly-once", "at-least-once"]
DELIVERIES: Final = get_args(Delivery)
Assignment = Literal["range", "cooperative-sticky"]
ASSIGNMENTS: Final = get_args(Assignment)

_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a micro-batch is at most.

    Attributes:
        records: in it.
        tokens: in it, estimated; a single longer text is a batch of its own.
        linger_ms: for which a batch that is not full waits for more.
    """

    records: int = 512
    tokens: int = 32_768
    linger_ms: float = 20.0


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """How much is read ahead of the encoder; beyond it, partitions are paused.

    Attributes:
        records: waiting at most.
        bytes: of their keys and values at most.
    """

    records: int = 4096
    bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a worker reads, what it writes and how.

    Attributes:
        source: topic of the texts.
        output: topic of the embeddings.
        group: consumer group that shares the source's partitions.
        instance_id: this worker's name in the group; the same again after a restart.
        dead_letters: topic of what cannot be processed; empty for the source's name with `.dead-letters`.
        delivery: whether each record's result is there once, or at least once.
        payload: how values are written.
        vectors: how vectors are written.
        with_text: whether results carry their texts.
        batch: limits of a micro-batch.
        buffer: limits of what is read ahead.
        assignment: how the group shares partitions.
        session_timeout_s: after which the group gives a silent worker's partitions to others.
        static: whether a restarted worker takes up its place in the group again, without partitions being handed
            around; else each start is a new member's.
        stay: whether the group keeps this worker's partitions for it when it ends, until its session times out.
        drain_timeout_s: in which what is in hand must be finished when the worker is told to end.

    Raises:
        UsageError: settings that cannot be, or contradict one another.
    """

    source: str
    output: str
    group: str
    instance_id: str
    dead_letters: str = ""
    delivery: Delivery = "exactly-once"
    payload: PayloadFormat = "json"
    vectors: VectorEncoding = "numbers"
    with_text: bool = True
    batch: BatchLimits = BatchLimits()
    buffer: BufferLimits = BufferLimits()
    assignment: Assignment = "range"
    session_timeout_s: float = 30.0  # a pause of the machine or of the garbage collection is shorter
    static: bool = True
    stay: bool = False
    drain_timeout_s: float = 25.0  # Kubernetes kills 30 s after SIGTERM

    def __post_init__(self) -> None:
        if not self.dead_letters:
            object.__setattr__(self, "dead_letters", dead_letters_topic(self.source))
        for name in ("source", "output", "dead_letters", "instance_id"):
            if _TOPIC.fullmatch(getattr(self, name)) is None:
                raise UsageError(
                    f"{name.replace('_', '-')}: expected 1 to 249 letters, digits, '.', '_' and '-', got "
                    f"{getattr(self, name)!r}"
                )
        if len({self.source, self.output, self.dead_letters}) < 3:
            raise UsageError(
                f"topics: the source {self.source}, the output {self.output} and the dead letters {self.dead_letters} "
                "must be three different ones"
            )
        if self.stay and not self.static:
            raise UsageError("stay: a dynamic member has no place to come back to; leave out one of the two")
        if self.buffer.records < self.batch.records:
            raise UsageError(
                f"buffer-records: expected at least a batch's {self.batch.records} records, got {self.buffer.records}"
            )

    @property
    def transactional_id(self) -> str:
        """Name of this worker's transactions: a restarted one shuts out what is left of the one before."""
        return f"{self.group}.{self.source}.{self.instance_id}"
