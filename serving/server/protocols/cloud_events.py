"""CloudEvents over HTTP, binary and structured (HTTP protocol binding 1.0.2): a text in, its vector out.

An event is one text, or the deletion of one, as a record of the stream is: its data is `{"text": …}` or the text
itself, its key the text's id. Data with `instances` is a V1 request instead, answered by an event of its predictions.

What a KafkaSource sends is a record in binary mode: `source` ends in `#TOPIC`, `id` is `partition:P/offset:O`, `time`
the record's time, the extension `key` its key, `kafkaheader…` its headers, and no body stands for a tombstone.

With an output topic, the result is written there, with acks=all, before the event is answered: 2xx says that it is
safe. Delivery is at least once, so a result may be there twice; readers tell by the headers of source topic, partition
and offset, or of the event's source and id, which are the same both times.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NotRequired, cast
from urllib.parse import quote, unquote_to_bytes

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import ConfigDict, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from driftline.serving.errors import DeadlineError, PoisonError
from driftline.serving.records.embeddings import EmbeddedText, write_embedding
from driftline.serving.records.payloads import holds_json, parsed_json, read_text
from driftline.serving.records.provenance import PREFIX, own_headers_removed, source_headers
from driftline.serving.records.record import Coordinates, Headers, Record, TextEvent
from driftline.serving.server.bodies import Text, Vector, whole
from driftline.serving.server.failures import RequestError
from driftline.serving.server.protocols.v1 import INSTANCES, TextInstance, V1Request, V1Response, predictions
from driftline.serving.server.service import EmbeddingService, Options
from driftline.serving.server.settings import EventSettings
from driftline.serving.server.topic_sink import TopicSink

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel

EMBEDDING: Final = "driftline.embedding"
"""Type of the event that answers one of a text."""

PREDICTIONS: Final = "driftline.predictions"
"""Type of the event that answers one of several texts."""

EVENT_SOURCE: Final = PREFIX + "event-source"
EVENT_ID: Final = PREFIX + "event-id"

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"

_PREFIX: Final = b"ce-"
_REQUIRED: Final = ("specversion", "id", "source", "type")
_VERSION: Final = "1.0"
_OF_ITS_OWN: Final = frozenset((*_REQUIRED, "time", "dataschema"))  # a reply does not take these over
_KAFKA_ID: Final = re.compile(r"partition:(\d{1,10})/offset:(\d{1,19})")
_HEADER_EXTENSION: Final = "kafkaheader"
_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_NO_TIME_MS: Final = -1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PRODUCE_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Word = Annotated[str, Field(min_length=1)]


class _Attributes(TypedDict):
    """Attributes that an event must have, and the type of its data."""

    specversion: Literal["1.0"]
    id: Word
    source: Word
    type: Word
    datacontenttype: NotRequired[str]


class StructuredEvent(_Attributes):
    """A CloudEvent in structured mode, data_base64 instead of data too; binary mode is taken."""

    __pydantic_config__ = ConfigDict(  # pyright: ignore[reportGeneralTypeIssues] - read by pydantic
        json_schema_extra={
            "propertyNames": {"pattern": "^[a-z0-9]+$"},
            "additionalProperties": {"type": ["string", "integer", "boolean"]},
        },
    )
    key: NotRequired[str]
    data: Text | TextInstance | V1Request


class Embedding(TypedDict):
    """A text's vector, as it stands on the output topic, too."""

    id: str
    model: str
    revision: str
    embedding: Vector | str
    text: NotRequired[str]


class ReplyEvent(_Attributes):
    """A CloudEvent that answers another one, in structured mode."""

    data: Embedding | V1Response


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent.

    Attributes:
        attributes: by name, extensions included, `datacontenttype` not.
        content_type: of its data; empty where it is not stated.
        data: its data's bytes; in structured mode those of the whole event. None where it has no data.
        fields: the whole event's JSON, where it came, and is answered, in structured mode; None in binary mode.
        at: where its record lies, for one of a KafkaSource that was no CloudEvent before.
    """

    attributes: Mapping[str, str]
    content_type: str
    data: bytes | None
    fields: Mapping[str, Any] | None
    at: Coordinates | None

    @property
    def structured(self) -> bool:
        """Whether it came in structured mode."""
        return self.fields is not None

    @property
    def id(self) -> str:
        """Its id; together with its source it is unique."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Its source."""
        return self.attributes["source"]


