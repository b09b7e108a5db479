"""Sizes that topics refuse."""

from __future__ import annotations

from driftline.serving.records.provenance import VALUE_OMITTED
from driftline.serving.records.record import Coordinates, Record, header
from driftline.serving.stream.sinks import KnownSizes
from driftline.serving.stream.work_items import Result, ResultWriter

WRITER = ResultWriter("out", "dead", "m", "r", "numbers", with_text=True)


def test_what_a_topic_refused_is_not_sent_again() -> None:
    sizes = KnownSizes(WRITER.too_large)
    record = Record(b"k", b"v" * 1000, (), Coordinates("texts", 0, 1, 0))
    large = Result("out", b"k", b"x" * 5000, (), record)
    letter = sizes.refuse(large)
    assert (letter.topic, letter.reason, letter.value) == ("dead", "too-large", record.value)
    assert sizes.fit(Result("out", b"k", b"x" * 6000, (), record)).reason == "too-large"
    small = Result("out", b"k", b"x" * 10, (), record)
    assert sizes.fit(small) is small
    empty = sizes.refuse(letter)
    assert (empty.topic, empty.value, empty.reason) == ("dead", b"", "too-large")
    assert header(empty.headers, VALUE_OMITTED) == b"1000"
    assert sizes.fit(large) == empty
