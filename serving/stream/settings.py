"""What is asked of a stream worker."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Annotated, Literal

from driftline.components.errors import UsageError
from driftline.components.settings import Setting, check_settings
from driftline.serving.kafka.settings import TOPIC, InstanceId
from driftline.serving.records.embeddings import VectorEncoding
from driftline.serving.records.payloads import PayloadFormat
from driftline.serving.records.provenance import dead_letters_topic

Delivery = Literal["exactly-once", "at-least-once"]
Assignment = Literal["range", "cooperative-sticky"]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a micro-batch is at most. A single text of more tokens is a batch of its own."""

    records: Annotated[int, Setting("Records of a micro-batch", least=1, option="batch-records")] = 512
    tokens: Annotated[
        int, Setting("Tokens of a micro-batch, at four characters each", least=1, option="batch-tokens")
    ] = 32_768
    linger_ms: Annotated[
        float, Setting("Milliseconds that a micro-batch that is not full waits for more", least=0, metavar="MS")
    ] = 20.0


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """How much is read ahead of the encoder."""

    records: Annotated[
        int, Setting("Records read ahead; beyond, partitions are paused", least=1, option="buffer-records")
    ] = 4096
    bytes: Annotated[
        int, Setting("Bytes of the keys and values of the records read ahead", least=1, option="buffer-bytes")
    ] = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a worker reads, what it writes and how.

    Attributes:
        batch: limits of a micro-batch.
        buffer: limits of what is read ahead.

    Raises:
        UsageError: settings that cannot be, or contradict one another.
    """

    source: Annotated[str, Setting("Topic of the texts", option="input-topic", metavar="TOPIC")]
    output: Annotated[str, Setting("Topic of the embeddings", option="output-topic", metavar="TOPIC")]
    group: Annotated[
        str, Setting("Consumer group; its workers share the input topic's partitions", metavar="GROUP")
    ] = "driftline-stream"
    instance_id: InstanceId = field(default_factory=socket.gethostname)
    dead_letters: Annotated[
        str,
        Setting(
            "Topic of what cannot be processed",
            "the input topic's name and .dead-letters",
            option="dead-letters-topic",
            metavar="TOPIC",
        ),
    ] = ""
    delivery: Annotated[Delivery, Setting("Results and offsets in one transaction, or offsets after results")] = (
        "exactly-once"
    )
    payload: Annotated[
        PayloadFormat, Setting('How texts are written: {"text": …}, plain, or as CloudEvents', option="format")
    ] = "json"
    vectors: Annotated[
        VectorEncoding, Setting("How vectors are written: as JSON numbers, or base64 of little-endian float32")
    ] = "numbers"
    with_text: Annotated[bool, Setting("Carry texts along with vectors", option="text")] = True
    batch: BatchLimits = BatchLimits()
    buffer: BufferLimits = BufferLimits()
    assignment: Annotated[Assignment, Setting("How the group shares partitions; the same for all of its workers")] = (
        "range"
    )
    session_timeout_s: Annotated[
        float,
        Setting("Seconds of silence after which a worker's partitions are given to others", least=1, metavar="S"),
    ] = 30.0  # a pause of the machine or of the garbage collection is shorter
    static: Annotated[
        bool,
        Setting(
            "Take up this worker's place in the group again after a restart, or join as a new member", off="dynamic"
        ),
    ] = True
    stay: Annotated[
        bool,
        Setting("Let the group keep this worker's partitions for its return when it ends", "hand them over"),
    ] = False
    drain_timeout_s: Annotated[
        float, Setting("Seconds to finish what is in hand when told to end", least=0, metavar="S")
    ] = 25.0  # Kubernetes kills 30 s after SIGTERM

    def __post_init__(self) -> None:
        if not self.dead_letters:
            object.__setattr__(self, "dead_letters", dead_letters_topic(self.source))
        for option, name in (
            ("input-topic", self.source),
            ("output-topic", self.output),
            ("dead-letters-topic", self.dead_letters),
            ("instance-id", self.instance_id),
        ):
            if TOPIC.fullmatch(name) is None:
                raise UsageError(f"{option}: expected 1 to 249 letters, digits, '.', '_' and '-', got {name!r}")
        check_settings(self, by_option=True)
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
