"""Traces: W3C trace context in records' headers, read, continued and carried on (OpenTelemetry).

Switched on as OpenTelemetry's own variables say: by ``OTEL_EXPORTER_OTLP_ENDPOINT`` or
``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``, unless ``OTEL_SDK_DISABLED`` is true. Off, nothing is imported or done, and the
headers pass through as they are.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from driftline.serving.records.record import Headers

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_CARRIED: Final = ("traceparent", "tracestate")
_MOST_LINKS: Final = 128  # OpenTelemetry's default limit

Attributes = Mapping[str, str | int | float | bool]


class Tracing:
    """Begins spans that continue records' traces.

    Args:
        tracer: where spans go.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, name: str, headers: Headers, attributes: Attributes) -> Span:
        """Begin the span of one record's processing, a child of the one that its headers name, if any."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {header.lower(): value.decode("latin-1") for header, value in headers if header.lower() in _CARRIED}
        parent = TraceContextTextMapPropagator().extract(carrier)
        return self._tracer.start_span(name, parent, SpanKind.CONSUMER, dict(attributes))

    def batch(self, name: str, spans: Sequence[Span], attributes: Attributes) -> Span:
        """Begin the span of what is done for several records at once; it links to theirs."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link

        links = [Link(span.get_span_context()) for span in spans[:_MOST_LINKS]]
        return self._tracer.start_span(name, Context(), links=links, attributes=dict(attributes))


def carried(span: Span, headers: Headers) -> Headers:
    """Return headers that lead to a span: in place of the trace context that came in, if any."""
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    kept = tuple((name, value) for name, value in headers if name.lower() not in _CARRIED)
    return (*kept, *((name, value.encode()) for name, value in carrier.items()))


def end(span: Span, error: str = "") -> None:
    """End a span; one with an error's message has failed."""
    from opentelemetry.trace import StatusCode

    if error:
        span.set_status(StatusCode.ERROR, error)
    span.end()


@contextmanager
def tracing(
    service: str, environment: Mapping[str, str], exporter: SpanExporter | None = None
) -> Generator[Tracing | None]:
    """Export spans for as long as the block lasts.

    Args:
        service: name of this process in traces, unless OTEL_SERVICE_NAME gives one.
        environment: the process's variables.
        exporter: where spans go; None for OTLP over HTTP, as the variables say.

    Yields:
        What begins spans; None where traces are off.
    """
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or (exporter is None and not any(environment.get(name) for name in ENDPOINT_VARIABLES)):
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own_name = environment.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: own_name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    try:
        yield Tracing(provider.get_tracer("driftline"))
    finally:
        provider.shutdown()
