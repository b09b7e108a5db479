"""The drift history: one record a file."""

from __future__ import annotations

import json

import pytest

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.json_history import append_history, read_history


def record(created: str, p_value: float) -> dict[str, object]:
    return {"created": created, "p_value": p_value}


def test_records_come_back_by_time(place: str) -> None:
    later = record("2025-03-02T00:00:00Z", 0.5)
    earlier = record("2025-03-01T23:59:59.5+00:00", 0.25)
    same = record("2025-03-02T00:00:00Z", 0.75)
    append_history(place, later, key="b")
    append_history(place, earlier, key="z")
    append_history(place, same, key="a")
    assert read_history(place) == [earlier, same, later]
    names = [info.uri.rpartition("/")[2] for info in store.list_files(place)]
    assert names == [
        "20250301T235959.500000Z-z.json",
        "20250302T000000.000000Z-a.json",
        "20250302T000000.000000Z-b.json",
    ]


def test_to_append_again_replaces(place: str) -> None:
    first = append_history(place, record("2025-03-02T00:00:00Z", 0.5), key="run-1")
    again = append_history(place, record("2025-03-02T00:00:00+00:00", 0.6), key="run-1")
    assert first == again
    assert [entry["p_value"] for entry in read_history(place)] == [0.6]


def test_a_missing_folder_is_an_empty_history(place: str) -> None:
    assert read_history(place) == []


def test_other_files_are_left_alone(place: str) -> None:
    append_history(place, record("2025-03-02T00:00:00Z", 0.5), key="a")
    for name in ("notes.txt", ".hidden.json", "folder/x.json"):
        store.write_bytes(store.join(place, name), b"not a record")
    assert len(read_history(place + "/")) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"created": "2025-03-0',
        b"[]",
        b"{}",
        b'{"created": 5}',
        b'{"created": "yesterday"}',
        b'{"created": "2025-03-02T00:00:00"}',
        b'{"created": "2025-03-02T00:00:00+01:00"}',
        b"\xff",
    ],
)
def test_a_damaged_record_is_named(place: str, content: bytes) -> None:
    append_history(place, record("2025-03-02T00:00:00Z", 0.5), key="a")
    store.write_bytes(store.join(place, "damaged.json"), content)
    with pytest.raises(DataError) as error:
        read_history(place)
    assert "damaged.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [{}, {"created": "now"}, {"created": None}, {"created": "2025-03-02T00:00:00"}])
def test_a_record_without_a_time_is_refused(place: str, given: dict[str, object]) -> None:
    with pytest.raises(DataError, match="'created' is"):
        append_history(place, given, key="a")
    assert read_history(place) == []


def test_a_record_that_is_not_json_is_refused(place: str) -> None:
    with pytest.raises(DataError, match="is not JSON"):
        append_history(place, record("2025-03-02T00:00:00Z", float("nan")), key="a")
    assert read_history(place) == []


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".x", "x" * 129, "a b", "ü"])
def test_a_key_that_cannot_be_a_file_name(place: str, key: str) -> None:
    with pytest.raises(UsageError, match="history key"):
        append_history(place, record("2025-03-02T00:00:00Z", 0.5), key=key)


def test_records_are_plain_json_files(place: str) -> None:
    uri = append_history(place, record("2025-03-02T00:00:00Z", 0.5), key="a")
    assert json.loads(store.read_bytes(uri)) == record("2025-03-02T00:00:00Z", 0.5)
