"""Records to texts: JSON, plain text and CloudEvents payloads, and one stated reason for each that is none.

A record's key is the text's id; JSON without a key may hold ``id``. A record without a value is a tombstone: the text
of that id is deleted. A record that names itself a CloudEvent (Kafka protocol binding 1.0.2: a ``ce_specversion``
header, or the content type ``application/cloudevents+json``) is read as one where the format is ``json`` too.

Texts follow the backfill's rules: nothing is stripped or lower-cased, half surrogate pairs become U+FFFD. Null, empty
and blank texts have no vector; as nothing may vanish from a stream, they are dead letters.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final, Literal, cast

import orjson

from driftline.components.errors import one_line
from driftline.serving.errors import PoisonError
from driftline.serving.records.record import Record, TextEvent, header

PayloadFormat = Literal["json", "text", "cloudevents"]

_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_SHOWN: Final = 60
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
_UNPARSED: Final = object()


def read_text(record: Record, payload: PayloadFormat = "json", *, parsed: object = _UNPARSED) -> TextEvent:
    """Return the text, or the deletion of one, that is in a record.

    Args:
        record: as it came off the topic.
        payload: how values are written: ``json``, an object with ``text``; ``text``, the text itself in UTF-8;
            ``cloudevents``, a CloudEvent, binary or structured, whose data is either.
        parsed: the value as JSON, where the caller has parsed it already; only for a record that :func:`holds_json`.

    Raises:
        PoisonError: the record is none of these. Its reason is ``key-encoding``, ``no-id``, ``id-type``,
            ``tombstone-without-key``, ``encoding``, ``not-json``, ``not-an-object``, ``no-text``, ``text-type``,
            ``null-text``, ``empty-text``, ``blank-text``, ``not-a-cloudevent``, ``cloudevent-batch`` or
            ``cloudevent-data``.
    """
    key = _key(record)
    if record.value is None:
        if key is None:
            raise PoisonError(
                "tombstone-without-key",
                f"record {record.at}: neither key nor value; a tombstone needs the text's id as its key",
            )
        return TextEvent(key, None)
    if payload == "text":
        return _event(record, key, None, _decoded(record, record.value))
    mode = _cloudevents_mode(record)
    if not mode and payload == "cloudevents":
        raise PoisonError(
            "not-a-cloudevent",
            f"record {record.at}: has neither a ce_specversion header nor the content type {_STRUCTURED}; "
            "send CloudEvents, or choose another payload format",
        )
    event_id = header(record.headers, "ce_id") if mode == "binary" else None
    fallback = None if event_id is None else event_id.decode("utf-8", "replace")
    if mode == "binary" and _is_plain(record):
        return _event(record, key, fallback, _decoded(record, record.value))
    value = parsed_json(f"record {record.at}", record.value) if parsed is _UNPARSED else parsed
    return _structured(record, key, value) if mode == "structured" else _object(record, key, fallback, value)


def holds_json(record: Record) -> bool:
    """Return whether the value is JSON as `read_text` reads it with the format ``json``.

    Raises:
        PoisonError: ``cloudevent-batch``.
    """
    return record.value is not None and not (_cloudevents_mode(record) == "binary" and _is_plain(record))


def checked_text(where: str, text: object) -> str:
    """Return a text fit for the encoder, half surrogate pairs replaced by U+FFFD.

    Args:
        where: what the text is of, for the message.
        text: what stands where a text should.

    Raises:
        PoisonError: ``null-text``, ``text-type``, ``empty-text`` or ``blank-text``.
    """
    if text is None:
        raise PoisonError("null-text", f"{where}: the text is null; give a text, or a tombstone to delete one")
    if not isinstance(text, str):
        raise PoisonError("text-type", f"{where}: the text is {_shown(text)}; expected a string")
    if not text:
        raise PoisonError("empty-text", f"{where}: the text is empty; give a text, or a tombstone to delete one")
    if text.isspace():
        raise PoisonError("blank-text", f"{where}: the text is only white space; leave it out")
    if not text.isascii() and _HALF_PAIR.search(text):  # isascii costs nothing, the search as much as the rest
        # The utf-16 codec joins halves that belong together and replaces the others.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def parsed_json(where: str, content: bytes) -> Any:
    """Return JSON's value; lone surrogates in it are let through, NaN and infinities are not.

    Raises:
        PoisonError: ``encoding`` or ``not-json``.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass  # orjson refuses "\\ud800", which Python's reader lets through and checked_text mends
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PoisonError("encoding", f"{where}: is not UTF-8 ({error.reason} at byte {error.start})") from error
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
        raise PoisonError("not-json", f"{where}: is not JSON ({reason}); got {_shown(text)}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _key(record: Record) -> str | None:
    if not record.key:
        return None
    try:
        return record.key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PoisonError(
            "key-encoding", f"record {record.at}: the key is not UTF-8; a text's id is its key, as a string"
        ) from error


def _decoded(record: Record, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PoisonError(
            "encoding", f"record {record.at}: the value is not UTF-8 ({error.reason} at byte {error.start})"
        ) from error


def _event(record: Record, key: str | None, other_id: object, text: object) -> TextEvent:
    if key is None and other_id is not None and not isinstance(other_id, str):
        raise PoisonError("id-type", f"record {record.at}: the id is {_shown(other_id)}; expected a string")
    chosen = key or other_id
    if not chosen:
        raise PoisonError("no-id", f"record {record.at}: has neither a key nor an id; give the text's id as the key")
    return TextEvent(
        _HALF_PAIR.sub("\ufffd", cast("str", chosen)), checked_text(f"record {record.at}, id {_shown(chosen)}", text)
    )


def _object(record: Record, key: str | None, fallback: object, value: object) -> TextEvent:
    if not isinstance(value, dict):
        raise PoisonError(
            "not-an-object", f"record {record.at}: is {_shown(value)}; expected a JSON object with 'text'"
        )
    found = cast("dict[str, object]", value)
    if "text" not in found:
        names = ", ".join(sorted(found))[:_SHOWN]
        raise PoisonError(
            "no-text", f"record {record.at}: the JSON object has no 'text' (it has: {names or 'nothing'})"
        )
    return _event(record, key, found.get("id", fallback), found["text"])


def _cloudevents_mode(record: Record) -> Literal["", "structured", "binary"]:
    kind = _media_type(header(record.headers, "content-type"))
    if kind == _BATCH:
        raise PoisonError("cloudevent-batch", f"record {record.at}: holds a batch of CloudEvents; send one a record")
    if kind == _STRUCTURED:
        return "structured"
    return "" if header(record.headers, "ce_specversion") is None else "binary"


def _is_plain(record: Record) -> bool:
    return _media_type(header(record.headers, "content-type")).startswith("text/")


def _structured(record: Record, key: str | None, event: object) -> TextEvent:
    if not isinstance(event, dict) or "specversion" not in event:
        raise PoisonError("not-a-cloudevent", f"record {record.at}: is {_shown(event)}; expected a CloudEvent in JSON")
    fields = cast("dict[str, Any]", event)
    event_id = fields.get("id")
    if fields.get("data_base64") is not None:
        try:
            data = base64.b64decode(fields["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise PoisonError("cloudevent-data", f"record {record.at}: data_base64 is not base64") from error
        if _media_type(str(fields.get("datacontenttype", "")).encode()).startswith("text/"):
            return _event(record, key, event_id, _decoded(record, data))
        return _object(record, key, event_id, parsed_json(f"record {record.at}", data))
    data = fields.get("data")
    if data is None:
        if key is None:
            raise PoisonError("cloudevent-data", f"record {record.at}: the CloudEvent has neither data nor a key")
        return TextEvent(key, None)
    if isinstance(data, str):
        return _event(record, key, event_id, data)
    return _object(record, key, event_id, data)


def _media_type(value: bytes | None) -> str:
    return "" if value is None else value.decode("latin-1").split(";", 1)[0].strip().lower()


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
