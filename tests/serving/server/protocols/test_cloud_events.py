"""CloudEvents and the records in them, and the topic that takes the results, without a broker."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, MessageSizeTooLargeError

from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.records.record import Coordinates
from driftline.serving.server.protocols.cloud_events import Event, read_event, record_of, reply
from driftline.serving.server.settings import EventSettings, RequestLimits, ServerSettings
from driftline.serving.server.topic_sink import TopicSink
from tests.serving.server.fake_host import HOST, FakeModel, served
from tests.support.brokers import eventually, settings_of

KAFKA = {
    "specversion": "1.0",
    "id": "partition:3/offset:41",
    "source": "/apis/v1/namespaces/ns/kafkasources/name#a.topic",
    "type": "dev.knative.kafka.event",
    "subject": "partition:3#41",
    "time": "2026-11-25T10:00:00.123Z",
    "key": "k-1",
    "kafkaheadertenant": "blue",
}


def event_of(attributes: dict[str, str], body: bytes = b"", content_type: str = "") -> Event:
    headers = [(f"ce-{name}".encode(), value.encode()) for name, value in attributes.items()]
    return read_event(headers, content_type.partition(";")[0], content_type, body)


def test_a_kafka_sources_event_is_the_record_that_it_was() -> None:
    record = record_of(event_of(KAFKA, b"{}"))
    assert record.at == Coordinates("a.topic", 3, 41, 1_795_600_800_123)
    assert (record.key, record.value, record.headers) == (b"k-1", b"{}", (("tenant", b"blue"),))


def test_no_body_is_a_tombstone() -> None:
    assert record_of(event_of(KAFKA)).value is None


@pytest.mark.parametrize(
    ("time_", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.001+01:00", 1),
        ("2026-11-25T10:00:00.123456789Z", 1_795_600_800_123),
        ("2026-11-25T10:00:00", -1),
        ("yesterday", -1),
        ("", -1),
    ],
)
def test_times(time_: str, expected: int) -> None:
    assert record_of(event_of(KAFKA | {"time": time_})).at.timestamp_ms == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "partition:3/offset:x"},
        {"id": "7"},
        {"source": "/no/topic"},
        {"source": "/empty/topic#"},
    ],
)
def test_an_event_of_somebody_else_has_no_place_on_a_topic(changes: dict[str, str]) -> None:
    assert event_of(KAFKA | changes).at is None


def test_headers_are_percent_encoded_utf_8_or_utf_8_as_it_is() -> None:
    assert event_of(KAFKA | {"key": "k%C3%A4%20%25"}).attributes["key"] == "kä %"
    assert event_of(KAFKA | {"key": "kä"}).attributes["key"] == "kä"
    assert event_of(KAFKA | {"key": "100%"}).attributes["key"] == "100%"


@given(
    values=st.dictionaries(
        st.sampled_from(["key", "subject", "partitionkey", "kafkaheaderx", "tenant"]), st.text(min_size=1, max_size=12)
    ),
    structured=st.booleans(),
)
def test_extensions_go_along_with_the_reply(values: dict[str, str], structured: bool) -> None:
    clean = {name: value.encode("utf-8", "replace").decode() for name, value in values.items()}
    required = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    event = Event(required | clean, "", b"", {} if structured else None, None)
    body, headers = reply(event, "answer", "/me", b'{"a":1}')
    if structured:
        found = json.loads(body)
        assert found.pop("data") == {"a": 1}
        assert found.pop("datacontenttype") == "application/json"
    else:
        raw = [(name.lower().encode(), value.encode("ascii")) for name, value in headers.items()]
        found = dict(read_event(raw, "application/json", "application/json", body).attributes)
        assert body == b'{"a":1}'
    assert found == {"specversion": "1.0", "id": "/s/1", "source": "/me", "type": "answer"} | clean


PLAIN = ServerSettings(
    host=HOST,
    http_port=0,
    grpc_port=-1,
    limits=RequestLimits(),
    events=EventSettings(payload="text", vectors="base64", carry_text=False),
    drain_delay_s=0,
)


def test_what_the_settings_say_of_events_is_done() -> None:
    with served(FakeModel("embed"), settings=PLAIN) as server:
        headers = {f"ce-{name}": value for name, value in KAFKA.items()}
        answer = server.http.post("/", content='{"text": "a"}', headers=headers).json()
        assert server.models["embed"].asked[-1] == ['{"text": "a"}']
        assert (isinstance(answer["embedding"], str), "text" in answer) == (True, False)
        # What states its type is read by it.
        server.http.post("/", content='{"text": "a"}', headers=headers | {"content-type": "application/json"})
        assert server.models["embed"].asked[-1] == ["a"]
        keyless = {name: value for name, value in headers.items() if name != "ce-key"}
        assert (
            server.http.post("/", content="a", headers=keyless)
            .json()["error"]
            .endswith("give the text's id as the key")
        )
        assert server.http.post("/", headers=keyless).status_code == 422
        counted = server.registry.get_sample_value(
            "driftline_server_poison_events_total", {"model": "embed", "reason": "no-id"}
        )
        assert counted == 1


def test_data_with_instances_is_a_v1_request() -> None:
    with served(FakeModel("embed")) as server:
        headers = {f"ce-{name}": value for name, value in KAFKA.items()}
        answer = server.http.post("/", json={"instances": ["a", "b"]}, headers=headers)
        assert answer.headers["ce-type"] == "driftline.predictions"
        plain = server.http.post("/v1/models/embed:predict", json={"instances": ["a", "b"]})
        assert answer.json() == plain.json()
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"instances": ["a", "b"]}}
        kind = {"content-type": "application/cloudevents+json"}
        assert server.http.post("/", json=event, headers=kind).json()["data"] == plain.json()


@dataclass
class FakeFuture:
    error: Exception | None

    def add_callback(self, call: Callable[[Any], object]) -> None:
        if self.error is None:
            threading.Timer(0.01, call, (None,)).start()

    def add_errback(self, call: Callable[[Exception], object]) -> None:
        if self.error is not None:
            threading.Timer(0.01, call, (self.error,)).start()


@dataclass
class FakeProducer:
    raised: Exception | None = None
    failed: Exception | None = None
    blocks_s: float = 0.0
    sent: list[tuple[Any, ...]] = field(default_factory=list)
    closed: bool = False

    def send(self, topic: str, *, value: Any, key: Any, headers: Any) -> FakeFuture:
        time.sleep(self.blocks_s)
        if self.raised is not None:
            raise self.raised
        self.sent.append((topic, key, value, headers))
        return FakeFuture(self.failed)

    def close(self, timeout: float | None = None) -> None:
        self.closed = True


def sink_of(*producers: FakeProducer | Exception, timeout_s: float = 5) -> TopicSink:
    left = [*producers]

    def opened() -> FakeProducer:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return TopicSink("out", settings_of("broker:9092"), timeout_s, opened)


def test_records_are_written_by_one_producer() -> None:
    producer = FakeProducer()
    sink = sink_of(producer)

    async def write() -> None:
        await asyncio.gather(*(sink.write(b"k", b"%d" % number, (("h", b"x"),)) for number in range(20)))

    asyncio.run(write())
    assert producer.sent == [("out", b"k", b"%d" % number, [("h", b"x")]) for number in range(20)]
    sink.close()
    assert producer.closed


@pytest.mark.parametrize("broken", [FakeProducer(raised=KafkaTimeoutError()), FakeProducer(failed=KafkaTimeoutError())])
def test_a_producer_that_failed_is_put_aside(broken: FakeProducer) -> None:
    good = FakeProducer()
    sink = sink_of(broken, good)
    with pytest.raises(UnavailableError, match=r"topic out at broker:9092: .*send it again"):
        asyncio.run(sink.write(b"k", b"v", ()))
    asyncio.run(sink.write(b"k", b"v", ()))
    assert len(good.sent) == 1
    sink.close()


def test_a_broker_that_is_away_is_told_each_time_until_it_is_back() -> None:
    away = UnavailableError("Kafka at broker:9092: away")
    sink = sink_of(away, KafkaConnectionError(), FakeProducer())
    for _ in range(2):
        with pytest.raises(UnavailableError):
            asyncio.run(sink.write(b"k", b"v", ()))
    asyncio.run(sink.write(b"k", b"v", ()))
    sink.close()


def test_who_waits_behind_a_producer_that_blocks_is_not_sent_later() -> None:
    producer = FakeProducer(blocks_s=0.3)
    sink = sink_of(producer, timeout_s=0.05)

    async def write() -> list[BaseException | None]:
        return await asyncio.gather(*(sink.write(b"k", b"v", ()) for _ in range(5)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(write())] == [UnavailableError] * 5
    eventually(lambda: len(producer.sent) == 1)
    sink._thread.submit(lambda: None).result()  # whatever it was given before is done
    assert len(producer.sent) == 1
    sink.close()


def test_a_record_that_is_too_large_is_poison_and_no_fault_of_the_producer() -> None:
    producer = FakeProducer(failed=MessageSizeTooLargeError())
    sink = sink_of(producer)
    with pytest.raises(PoisonError, match="brokers do not take a record of 3 bytes"):
        asyncio.run(sink.write(b"k", b"big", ()))
    producer.failed = None
    asyncio.run(sink.write(b"k", b"small", ()))
    assert len(producer.sent) == 2
    sink.close()
