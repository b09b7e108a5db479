"""What records of the embeddings topic say, and where rows go."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.storage.dataset.manifest import check_shard_name
from driftline.serving.archive.events import FUTURE_MS, Row, Tombstone, read_event
from driftline.serving.archive.layout import FileName, hour_end_ms, is_datable, model_folder, model_of, place_of
from driftline.serving.archive.settings import ArchiveSettings, FileLimits, TidyRules
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


@given(st.integers(0, 253_402_300_799_999))
def test_every_time_that_has_a_date_has_a_place(time_ms: int):
    assert is_datable(time_ms)
    place = place_of(time_ms, "m-0")
    assert model_of(place) == "m-0"
    assert hour_end_ms(place) - 3_600_000 <= time_ms < hour_end_ms(place)


@given(
    st.text("abcXYZ019._-", min_size=1, max_size=150),
    st.integers(0, 10**6),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
)
def test_a_files_name_says_what_is_in_it(topic: str, partition: int, first: int, last: int, commit: int):
    name = FileName(topic, partition, first, last, commit)
    assert FileName.parse(str(name)) == name
    assert len(str(name)) <= 255
    check_shard_name(str(name))
    assert FileName.parse(f"{name}.gz") is None


@given(st.text(max_size=200), st.text(max_size=20))
def test_a_models_folder_is_a_plain_name(model: str, revision: str):
    folder = model_folder(model, revision)
    check_shard_name(folder)
    assert folder != model_folder(model, revision + "x")
    assert folder.isascii()


def test_a_models_folder_can_be_read():
    assert model_folder("/models/all-MiniLM-L6-v2/", "sha256:1").startswith("all-MiniLM-L6-v2-")
    assert model_folder("…", "sha256:1").startswith("model-")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ArchiveSettings("", "out"), "has 0 characters"),
        (lambda: ArchiveSettings("x" * 151, "out"), "has 151 characters"),
        (lambda: FileLimits(rows=0), "at least 1 of each"),
        (lambda: FileLimits(max_delay_s=-1), "max-delay -1 s"),
        (lambda: TidyRules(files=1), "at least 2 files"),
        (lambda: TidyRules(grace_s=-1), "grace -1 s"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, said: str):
    with pytest.raises(UsageError, match=said):
        make()
