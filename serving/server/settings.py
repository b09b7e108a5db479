"""What the server is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from driftline.components.errors import UsageError
from driftline.components.settings import Setting, check_settings
from driftline.serving.kafka.settings import TOPIC, KafkaSettings
from driftline.serving.records.embeddings import VectorEncoding
from driftline.serving.records.payloads import PayloadFormat

NO_PORT: Final = -1


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a single request may ask for.

    Raises:
        UsageError: a value is out of range.
    """

    body_bytes: Annotated[
        int, Setting("Size of a request's body; a larger one is answered with 413", least=1, option="max-body-bytes")
    ] = 16 * 1024 * 1024
    texts: Annotated[int, Setting("Texts in a request; more are answered with 422", least=1, option="max-texts")] = 2048
    timeout_s: Annotated[
        float,
        Setting(
            "Seconds that an answer may take, whatever the request's X-Request-Timeout-Ms says; then 504",
            above=0,
            option="max-timeout-s",
            metavar="S",
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        check_settings(self, by_option=True)


@dataclass(frozen=True, slots=True)
class EventSettings:
    """What becomes of events.

    Attributes:
        kafka: how the topic's cluster is reached; needed with a topic.

    Raises:
        UsageError: a value is out of range, or settings contradict one another.
    """

    payload: Annotated[
        PayloadFormat,
        Setting(
            'How texts are written in events that do not say so: {"text": …} or plain',
            choices=("json", "text"),
            option="format",
        ),
    ] = "json"
    output_topic: Annotated[
        str,
        Setting("Topic that takes the results of events before they are answered", "replies alone", metavar="TOPIC"),
    ] = ""
    kafka: KafkaSettings | None = None
    vectors: Annotated[
        VectorEncoding,
        Setting("How events' vectors are written: as JSON numbers, or base64 of little-endian float32"),
    ] = "numbers"
    carry_text: Annotated[bool, Setting("Carry events' texts along with vectors", option="text")] = True
    produce_timeout_s: Annotated[
        float,
        Setting(
            "Seconds within which a result is safe on the output topic, or the event is answered with 503, and the "
            "sender tries again",
            above=0,
            metavar="S",
        ),
    ] = 10.0

    def __post_init__(self) -> None:
        if self.output_topic and self.kafka is None:
            raise UsageError(
                f"output-topic {self.output_topic}: where is it? Name some brokers with --bootstrap-servers"
            )
        if self.output_topic and TOPIC.fullmatch(self.output_topic) is None:
            raise UsageError(f"output-topic {self.output_topic[:60]!r}: expected up to 249 letters, digits and ._-")
        check_settings(self, by_option=True)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server listens, and how it ends.

    Attributes:
        limits: of a request.
        events: what becomes of events.

    Raises:
        UsageError: a value is out of range.
    """

    host: Annotated[str, Setting("Address to listen on", metavar="ADDRESS")] = "0.0.0.0"
    http_port: Annotated[int, Setting("Port of HTTP; 0 for any free one", least=0, most=65_535, metavar="PORT")] = 8080
    grpc_port: Annotated[
        int, Setting("Port of gRPC; 0 for any free one, -1 for none", least=NO_PORT, most=65_535, metavar="PORT")
    ] = 8081
    limits: RequestLimits = field(default_factory=RequestLimits)
    events: EventSettings = field(default_factory=EventSettings)
    drain_delay_s: Annotated[
        float,
        Setting(
            "Seconds of serving on when told to end, until load balancers have noticed that it is not ready any more",
            least=0,
            metavar="S",
        ),
    ] = 5.0
    drain_timeout_s: Annotated[
        float,
        Setting("Seconds to finish what is in hand when told to end, the delay included", least=0, metavar="S"),
    ] = 25.0  # Kubernetes kills 30 s after SIGTERM

    def __post_init__(self) -> None:
        check_settings(self, by_option=True)
        if not self.drain_delay_s < self.drain_timeout_s:
            raise UsageError(
                f"drain-delay-s: expected 0 s up to the drain-timeout-s of {self.drain_timeout_s:g} s, "
                f"got {self.drain_delay_s:g} s"
            )
