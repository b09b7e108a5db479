"""What the server is asked to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from driftline.components.errors import UsageError
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.embeddings import VectorEncoding
from driftline.serving.records.payloads import PayloadFormat

NO_PORT: Final = -1
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a single request may ask for.

    Attributes:
        body_bytes: size of a request's body; more is answered with 413.
        texts: texts in a request; more is answered with 422.
        timeout_s: seconds that an answer may take, whatever longer time the request grants; then 504.
    """

    body_bytes: int = 16 * 1024 * 1024
    texts: int = 2048
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("body_bytes", "texts"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not self.timeout_s > 0:
            raise UsageError(f"timeout_s: expected more than 0, got {self.timeout_s}")


@dataclass(frozen=True, slots=True)
class EventSettings:
    """What becomes of events.

    Attributes:
        payload: how the data of an event that does not state its content type is written: ``json`` or ``text``.
        output_topic: topic that takes the results of events; empty for replies alone.
        kafka: how the topic's cluster is reached; needed with a topic.
        vectors: how vectors are written to the topic and into replies.
        carry_text: whether the text stands beside its vector.
        produce_timeout_s: seconds within which a result must be safe on the topic; then 503, and the sender tries
            again.

    Raises:
        UsageError: settings that contradict one another.
    """

    payload: PayloadFormat = "json"
    output_topic: str = ""
    kafka: KafkaSettings | None = None
    vectors: VectorEncoding = "numbers"
    carry_text: bool = True
    produce_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.output_topic and self.kafka is None:
            raise UsageError(
                f"output-topic {self.output_topic}: where is it? Name some brokers with --bootstrap-servers"
            )
        if self.output_topic and _TOPIC.fullmatch(self.output_topic) is None:
            raise UsageError(f"output-topic {self.output_topic[:60]!r}: expected up to 249 letters, digits and ._-")
        if not self.produce_timeout_s > 0:
            raise UsageError(f"produce-timeout: expected more than 0 seconds, got {self.produce_timeout_s}")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server listens, and how it ends.

    Attributes:
        host: address to listen on.
        http_port: of REST; 0 for any free one.
        grpc_port: of gRPC; 0 for any free one, -1 for none.
        limits: of a request.
        events: what becomes of events.
        drain_delay_s: seconds after SIGTERM in which requests are still taken while readiness already says no: load
            balancers need them to notice.
        drain_timeout_s: seconds after SIGTERM, the delay included, by which the process ends whatever is still in hand.

    Raises:
        UsageError: a value is out of range.
    """

    host: str = "0.0.0.0"
    http_port: int = 8080
    grpc_port: int = 8081
    limits: RequestLimits = field(default_factory=RequestLimits)
    events: EventSettings = field(default_factory=EventSettings)
    drain_delay_s: float = 5.0
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.drain_delay_s < self.drain_timeout_s:
            raise UsageError(
                f"drain-delay: expected 0 s up to the drain-timeout of {self.drain_timeout_s:g} s, "
                f"got {self.drain_delay_s:g} s"
            )
