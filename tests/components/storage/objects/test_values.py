from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError, StorageError
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.objects.store import join, read_bytes, write_bytes
from driftline.components.storage.objects.values import read_value, write_value


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outer:
    mode: Literal["fast", "exact"]
    count: int
    ratio: float
    inner: Inner
    more: tuple[tuple[int, Inner], ...]
    note: str | None


def outer(*values: float, **changes: object) -> Outer:
    inner = Inner("gram", values)
    settings: dict[str, object] = {"mode": "exact", "count": 3, "ratio": 0.1, "inner": inner, "more": (), "note": None}
    return Outer(**(settings | changes))  # pyright: ignore[reportArgumentType]


def bits(values: tuple[float, ...]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("values") / "value.json")


@settings(deadline=None)  # a slow disk or a busy machine is no failure
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20).map(tuple))
def test_floats_survive_bit_for_bit(file: str, values: tuple[float, ...]):
    write_value(file, outer(*values, ratio=sum(values[:1])))
    found = read_value(file, Outer)
    assert bits(found.inner.values) == bits(values)
    assert bits((found.ratio,)) == bits((float(sum(values[:1])),))


@pytest.mark.parametrize(
    "value",
    [-0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, 2.0**53 + 2, 1e22, 1.0, float.fromhex("0x1.fffffffffffffp-1")],
)
def test_floats_at_the_edges_survive_bit_for_bit(file: str, value: float):
    write_value(file, outer(value))
    found = read_value(file, Outer).inner.values
    assert bits(found) == bits((value,))
    assert type(found[0]) is float


@settings(deadline=None)  # a slow disk or a busy machine is no failure
@given(
    st.builds(
        Outer,
        st.sampled_from(["fast", "exact"]),
        st.integers(-(2**63), 2**64),
        st.just(0.5),
        st.builds(Inner, st.text(), st.just((1.0,))),
        st.lists(st.tuples(st.integers(0, 9), st.builds(Inner, st.text(), st.just(())))).map(tuple),
        st.none() | st.text(),
    )
)
def test_whatever_is_written_is_read_again(file: str, value: Outer):
    write_value(file, value)
    assert read_value(file, Outer) == value


def test_values_may_lie_on_gs(gcs_bucket: str):
    place = join(gcs_bucket, "value.json")
    write_value(place, outer(0.1))
    assert read_value(place, Outer) == outer(0.1)


def test_the_same_value_gives_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write_value(str(tmp_path / name), outer(0.1, 2.0))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_beginning_of_a_file_is_refused(tmp_path: Path):
    place = str(tmp_path / "value.json")
    write_value(place, outer(0.5, note="текст"))
    whole = read_bytes(place)
    for length in range(len(whole)):
        write_bytes(place, whole[:length])
        with pytest.raises(DataError, match=rf"^{re.escape(place)}: expected Outer, but the whole: [^\n]+$"):
            read_value(place, Outer)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"mode": "slow"}, "mode"),
        ({"count": 3.5}, "count"),
        ({"inner": {"name": "a", "values": ["x"]}}, "inner.values.0"),
        ({"more": [[1, 2]]}, "more.0.1"),
        ({"note": 3}, "note"),
    ],
    ids=["literal", "integer", "number", "nested", "string"],
)
def test_a_wrong_value_is_refused_with_its_place(tmp_path: Path, changes: dict[str, object], place: str):
    file = str(tmp_path / "value.json")
    write_value(file, outer(0.5))
    write_bytes(file, json.dumps(json.loads(read_bytes(file)) | changes).encode())
    expected = rf"^{re.escape(file)}: expected Outer, but {re.escape(place)}: [^\n]+; run the step that wrote it "
    with pytest.raises(DataError, match=expected):
        read_value(file, Outer)


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe", b""], ids=["list", "null", "binary", "empty"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes):
    file = str(tmp_path / "value.json")
    write_bytes(file, content)
    with pytest.raises(DataError, match=rf"^{re.escape(file)}: expected Outer, but the whole: [^\n]+$"):
        read_value(file, Outer)


def test_another_kind_of_value_is_refused(tmp_path: Path):
    file = str(tmp_path / "value.json")
    write_value(file, Inner("gram", (1.0,)))
    with pytest.raises(DataError, match=rf"^{re.escape(file)}: expected Outer, but mode: Field required; "):
        read_value(file, Outer)


def test_a_value_that_its_own_class_refuses_is_refused(tmp_path: Path):
    file = str(tmp_path / "value.json")
    write_bytes(file, b'{"name": "../up.parquet", "rows": 1, "bytes": 1, "crc32c": "AAAAAA=="}')
    with pytest.raises(DataError, match=rf"^{re.escape(file)}: expected Shard, but the whole: [^\n]+plain file name"):
        read_value(file, Shard)


def test_a_missing_file_is_refused(tmp_path: Path):
    file = str(tmp_path / "missing.json")
    with pytest.raises(StorageError, match=rf"^{re.escape(file)}: [^\n]+$"):
        read_value(file, Outer)


@pytest.mark.parametrize(
    "value", [outer(float("nan")), outer(float("inf")), outer(1.0, ratio=float("-inf")), outer(1.0, note="\ud800")]
)
def test_what_json_cannot_hold_is_refused_on_writing(tmp_path: Path, value: Outer):
    place = tmp_path / "value.json"
    with pytest.raises(DataError, match=r"value\.json: the Outer to write is not JSON"):
        write_value(str(place), value)
    assert not place.exists()
