from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from driftline.serving.records.record import Coordinates, Headers, Record, TextEvent, header
from driftline.serving.stream.buffer import MicroBatch
from driftline.serving.stream.spans import BatchSpans
from driftline.serving.stream.work_items import Incoming, ResultWriter
from driftline.serving.telemetry.tracing import Tracing, carried, end, tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01".encode()
WRITER = ResultWriter("out", "dead", "m", "r", "numbers", with_text=True)


def incoming(offset: int, headers: Headers) -> Incoming:
    record = Record(b"k", None, headers, Coordinates("texts", 2, offset, 0))
    return Incoming(record, TextEvent("k", None), 1, 0.0)


def spans_of(batch: MicroBatch, error: str = "") -> tuple[list[Headers], tuple[ReadableSpan, ...]]:
    exporter = InMemorySpanExporter()
    with tracing("driftline-test", {}, exporter) as on:
        spans = BatchSpans(on, batch)
        results = spans.carried_on([WRITER.tombstone(item.record, TextEvent("k", None)) for item in batch.items])
        spans.end(error)
    return [result.headers for result in results], exporter.get_finished_spans()


def test_a_records_trace_goes_on_in_its_result() -> None:
    headers = (("traceparent", TRACEPARENT), ("tracestate", b"vendor=1"), ("own", b"x"))
    [result], (record, batch) = spans_of(MicroBatch(0, (incoming(5, headers),), None))
    assert format(record.context.trace_id, "032x") == TRACE
    assert record.parent is not None
    assert format(record.parent.span_id, "016x") == PARENT
    assert record.attributes is not None
    assert record.attributes["messaging.kafka.offset"] == 5
    assert record.resource.attributes["service.name"] == "driftline-test"
    child = f"00-{TRACE}-{record.context.span_id:016x}-01".encode()
    assert [value for name, value in result if name == "traceparent"] == [child]
    assert header(result, "tracestate") == b"vendor=1"
    assert header(result, "own") == b"x"
    assert [link.context.span_id for link in batch.links] == [record.context.span_id]


@pytest.mark.parametrize("headers", [(), (("traceparent", b"\xff damaged"),)])
def test_a_record_without_a_trace_begins_one(headers: Headers) -> None:
    [result], (record, _) = spans_of(MicroBatch(0, (incoming(1, headers),), None))
    assert record.parent is None
    assert format(record.context.trace_id, "032x").encode() in (header(result, "traceparent") or b"")


def test_a_batch_that_was_not_written_is_an_error() -> None:
    _, spans = spans_of(MicroBatch(0, (incoming(1, ()), incoming(2, ())), None), error="the broker is away")
    assert {span.status.description for span in spans} == {"the broker is away"}
    assert len(spans) == 3


def test_off_nothing_is_done_and_headers_pass_through() -> None:
    batch = MicroBatch(0, (incoming(1, (("traceparent", TRACEPARENT),)),), None)
    with tracing("driftline-test", {}) as off:
        assert off is None
        spans = BatchSpans(off, batch)
        [result] = spans.carried_on([WRITER.tombstone(batch.items[0].record, TextEvent("k", None))])
        spans.end()
    assert header(result.headers, "traceparent") == TRACEPARENT


def test_the_standard_variables_switch_it() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with tracing("t", endpoint, InMemorySpanExporter()) as on:
        assert isinstance(on, Tracing)
        span = on.begin("x", (), {})
        assert header(carried(span, ()), "traceparent")
        end(span)
    with tracing("t", {**endpoint, "OTEL_SDK_DISABLED": "true"}) as off:
        assert off is None