class EventHandler:
    """Answers to events."""

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

    async def answer(self, model: ServedModel, event: Event, expires: float) -> Response:
        """Answer an event: 200 with an event, or 204 for a deletion.

        Raises:
            RequestError, DriftlineError: it is refused, or fails.
        """
        record = record_of(event)
        try:
            found = self._read(event, record)
        except PoisonError as error:
            self._poison.labels(model.name, error.reason).inc()
            raise
        if not isinstance(found, TextEvent):
            return await self._answer_instances(model, event, found, expires)
        if found.text is None:
            await self._write(record, event, found, None, expires)
            self._events.labels(model.name, "deletion").inc()
            return Response(status_code=HTTPStatus.NO_CONTENT)
        embedded = await self._service.embed_in_time(model, [found.text], Options(), expires)
        text = found.text if self._settings.carry_text else None
        value = write_embedding(
            EmbeddedText(found.id, model.model, model.revision, embedded.vectors[0], text), self._settings.vectors
        )
        await self._write(record, event, found, value, expires)
        self._events.labels(model.name, "text").inc()
        body, headers = reply(event, EMBEDDING, _source(model), value)
        return Response(body, HTTPStatus.OK, headers)

    def _read(self, event: Event, record: Record) -> TextEvent | dict[str, Any]:
        """Return the text in an event, read as a record's is, or the V1 request that stands in its place."""
        if not event.structured and not event.content_type and self._settings.payload == "text":
            return read_text(record, "text")
        named = replace(record, headers=reading_headers(event))
        if not holds_json(named):
            return read_text(named)
        value = event.fields if event.structured else parsed_json(f"record {record.at}", record.value or b"")
        try:
            return read_text(named, parsed=value)
        except PoisonError as error:
            data = event.fields.get("data") if event.fields is not None else value
            if error.reason == "no-text" and isinstance(data, dict) and INSTANCES in data:
                return cast("dict[str, Any]", data)
            raise

    async def _answer_instances(
        self, model: ServedModel, event: Event, body: dict[str, Any], expires: float
    ) -> Response:
        if self._sink is not None:
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"the event has '{INSTANCES}', several texts under one key; where results go to a topic, send one text "
                "an event",
            )
        answer = await predictions(self._service, model, body, expires)
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


def is_event(headers: Iterable[tuple[bytes, bytes]], kind: str) -> bool:
    """Return whether a request is a CloudEvent, or a batch of them.

    Args:
        headers: of the request, their names in lower case.
        kind: the body's media type.
    """
    return kind in (STRUCTURED, BATCH) or any(name.startswith(_PREFIX) for name, _ in headers)


def read_event(headers: Iterable[tuple[bytes, bytes]], kind: str, content_type: str, content: bytes) -> Event:
    """Read a CloudEvent off a request.

    Args:
        headers: of the request, their names in lower case.
        kind: the body's media type.
        content_type: the whole header of it.
        content: the body.

    Raises:
        RequestError: 400, it is no CloudEvent; 415, it is a batch of them.
        PoisonError: it is structured, and not JSON.
    """
    if kind == BATCH:
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type {BATCH}: send one event a request")
    if kind == STRUCTURED:
        return _structured(content)
    attributes = {
        name[len(_PREFIX) :].decode("latin-1"): _header_text(value)
        for name, value in headers
        if name.startswith(_PREFIX) and name[len(_PREFIX) :].isalnum()
    }
    attributes.pop("datacontenttype", None)
    _check(attributes)
    return Event(attributes, content_type, content or None, fields=None, at=_coordinates(attributes))


def record_of(event: Event) -> Record:
    """Return an event as the record that it is, or could be: its key, value, headers and place."""
    key = event.attributes.get("key") or (None if event.at else event.attributes.get("partitionkey"))
    headers: list[tuple[str, bytes]] = [
        (name.removeprefix(_HEADER_EXTENSION), value.encode("utf-8", "replace"))
        for name, value in event.attributes.items()
        if name.startswith(_HEADER_EXTENSION) and name != _HEADER_EXTENSION
    ]
    at = event.at or Coordinates(event.source, 0, 0, _time_ms(event.attributes))
    return Record(None if key is None else key.encode("utf-8", "replace"), event.data, tuple(headers), at)


