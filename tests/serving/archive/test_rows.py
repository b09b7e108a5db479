"""Records of the embeddings topic, read as rows, tombstones or poison."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from driftline.serving.archive.rows import FUTURE_MS, Row, Tombstone, read_event
from driftline.serving.errors import PoisonError
from driftline.serving.records.provenance import source_headers
from driftline.serving.records.record import Coordinates, Record
from tests.serving.archive.archived import NOW_MS, embedding

AT = Coordinates("embeddings", 3, 17, NOW_MS - 5)


def read(key: bytes | None, value: bytes | None, at: Coordinates = AT, **more: object) -> Row | Tombstone:
    return read_event(dataclasses.replace(Record(key, value, (), at), **more), NOW_MS)


def test_a_row_a_tombstone_and_a_row_without_a_key():
    row = read(b"a", embedding("a", 1))
    assert isinstance(row, Row)
    assert (row.offset, row.time_ms, row.embedded.id, row.doubtful_time) == (17, NOW_MS - 5, "a", False)
    assert read(b"a", None) == Tombstone(17, "a")
    assert isinstance(read(None, embedding("a", 1)), Row)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"\xff", embedding("a", 1), "key-encoding"),
        (b"\xff", None, "key-encoding"),
        (None, None, "tombstone-without-key"),
        (b"", None, "tombstone-without-key"),
        (b"b", embedding("a", 1), "key-mismatch"),
        (b"a", b"{", "not-json"),
        (b"a", b"[]", "not-an-embedding"),
        (b"a", b'{"id": "a", "model": "m", "revision": "r", "embedding": [1, NaN]}', "not-json"),
        (b"a", b'{"id": "a", "model": "m", "revision": "r", "embedding": [1e300]}', "vector"),
    ],
)
def test_poison_has_a_reason(key: bytes | None, value: bytes | None, reason: str):
    with pytest.raises(PoisonError) as error:
        read(key, value)
    assert error.value.reason == reason
    assert "\n" not in str(error.value)


def test_the_time_is_that_of_the_text():
    text = Record(b"a", b"", (), Coordinates("texts", 0, 5, NOW_MS - 7_200_000))
    row = read(b"a", embedding("a", 1), headers=source_headers(text))
    assert isinstance(row, Row)
    assert row.time_ms == NOW_MS - 7_200_000


@pytest.mark.parametrize(
    ("source_ms", "own_ms", "time_ms", "doubtful"),
    [
        (None, NOW_MS + FUTURE_MS, NOW_MS + FUTURE_MS, False),
        (None, NOW_MS + FUTURE_MS + 1, NOW_MS, True),
        (None, -1, NOW_MS, True),
        (None, 0, 0, False),
        (None, 10**18, NOW_MS, True),
        (-1, NOW_MS - 9, NOW_MS - 9, False),
        (10**18, NOW_MS - 9, NOW_MS - 9, False),
        (10**18, -1, NOW_MS, True),
    ],
)
def test_times_that_cannot_be_give_way(source_ms: int | None, own_ms: int, time_ms: int, doubtful: bool):
    headers = ()
    if source_ms is not None:
        headers = source_headers(Record(b"a", b"", (), Coordinates("texts", 0, 5, source_ms)))
    row = read(b"a", embedding("a", 1), dataclasses.replace(AT, timestamp_ms=own_ms), headers=headers)
    assert isinstance(row, Row)
    assert (row.time_ms, row.doubtful_time) == (time_ms, doubtful)


@given(st.binary(max_size=60) | st.none(), st.binary(max_size=200) | st.none(), st.integers(-(2**63), 2**63 - 1))
def test_any_record_is_a_row_a_tombstone_or_poison(key: bytes | None, value: bytes | None, timestamp_ms: int):
    at = dataclasses.replace(AT, timestamp_ms=timestamp_ms)
    if value is None and key:
        assume(key.decode("utf-8", "ignore").encode() == key)
        assert read(key, value, at) == Tombstone(17, key.decode())
    else:
        with pytest.raises(PoisonError, match=r"^[^\n]+$"):
            read(key, value, at)
