"""Events exactly as a KafkaSource sends them, against the real server and a real broker; what the topic then holds.

A KafkaSource sends one record a POST, in binary mode: `type` dev.knative.kafka.event, `source`
/apis/v1/namespaces/NS/kafkasources/NAME#TOPIC, `id` partition:P/offset:O, `subject` partition:P#O, `time` the record's,
extensions `key`, `partitionkey` and `kafkaheader…`; a content type only where the record had such a header; no body for
a tombstone. It sends again after 5xx, 404, 408, 409, 429 and connection errors, later each time, and gives any other
status from 300 on to its dead-letter sink.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.pipelines.demo.broker import LocalBroker
from driftline.serving.records.embeddings import read_embedding
from driftline.serving.records.provenance import read_source
from driftline.serving.records.record import Record, header
from tests.components.embedding.tiny_models import SCRIPTS, save_model
from tests.serving.server.process import Process, serving
from tests.support.brokers import create_topics, fresh, read_topic, restartable_broker

pytestmark = pytest.mark.slow

PARTITIONS = 4
IN_FLIGHT = 16
RETRIES = 40
RETRIED = frozenset((404, 408, 409, 429, *range(500, 600)))


@dataclass
class SentRecord:
    """A record of the source's topic.

    Attributes:
        kind: what is to become of it: ``text``, ``tombstone`` or ``poison``.
    """

    kind: str
    partition: int
    offset: int
    key: str | None
    value: bytes | None
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, topic: str) -> tuple[dict[str, str], bytes]:
        extensions = {f"kafkaheader{name}": value for name, value in self.headers.items() if name != "content-type"}
        if self.key is not None:
            extensions |= {"key": self.key, "partitionkey": self.key}
        attributes = {
            "specversion": "1.0",
            "id": f"partition:{self.partition}/offset:{self.offset}",
            "source": f"/apis/v1/namespaces/texts/kafkasources/requests#{topic}",
            "type": "dev.knative.kafka.event",
            "subject": f"partition:{self.partition}#{self.offset}",
            "time": f"2026-11-25T10:00:00.{self.offset % 1000:03}Z",
            **extensions,
        }
        headers = {f"ce-{name}": quote(value, safe="!#$&'()*+,/:;<=>?@[]^`{|}~") for name, value in attributes.items()}
        if "content-type" in self.headers:
            headers["content-type"] = self.headers["content-type"]
        headers["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        return headers, self.value or b""


@dataclass
class Source:
    """What a KafkaSource does with records: its requests, its retries, its dead-letter sink.

    Attributes:
        answers: the last answer to each record.
        statuses: how often each status came, retried ones too.
        dead_letters: the records that were given up.
    """

    url: str
    topic: str
    answers: dict[tuple[int, int], httpx.Response] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    dead_letters: list[SentRecord] = field(default_factory=list)

    def send(self, records: list[SentRecord]) -> None:
        asyncio.run(self._send(records))

    async def _send(self, records: list[SentRecord]) -> None:
        slots = asyncio.Semaphore(IN_FLIGHT)
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=IN_FLIGHT)) as client:

            async def deliver(record: SentRecord) -> None:
                headers, body = record.request(self.topic)
                async with slots:
                    for attempt in range(RETRIES):
                        answer = await client.post(self.url, headers=headers, content=body)
                        self.statuses[answer.status_code] += 1
                        if answer.status_code not in RETRIED:
                            break
                        await asyncio.sleep(min(0.01 * 2**attempt, 0.5))
                self.answers[record.partition, record.offset] = answer
                if answer.status_code >= 300:
                    self.dead_letters.append(record)

            await asyncio.gather(*(deliver(record) for record in records))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny", normalize=True)


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalBroker]:
    with restartable_broker() as found:
        yield found


@pytest.fixture(scope="module")
def output(broker: LocalBroker) -> str:
    topic = fresh("embeddings")
    create_topics(broker.address, {topic: PARTITIONS})
    return topic


@pytest.fixture(scope="module")
def server(folder: Path, broker: LocalBroker, output: str) -> Iterator[Process]:
    model = ["--model", f"embed={folder}", "--grpc-port", "-1", "--queue-texts", "1"]
    topic = ["--bootstrap-servers", broker.address, "--output-topic", output, "--produce-timeout-s", "3"]
    with serving(*model, *topic) as found:
        yield found


def records(count: int, seed: int) -> list[SentRecord]:
    random = np.random.default_rng(seed)
    found: list[SentRecord] = []
    offsets = Counter[int]()
    for number in range(count):
        partition = int(random.integers(PARTITIONS))
        offset = offsets[partition]
        offsets[partition] += 1
        kind = random.choice(["text", "tombstone", "poison"], p=[0.8, 0.1, 0.1])
        key = f'ключ {number % 40} 100% "quoted"'
        text = f"{SCRIPTS[number % len(SCRIPTS)]} {number}"
        record = SentRecord(str(kind), partition, offset, key, json.dumps({"text": text}).encode())
        if kind == "tombstone":
            record.value = None
        elif kind == "poison":
            record.value = [b"{", b"[]", b'{"text": ""}', b'{"text": 5}', b"\xff", b'{"body": "a"}'][number % 6]
        elif number % 3 == 0:
            record.headers = {"content-type": "application/json", "tenant": "blau & grün"}
        elif number % 3 == 1:
            record.headers, record.value = {"content-type": "text/plain; charset=utf-8"}, text.encode()
        found.append(record)
    return found


def by_place(found: list[Record], topic: str) -> dict[tuple[int, int], list[Record]]:
    places: dict[tuple[int, int], list[Record]] = {}
    for record in found:
        at = read_source(record.headers)
        assert at is not None
        if at.topic == topic:
            places.setdefault((at.partition, at.offset), []).append(record)
    return places


def test_all_records_arrive_at_16_in_flight(server: Process, broker: LocalBroker, output: str, folder: Path) -> None:
    sent = records(400, seed=1)
    source = Source(f"{server.url}/v1/models/embed:predict", "texts.in")
    source.send(sent)
    assert source.statuses[429] > 0, source.statuses  # the queue is of one text, and 16 are in flight
    assert set(source.statuses) <= {200, 204, 400, 422, 429}
    poison = {(record.partition, record.offset) for record in sent if record.kind == "poison"}
    assert {(record.partition, record.offset) for record in source.dead_letters} == poison

    places = by_place(read_topic(broker.address, output), "texts.in")
    assert set(places) == {(record.partition, record.offset) for record in sent} - poison
    texts = [record for record in sent if record.kind == "text"]
    plain = [
        value if record.headers.get("content-type", "").startswith("text/") else json.loads(value)["text"]
        for record in texts
        if (value := (record.value or b"").decode())
    ]
    text_of = dict(zip([(one.partition, one.offset) for one in texts], plain, strict=True))
    vector_of = dict(zip(text_of, Encoder.load(folder, "tiny", device="cpu").encode(plain).vectors, strict=True))
    for record in sent:
        place = (record.partition, record.offset)
        answer = source.answers[place]
        for written in places.get(place, []):
            assert written.key == (record.key or "").encode()
            at = read_source(written.headers)
            assert at is not None
            assert at.timestamp_ms % 1000 == record.offset % 1000
            assert (header(written.headers, "tenant") or b"").decode() == record.headers.get("tenant", "")
            assert header(written.headers, "driftline-event-id") == f"partition:{place[0]}/offset:{place[1]}".encode()
            if record.kind == "tombstone":
                assert (written.value, answer.status_code) == (None, 204)
                continue
            assert written.value is not None
            embedded = read_embedding(written.value)
            assert (embedded.id, embedded.text, embedded.model) == (record.key, text_of[place], "tiny")
            np.testing.assert_allclose(embedded.vector, vector_of[place], atol=1e-5)
            # The reply holds the same, and its id is made of the event's.
            assert answer.content == written.value
            assert answer.headers["ce-type"] == "driftline.embedding"
            assert answer.headers["ce-id"].endswith(f"/partition:{place[0]}/offset:{place[1]}")


def test_a_broker_that_is_away_is_503_until_it_is_back(server: Process, broker: LocalBroker, output: str) -> None:
    record = SentRecord("text", 0, 0, "k", b'{"text": "while away"}')
    tombstone = SentRecord("tombstone", 0, 1, "k", None)
    url = f"{server.url}/v1/models/embed:predict"
    broker.stop()
    try:
        for one in (record, tombstone):
            headers, body = one.request("texts.away")
            answer = httpx.post(url, headers=headers, content=body, timeout=60)
            assert (answer.status_code, output in answer.text) == (503, True)
            assert int(answer.headers["retry-after"]) >= 1
        # What needs no broker is served.
        assert httpx.post(url, json={"instances": ["a"]}, timeout=60).status_code == 200
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
    finally:
        broker.start()
    source = Source(url, "texts.away")
    source.send([record, tombstone])
    assert not source.dead_letters
    places = by_place(read_topic(broker.address, output), "texts.away")
    assert {place: found[-1].value is None for place, found in places.items()} == {(0, 0): False, (0, 1): True}


def test_events_of_others_are_told_by_their_source_and_id(server: Process, broker: LocalBroker, output: str) -> None:
    event = {
        "specversion": "1.0", "id": "order 7", "source": "urn:shop", "type": "review", "partitionkey": "shop-7",
        "data": {"text": "a fine film"},
    }  # fmt: skip
    headers = {"content-type": "application/cloudevents+json"}
    answer = httpx.post(f"{server.url}/", json=event, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, headers["content-type"])
    reply = answer.json()
    assert (reply["id"], reply["source"], reply["partitionkey"]) == ("urn:shop/order 7", "/v1/models/embed", "shop-7")
    (written,) = [record for record in read_topic(broker.address, output) if record.key == b"shop-7"]
    assert read_source(written.headers) is None
    assert header(written.headers, "driftline-event-source") == b"urn:shop"
    assert header(written.headers, "driftline-event-id") == b"order 7"
    assert written.value is not None
    assert json.loads(written.value) == reply["data"]


def test_several_texts_have_no_key_of_their_own(server: Process) -> None:
    headers, _ = SentRecord("text", 0, 0, "k", b"").request("texts.in")
    answer = httpx.post(f"{server.url}/", headers=headers, content=b'{"instances": ["a", "b"]}')
    assert (answer.status_code, "one text an event" in answer.text) == (422, True)
