"""CloudEvents over HTTP, binary and structured (HTTP protocol binding 1.0.2), and the Kafka record in one.

What a KafkaSource sends is a record in binary mode: `source` ends in `#TOPIC`, `id` is `partition:P/offset:O`, `time`
the record's time, the extension `key` its key, `kafkaheader…` its headers, and no body stands for a tombstone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import quote, unquote_to_bytes

import orjson

from driftline.serving.records.payloads import parsed_json
from driftline.serving.records.record import Coordinates, Headers, Record
from driftline.serving.server.failures import RequestError
from driftline.serving.server.service import whole

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


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent.

    Attributes:
        attributes: by name, extensions included, `datacontenttype` not.
        content_type: of its data; empty where it is not stated.
        data: what lies in it, as bytes; in structured mode the whole event. None where it has no data.
        structured: whether it came, and is answered, in structured mode.
        at: where its record lies, for one of a KafkaSource that was no CloudEvent before.
    """

    attributes: Mapping[str, str]
    content_type: str
    data: bytes | None
    structured: bool
    at: Coordinates | None

    @property
    def id(self) -> str:
        """Its id; together with its source it is unique."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Its source."""
        return self.attributes["source"]


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
    return Event(attributes, content_type, content or None, structured=False, at=_coordinates(attributes))


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
    return Event(attributes, content_type, content, structured=True, at=_coordinates(attributes))


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