def reading_headers(event: Event) -> Headers:
    """Return the headers by which `read_text` reads a record's value as this event's data."""
    if event.structured:
        return (("content-type", STRUCTURED.encode()),)
    named: Headers = (("ce_specversion", _VERSION.encode()), ("content-type", event.content_type.encode()))
    # A record of a KafkaSource has the id of its key; the event's own id would be another one after a replay.
    return named if event.at else (*named, ("ce_id", event.id.encode("utf-8", "replace")))


def reply(event: Event, kind: str, source: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Write an event that answers another one, in its mode: body and headers.

    The reply's id is made of the other's source and id, so that an answer given twice can be told. Extensions, the key
    among them, go along.

    Args:
        event: what is answered.
        kind: the reply's type.
        source: the reply's source.
        data: its data, JSON.
    """
    extensions = {name: value for name, value in event.attributes.items() if name not in _OF_ITS_OWN}
    attributes = {
        "specversion": _VERSION,
        "id": f"{event.source}/{event.id}",
        "source": source,
        "type": kind,
        **extensions,
    }
    if event.structured:
        envelope = {**attributes, "datacontenttype": "application/json", "data": orjson.Fragment(data)}
        return orjson.dumps(envelope), {"Content-Type": STRUCTURED}
    headers = {f"ce-{name}": quote(value, safe=_SAFE) for name, value in attributes.items()}
    return data, {**headers, "Content-Type": "application/json"}


def _structured(content: bytes) -> Event:
    value = parsed_json("the event", content)
    if not isinstance(value, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the event: expected a JSON object")
    fields = cast("dict[str, Any]", value)
    attributes: dict[str, str] = {}
    for name, given in fields.items():
        if name in ("data", "data_base64", "datacontenttype") or given is None:
            continue
        if isinstance(given, bool):
            attributes[name] = "true" if given else "false"
        elif isinstance(given := whole(given), (str, int)):
            attributes[name] = str(given).encode("utf-8", "replace").decode()
        else:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, f"the event: attribute {name[:40]} is no string, integer or boolean"
            )
    _check(attributes)
    if not all(name.isascii() and name.isalnum() for name in attributes):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the event: attributes' names are letters and digits, a-z and 0-9")
    kind = fields.get("datacontenttype")
    content_type = kind if isinstance(kind, str) else ""
    return Event(attributes, content_type, content, fields=fields, at=_coordinates(attributes))


def _check(attributes: Mapping[str, str]) -> None:
    missing = [name for name in _REQUIRED if not attributes.get(name)]
    if missing:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the event has no {', '.join(missing)}; CloudEvents need them")
    if attributes["specversion"] != _VERSION:
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            f"the event: specversion is {attributes['specversion'][:20]!r}; CloudEvents {_VERSION} are taken",
        )


def _header_text(value: bytes) -> str:
    """Return a header's text: percent-encoded UTF-8 by the standard, UTF-8 as it is by some senders."""
    return unquote_to_bytes(value).decode("utf-8", "replace")


def _coordinates(attributes: Mapping[str, str]) -> Coordinates | None:
    """Return where the record of a KafkaSource's event lies; None where the event says no such thing."""
    found = _KAFKA_ID.fullmatch(attributes.get("id", ""))
    topic = attributes.get("source", "").rpartition("#")
    if found is None or not topic[1] or not topic[2]:
        return None
    return Coordinates(topic[2], int(found[1]), int(found[2]), _time_ms(attributes))


def _time_ms(attributes: Mapping[str, str]) -> int:
    try:
        time = datetime.fromisoformat(attributes.get("time", ""))
    except ValueError:
        return _NO_TIME_MS
    return _NO_TIME_MS if time.tzinfo is None else (time - _EPOCH) // timedelta(milliseconds=1)


def _headers(record: Record, event: Event) -> Headers:
    known = own_headers_removed(record.headers) if event.at is None else source_headers(record)
    return (*known, (EVENT_SOURCE, _encoded(event.source)), (EVENT_ID, _encoded(event.id)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _source(model: ServedModel) -> str:
    return f"/v1/models/{model.name}"
