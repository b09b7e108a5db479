"""Events in, events out: what a KafkaSource, a broker's trigger or anybody else sends as CloudEvents.

An event is one text, or the deletion of one, as a record of the stream is: its data is `{"text": …}` or the text
itself, its key the text's id. Data with `instances` is a V1 request instead, answered by an event of its predictions.

With an output topic, the result is written there, with acks=all, before the event is answered: 2xx says that it is
safe. Delivery is at least once, so a result may be there twice; readers tell by the headers of source topic, partition
and offset, or of the event's source and id, which are the same both times.
"""

from __future__ import annotations

import time
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final, cast

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.responses import Response

from driftline.serving.errors import DeadlineError, PoisonError
from driftline.serving.records.embeddings import EmbeddedText, write_embedding
from driftline.serving.records.payloads import parsed_json, read_text
from driftline.serving.records.provenance import PREFIX, own_headers_removed, source_headers
from driftline.serving.records.record import Headers, Record, TextEvent
from driftline.serving.server.failures import RequestError
from driftline.serving.server.protocols.cloudevents import Event, reading_headers, record_of, reply
from driftline.serving.server.protocols.v1 import INSTANCES, predictions
from driftline.serving.server.service import EmbeddingService, Options, TextModel
from driftline.serving.server.settings import EventSettings
from driftline.serving.server.topic_sink import TopicSink

EMBEDDING: Final = "driftline.embedding"
"""Type of the event that answers one of a text."""

PREDICTIONS: Final = "driftline.predictions"
"""Type of the event that answers one of several texts."""

EVENT_SOURCE: Final = PREFIX + "event-source"
EVENT_ID: Final = PREFIX + "event-id"

_PRODUCE_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class EventHandler:
    """Answers events."""

    def __init__(
        self,
        service: EmbeddingService,
        settings: EventSettings,
        sink: TopicSink | None,
        registry: CollectorRegistry,
    ) -> None:
        self._service = service
        self._settings = settings
        self._sink = sink
        self._events = Counter(
            "driftline_server_events", "Events answered with success", ("model", "kind"), registry=registry
        )
        self._poison = Counter(
            "driftline_server_poison_events",
            "Events that can never be processed",
            ("model", "reason"),
            registry=registry,
        )
        self._produce = Histogram(
            "driftline_server_produce_seconds",
            "Time until a result was safe on the output topic",
            registry=registry,
            buckets=_PRODUCE_BUCKETS_S,
        )

    async def answer(self, model: TextModel, event: Event, expires: float) -> Response:
        """Answer an event: 200 with an event, or 204 for a deletion.

        Raises:
            RequestError, DriftlineError: it is refused, or fails.
        """
        record = record_of(event)
        try:
            found = self._read(event, record)
        except PoisonError as error:
            instances = self._instances(event) if error.reason == "no-text" else None
            if instances is None:
                self._poison.labels(model.name, error.reason).inc()
                raise
            return await self._answer_instances(model, event, instances, expires)
        if found.text is None:
            await self._write(record, event, found, None, expires)
            self._events.labels(model.name, "deletion").inc()
            return Response(status_code=HTTPStatus.NO_CONTENT)
        embedded = await self._service.embed(model, [found.text], Options(), expires)
        text = found.text if self._settings.carry_text else None
        value = write_embedding(
            EmbeddedText(found.id, model.model, model.revision, embedded.vectors[0], text), self._settings.vectors
        )
        await self._write(record, event, found, value, expires)
        self._events.labels(model.name, "text").inc()
        body, headers = reply(event, EMBEDDING, _source(model), value)
        return Response(body, HTTPStatus.OK, headers)

    def _read(self, event: Event, record: Record) -> TextEvent:
        """Return the text in an event, read as a record's is."""
        if not event.structured and not event.content_type and self._settings.payload == "text":
            return read_text(record, "text")
        return read_text(replace(record, headers=reading_headers(event)))

    def _instances(self, event: Event) -> dict[str, Any] | None:
        value = parsed_json("the event", event.data or b"")
        data = cast("dict[str, Any]", value).get("data") if event.structured else value
        if isinstance(data, dict) and INSTANCES in data:
            return cast("dict[str, Any]", data)
        return None

    async def _answer_instances(self, model: TextModel, event: Event, body: dict[str, Any], expires: float) -> Response:
        if self._sink is not None:
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"the event has '{INSTANCES}', several texts under one key; where results go to a topic, send one text "
                "an event",
            )
        answer = await predictions(self._service, model.name, body, expires)
        self._events.labels(model.name, INSTANCES).inc()
        content, headers = reply(event, PREDICTIONS, _source(model), orjson.dumps(answer))
        return Response(content, HTTPStatus.OK, headers)

    async def _write(self, record: Record, event: Event, found: TextEvent, value: bytes | None, expires: float) -> None:
        if self._sink is None:
            return
        if time.monotonic() >= expires:
            raise DeadlineError("the time for this event had passed before its result was written")
        with self._produce.time():
            await self._sink.write(record.key or found.id.encode(), value, _headers(record, event))


def _headers(record: Record, event: Event) -> Headers:
    known = own_headers_removed(record.headers) if event.at is None else source_headers(record)
    return (*known, (EVENT_SOURCE, _encoded(event.source)), (EVENT_ID, _encoded(event.id)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _source(model: TextModel) -> str:
    return f"/v1/models/{model.name}"
