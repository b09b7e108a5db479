"""Payloads: every record is a text, a tombstone or poison of a stated reason; nothing crashes."""

from __future__ import annotations

import base64
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.serving.errors import PoisonError
from driftline.serving.records.payloads import (
    PayloadFormat,
    checked_text,
    holds_json,
    parsed_json,
    read_text,
)
from driftline.serving.records.record import Coordinates, Headers, Record, TextEvent

STRUCTURED = (("content-type", b"application/cloudevents+json"),)
AT = Coordinates("texts", 1, 7, 0)
REASONS = {
    "key-encoding", "no-id", "id-type", "tombstone-without-key", "encoding", "not-json", "not-an-object", "no-text",
    "text-type", "null-text", "empty-text", "blank-text", "not-a-cloudevent", "cloudevent-batch", "cloudevent-data",
}  # fmt: skip

# Of longer integers, which no field of ours is, orjson makes floats.
integers = st.integers(-(2**63), 2**64 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "text": json_values, "id": json_values, "specversion": st.just("1.0"), "data": json_values,
        "data_base64": json_values, "datacontenttype": st.sampled_from(["text/plain", "application/json", ""]),
    },
)  # fmt: skip
values = st.none() | st.binary(max_size=60) | (json_values | documents).map(lambda value: json.dumps(value).encode())
header_values = st.binary(max_size=20) | st.sampled_from(
    [b"application/cloudevents+json", b"application/cloudevents-batch+json", b"text/plain; charset=utf-8", b"1.0"]
)
headers = st.lists(
    st.tuples(st.sampled_from(["content-type", "Content-Type", "ce_specversion", "ce_id", "other"]), header_values),
    max_size=4,
).map(tuple)


def record(key: bytes | None, value: bytes | None, headers: Headers = ()) -> Record:
    return Record(key, value, headers, AT)


def said_by(record: Record, payload: PayloadFormat) -> TextEvent | PoisonError:
    try:
        return read_text(record, payload)
    except PoisonError as error:
        return error


def json_of(record: Record) -> object:
    """The value as a caller parses it; None where it is not JSON."""
    try:
        return parsed_json("here", record.value) if record.value is not None and holds_json(record) else None
    except PoisonError:
        return None


def reason_of(*arguments: object, payload: PayloadFormat = "json") -> str:
    with pytest.raises(PoisonError) as caught:
        read_text(record(*arguments), payload)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value.reason


@given(st.none() | st.binary(max_size=8), values, headers, st.sampled_from(get_args(PayloadFormat)))
def test_any_record_is_read_or_has_a_reason(
    key: bytes | None, value: bytes | None, headers: Headers, payload: PayloadFormat
) -> None:
    said = said_by(record(key, value, headers), payload)
    if isinstance(said, PoisonError):
        assert said.reason in REASONS
        assert len(str(said)) < 1000
        assert "\n" not in str(said)
    else:
        said.id.encode()  # fit for a key
        (said.text or "").encode()  # fit for the tokenizer and the topic
        assert said.id
        assert said.text is None or said.text.strip()


@given(st.text(min_size=1).filter(lambda text: not text.isspace()), st.text(min_size=1))
def test_a_text_comes_out_as_it_went_in_whatever_its_format(text: str, key: str) -> None:
    sent = {"text": text}
    expected = TextEvent(key, text)
    name = key.encode()
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    encoded = base64.b64encode(text.encode()).decode()
    assert read_text(record(name, json.dumps(sent).encode())) == expected
    assert read_text(record(name, text.encode()), "text") == expected
    structured = (("content-type", b"application/cloudevents+json; charset=utf-8"),)
    for fields in ({"data": sent}, {"data": text}, {"data_base64": encoded, "datacontenttype": "text/plain"}):
        value = json.dumps({**event, **fields}).encode()
        assert read_text(record(name, value, structured), "cloudevents") == expected
    binary = (("ce_specversion", b"1.0"), ("ce_id", b"7"))
    assert read_text(record(name, json.dumps(sent).encode(), binary), "cloudevents") == expected
    plain = (*binary, ("content-type", b"text/plain"))
    assert read_text(record(name, text.encode(), plain), "cloudevents") == expected


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"\xff", b"{}", "key-encoding"),
        (None, b'{"text": "a"}', "no-id"),
        (None, b'{"text": "a", "id": 7}', "id-type"),
        (None, None, "tombstone-without-key"),
        (b"k", b"\xff", "encoding"),
        (b"k", b"{", "not-json"),
        (b"k", b'{"text": NaN}', "not-json"),
        (b"k", b"[" * 100_000, "not-json"),
        (b"k", b"7", "not-an-object"),
        (b"k", b'{"Text": "a"}', "no-text"),
        (b"k", b'{"text": 7}', "text-type"),
        (b"k", b'{"text": null}', "null-text"),
        (b"k", b'{"text": ""}', "empty-text"),
        (b"k", b'{"text": " \\n"}', "blank-text"),
    ],
)
def test_each_poison_has_its_reason(key: bytes | None, value: bytes | None, reason: str) -> None:
    assert reason_of(key, value) == reason


@pytest.mark.parametrize(
    ("headers", "value", "reason"),
    [
        ((), b"{}", "not-a-cloudevent"),
        (STRUCTURED, b"{}", "not-a-cloudevent"),
        ((("content-type", b"application/cloudevents-batch+json"),), b"[]", "cloudevent-batch"),
        (STRUCTURED, b'{"specversion": "1.0", "data_base64": 1}', "cloudevent-data"),
    ],
)
def test_each_cloudevent_that_is_none_has_its_reason(headers: Headers, value: bytes, reason: str) -> None:
    assert reason_of(b"k", value, headers, payload="cloudevents") == reason


def test_a_json_stream_takes_cloudevents_too() -> None:
    event = json.dumps({"specversion": "1.0", "id": "e", "data": {"text": "a"}}).encode()
    found = read_text(record(None, event, (("Content-Type", b"application/cloudevents+json"),)))
    assert found == TextEvent("e", "a")


@pytest.mark.parametrize("payload", get_args(PayloadFormat))
def test_a_record_without_a_value_deletes(payload: PayloadFormat) -> None:
    assert read_text(record(b"k", None), payload) == TextEvent("k", None)


def test_half_surrogate_pairs_are_replaced_and_whole_ones_are_characters() -> None:
    assert read_text(record(b"k", b'{"text": "a\\ud800b"}')) == TextEvent("k", "a\ufffdb")
    assert read_text(record(b"k", b'{"text": "\\ud83d\\ude00"}')) == TextEvent("k", "\U0001f600")
    assert checked_text("here", "\ud83d\ude00") == "\U0001f600"


@given(json_values.filter(lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)))
def test_json_reads_as_pythons_own_reader_does(value: object) -> None:
    content = json.dumps(value).encode()
    assert parsed_json("here", content) == json.loads(content)


@given(st.none() | st.binary(max_size=8), values, headers)
def test_a_value_that_its_caller_has_parsed_reads_the_same(
    key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    one = record(key, value, headers)
    parsed = json_of(one)
    if parsed is None:
        return
    expected = said_by(one, "json")
    try:
        found: TextEvent | PoisonError = read_text(one, parsed=parsed)
    except PoisonError as error:
        found = error
    assert str(found) == str(expected)
    assert type(found) is type(expected)
