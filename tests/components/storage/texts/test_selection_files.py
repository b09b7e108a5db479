"""Selections over files: spans of time in every kind of column, what is refused, and row groups that are not read."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.iso_times import parse_time
from driftline.components.storage.texts.filter import MILLISECONDS_FROM, within
from driftline.components.storage.texts.parquet import ParquetTexts
from driftline.components.storage.texts.reading import read_texts, scan_texts
from driftline.components.storage.texts.rows import TextColumns
from driftline.components.storage.texts.rules import TextCounts
from driftline.components.storage.texts.selection import TextSelection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KINDS = ("parquet", "jsonl", "csv")


def write(path: Path, columns: dict[str, Any], **options: Any) -> None:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, table.column_names)
        writer.writeheader()
        writer.writerows(table.to_pylist())
        path.write_text(buffer.getvalue())


def rows_of(time: Any, **others: Any) -> dict[str, Any]:
    return {"id": [str(i) for i in range(len(time))], "text": ["t"] * len(time), "time": time, **others}


def taken(path: Path, selection: TextSelection, columns: TextColumns | None = None) -> list[str]:
    """The ids that both the scan and the read take."""
    (source,) = scan_texts([str(path)], columns, selection=selection)
    ids = [
        value
        for batch in read_texts(source, columns, selection=selection, batch_rows=3)
        for value in batch.column("id").to_pylist()
    ]
    assert source.texts == len(ids)
    assert source.counts == TextCounts(outside=source.rows - len(ids))
    return ids


def written_times(moments: list[datetime], how: str) -> pa.Array:
    micros = [(moment - EPOCH) // timedelta(microseconds=1) for moment in moments]
    if how in ("ms", "us", "ns"):
        return pa.array(micros, pa.timestamp("us", "Europe/Paris")).cast(pa.timestamp(how, "Europe/Paris"), safe=False)
    if how == "naive":
        return pa.array(micros, pa.timestamp("us"))
    if how == "date":
        return pa.array([moment.date() for moment in moments], pa.date32())
    if how == "iso":
        return pa.array([moment.isoformat() for moment in moments])
    if how == "iso naive":
        return pa.array([moment.replace(tzinfo=None).isoformat(" ") for moment in moments])
    if how == "seconds":
        return pa.array([micro // 10**6 for micro in micros], pa.int64())
    if how == "milliseconds":
        return pa.array([micro // 10**3 for micro in micros], pa.int64())
    return pa.array([micro / 10**6 for micro in micros], pa.float64())


def floored(moment: datetime, how: str) -> datetime:
    """The moment as the column keeps it."""
    if how == "date":
        return moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if how == "seconds":
        return moment.replace(microsecond=0)
    if how in ("ms", "milliseconds"):
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return moment


HOWS = ("ms", "us", "ns", "naive", "date", "iso", "iso naive", "seconds", "milliseconds", "float seconds")
# After what milliseconds could be taken for seconds.
moments = st.datetimes(datetime(1973, 6, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(moments, min_size=1, max_size=20),
    bounds=st.lists(moments, min_size=2, max_size=2, unique=True),
    how=st.sampled_from(HOWS),
    kind=st.sampled_from(KINDS),
    which=st.sampled_from(["both", "since", "until"]),
    on_one=st.booleans(),
)
def test_spans_take_what_plain_python_takes(
    tmp_path: Path,
    times: list[datetime],
    bounds: list[datetime],
    how: str,
    kind: str,
    which: str,
    on_one: bool,
) -> None:
    since, until = sorted([floored(times[0], how), bounds[1]] if on_one else bounds)
    if since == until:
        until += timedelta(days=1)
    column = written_times(times, how)
    if kind != "parquet" and how in ("ms", "us", "ns", "naive", "date"):
        # Text has no timestamps: they are written as ISO strings.
        column = pa.array([value.isoformat() for value in column.cast(pa.timestamp("us", "UTC")).to_pylist()])
    path = tmp_path / f"x.{kind}"
    write(path, rows_of(column), **({"row_group_size": 4} if kind == "parquet" else {}))
    selection = TextSelection(
        since="" if which == "until" else since.isoformat(),
        until="" if which == "since" else until.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    )
    expected = [
        str(i)
        for i, moment in enumerate(times)
        if (which == "until" or floored(moment, how) >= since) and (which == "since" or floored(moment, how) < until)
    ]
    assert taken(path, selection) == expected


@given(
    st.lists(st.integers(-(10**14) + 1, 10**14 - 1) | st.integers(-3, 3), min_size=1), st.integers(-(10**16), 10**16)
)
def test_numbers_are_seconds_or_milliseconds_by_their_size(numbers: list[int], since_us: int) -> None:
    exact = [Fraction(n * (10**6 if abs(n) < MILLISECONDS_FROM else 10**3)) for n in numbers]
    for values in (pa.array(numbers, pa.int64()), pa.array([f"{n:+}" for n in numbers])):
        inside, read = within(values, since_us, None)
        # Eight digits are a date.
        asked = [i for i in range(len(numbers)) if values.type == pa.int64() or len(values[i].as_py()) != 8]
        assert all(read[asked])
        assert [bool(inside[i]) for i in asked] == [exact[i] >= since_us for i in asked]
        before, _ = within(values, None, since_us)
        assert [bool(before[i]) for i in asked] == [exact[i] < since_us for i in asked]


iso_texts = st.from_regex(
    r"(19|20)\d\d-[01]\d-[0-3]\d([T ][0-2]\d:[0-5]\d(:[0-6]\d(\.\d{1,9})?)?(Z|[+-][01]\d(:?[0-5]\d)?)?)?",
    fullmatch=True,
)


@given(st.lists(iso_texts | st.sampled_from(["2025-01-01", "x", "", "2025-01-01T10:00:00,5"]), min_size=1, max_size=8))
def test_strings_by_the_column_are_as_strings_one_by_one(texts: list[str]) -> None:
    since = parse_time("2005-06-01T12:00Z")
    assert since is not None
    for values in (pa.array(texts), pa.array(texts, pa.large_string()), pa.array(["-", *texts])[1:]):
        inside, read = within(values, since, None)
        times = [parse_time(text) for text in texts]
        assert read.tolist() == [time is not None for time in times]
        assert inside.tolist() == [time is not None and time >= since for time in times]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", ["", "soon", "2025-02-30", "99999999999999999"])
def test_a_time_that_cannot_be_read_is_refused_where_a_span_is_asked_for(tmp_path: Path, kind: str, bad: str) -> None:
    path = tmp_path / f"x.{kind}"
    write(path, rows_of(["2025-01-01", "2024-01-01", bad], c=["a", "a", "b"]))
    assert taken(path, TextSelection()) == ["0", "1", "2"]
    with pytest.raises(DataError) as error:
        scan_texts([str(path)], selection=TextSelection(since="2025-01-01"))
    assert str(error.value).startswith(f"{path}: column 'time', row 3: {bad!r} is not a time")
    # A row that the conditions leave out needs none.
    assert taken(path, TextSelection(since="2025-01-01", where=("c = a",))) == ["0"]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([0, None], pa.timestamp("us")),
        pa.array(["2025-01-01", None]),
        pa.array([1.0, None]),
        pa.array([1.0, float("nan")]),
        pa.array([1.0, float("inf")]),
        pa.array([1, 10**14]),
        pa.array([1, -(2**63)]),
        pa.array([b"2025", b"2026"]),
        pa.nulls(2),
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_a_null_time_is_never_passed_over(tmp_path: Path, times: pa.Array, group: int) -> None:
    path = tmp_path / "x.parquet"
    write(path, rows_of(times), row_group_size=group)
    with pytest.raises(DataError, match=r"column 'time', row [12]: .* is not a time"):
        scan_texts([str(path)], selection=TextSelection(since="2025-01-01"))


@pytest.mark.parametrize("kind", KINDS)
def test_strings_are_compared_as_numbers_with_a_number(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    cells = ["10", " 7.5 ", "", "-3", "+8e0", "7"]
    write(path, rows_of(cells))
    assert taken(path, TextSelection(where=("time >= 7",))) == ["0", "1", "4", "5"]
    assert taken(path, TextSelection(where=("time < 7.5", "time > -1e2"))) == ["3", "5"]
    assert taken(path, TextSelection(where=("time >= '7'",))) == ["5"]
    assert taken(path, TextSelection(where=("time = 7",))) == ["5"]
    assert taken(path, TextSelection(where=("time in (7, 10)",))) == ["0", "5"]
    write(path, rows_of([*cells, "seven"]))
    with pytest.raises(DataError) as error:
        scan_texts([str(path)], selection=TextSelection(where=("time >= 7",)))
    assert f"{path}: column 'time', row 7: 'seven' is not a number" in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_id_and_text_may_be_selected_by(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    write(path, {"key": [f"k{i}" for i in range(5)], "body": list("abcde"), "n": ["1"] * 5})
    columns = TextColumns(id="key", text="body")
    selection = TextSelection(where=("key > k0", "body in (a, b, e)"))
    assert taken(path, selection, columns) == ["k1", "k4"]


def test_integer_ids_are_compared_as_numbers(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"id": [5, 50, 6], "text": ["a", "b", "c"]})
    assert taken(tmp_path / "x.parquet", TextSelection(where=("id < 10",))) == ["5", "6"]


@pytest.mark.parametrize(
    ("column", "where", "parts"),
    [
        (pa.array([1]), "time = plot", ["int64", "expected a number"]),
        (pa.array([1]), "time < 1e999", ["below 1e308"]),
        (pa.array([1.5]), "time >= x", ["double", "expected a number"]),
        (pa.array([True]), "time > false", ["bool", "true or false"]),
        (pa.array([True]), "time = 1", ["bool", "true or false"]),
        (pa.array([0], pa.timestamp("us")), "time > 5", ["timestamp[us]", "ISO 8601"]),
        (pa.array([[1]]), "time = 1", ["list", "strings, numbers, booleans or times"]),
        (pa.array([b"a"]), "time = a", ["binary"]),
        (pa.array([1]), "tim = 1", ["'tim', which no file has", "'id', 'text', 'time'"]),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, column: pa.Array, where: str, parts: list[str]) -> None:
    write(tmp_path / "x.parquet", rows_of(column))
    with pytest.raises(UsageError) as error:
        scan_texts([str(tmp_path)], selection=TextSelection(where=(where,)))
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in [*parts, "expected" if "tim =" not in where else "name one of"])


@pytest.mark.parametrize("cell", ["5", "true", "[1]", '{"a": 1}'])
def test_a_cell_of_jsonl_that_cannot_be_compared(tmp_path: Path, cell: str) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"id": "1", "text": "a", "c": "plot"}\n{"id": "2", "text": "a", "c": ' + cell + "}\n"
    )
    with pytest.raises(UsageError, match="column 'c' holds"):
        scan_texts([str(tmp_path)], selection=TextSelection(where=("c = plot",)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["when = null", "when > 3"])  # all rows are taken, and none
def test_a_column_that_no_file_has(tmp_path: Path, kind: str, where: str) -> None:
    write(tmp_path / f"x.{kind}", rows_of(["2025-01-01"]))
    with pytest.raises(UsageError, match=r"column 'when', which no file has; name one of 'id', 'text', 'time'"):
        scan_texts([str(tmp_path)], selection=TextSelection(where=(where,)))


def test_a_column_that_one_of_the_files_lacks_is_null_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,c\n1,a,x\n2,a,y\n")
    (tmp_path / "b.jsonl").write_text('{"id": "3", "text": "a"}\n')
    write(tmp_path / "c.parquet", {"id": ["4"], "text": ["a"]})
    for where, texts in (("c = x", [1, 0, 0]), ("c != x", [1, 0, 0]), ("c = null", [0, 1, 1])):
        sources = scan_texts([str(tmp_path)], selection=TextSelection(where=(where,)))
        assert [source.texts for source in sources] == texts


def test_rows_outside_are_not_looked_at(tmp_path: Path) -> None:
    lines = [
        {"id": "1", "text": "a", "c": 1},
        {"id": None, "text": None, "c": 2},
        {"id": "1", "text": " ", "c": 2},
        {"id": 1.5, "text": 7, "c": 2, "embedding": 1, "odd": {"a": 1}},
        {"c": 2},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert taken(path, TextSelection(where=("c = 1",))) == ["1"]
    (source,) = scan_texts([str(path)], selection=TextSelection(where=("c = 1",)), strict=True)
    assert source.carried == (("c", "int64"),)
    table = pa.table({"id": ["1", None, "1"], "text": ["a", None, " "], "c": [1, 2, 2]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert taken(tmp_path / "x.parquet", TextSelection(where=("c = 1",))) == ["1"]


def test_a_selection_may_take_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", rows_of(["2025-01-01"]))
    assert taken(tmp_path / "x.csv", TextSelection(since="2026-01-01")) == []


@pytest.mark.parametrize(
    ("selection", "groups"),
    [
        (TextSelection(), [0, 1, 2, 3]),
        (TextSelection(where=("n >= 20",)), [2, 3]),
        (TextSelection(where=("n > 19.5", "n < 30")), [2]),
        (TextSelection(where=("n in (5, 35)",)), [0, 3]),
        (TextSelection(where=("n = 10",)), [1]),
        (TextSelection(where=("n = 100",)), []),
        (TextSelection(where=("n != 5",)), [0, 1, 2, 3]),
        (TextSelection(where=("n = null",)), [0, 1, 2, 3]),
        (TextSelection(where=("f = 10",)), [0, 1, 2, 3]),
        (TextSelection(since="1970-01-01T00:00:30Z"), [3]),
        (TextSelection(until="1970-01-01T00:00:10Z"), [0]),
        (TextSelection(since="1970-01-01T00:00:10Z", where=("n < 20",)), [1]),
        (TextSelection(where=("day = 1970-01-03",)), [2]),
        (TextSelection(where=("id = 3", "text = t")), [0, 1, 2, 3]),
    ],
)
def test_row_groups_without_a_row_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: TextSelection, groups: list[int]
) -> None:
    seconds = pa.array(range(40), pa.int64())
    times = pa.array([i * 1000 for i in range(40)], pa.timestamp("ms", "UTC"))
    columns = rows_of(
        times,
        n=pa.array(range(40), pa.int16()),
        f=seconds.cast(pa.float64()),
        day=pa.array([i // 10 for i in range(40)], pa.int32()).cast(pa.date32()),
    )
    write(tmp_path / "x.parquet", columns, row_group_size=10)
    read: list[int] = []
    whole = ParquetTexts._group

    def noted(self: ParquetTexts, file: Any, group: int, *rest: Any) -> Any:
        read.append(group)
        return whole(self, file, group, *rest)

    monkeypatch.setattr(ParquetTexts, "_group", noted)
    (source,) = scan_texts([str(tmp_path)], selection=selection)
    assert read == groups
    assert source.rows == 40
    assert source.counts.outside == 40 - source.texts
    read.clear()
    texts = sum(batch.num_rows for batch in read_texts(source, selection=selection, start=5, rows=30))
    assert read == groups
    assert texts == sum(5 <= int(i) < 35 for i in taken(tmp_path / "x.parquet", selection))
