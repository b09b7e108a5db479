"""Selections: what is read as a condition and a time, and that every format takes the rows that plain Python takes."""

from __future__ import annotations

import csv
import io
import json
import operator
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.storage.iso_times import parse_time
from driftline.components.storage.objects.values import read_value, write_value
from driftline.components.storage.texts.reading import read_texts, scan_texts
from driftline.components.storage.texts.rows import TextColumns
from driftline.components.storage.texts.rules import TextCounts
from driftline.components.storage.texts.selection import Condition, TextSelection, Value, parse_condition

Row = dict[str, Any]
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write(path: Path, columns: dict[str, Any], kind: str = "parquet", group: int = 1000) -> None:
    table = pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=group)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, table.column_names)
        writer.writeheader()
        writer.writerows(table.to_pylist())
        path.write_text(buffer.getvalue())


def taken(path: Path, selection: TextSelection, columns: TextColumns | None = None) -> list[str]:
    """The ids that both the scan and the read take."""
    (source,) = scan_texts([str(path)], columns, selection=selection)
    batches = list(read_texts(source, columns, selection=selection, batch_rows=7))
    assert all(batch.num_rows for batch in batches)
    ids = [value for batch in batches for value in batch.column("id").to_pylist()]
    assert source.texts == len(ids)
    assert source.counts == TextCounts(outside=source.rows - len(ids))
    assert sum(piece.rows for piece in source.pieces) == source.rows
    return ids


def numbered(values: Any) -> dict[str, Any]:
    return {"id": [str(i) for i in range(len(values))], "text": ["t"] * len(values), "c": values}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("category = plot", ("category", "=", [("plot", False)])),
        ("category=plot twist ", ("category", "=", [("plot twist", False)])),
        ("category == plot", ("category", "=", [("plot", False)])),
        ('"odd = name" != "a ""b"""', ("odd = name", "!=", [('a "b"', True)])),
        ("`a ``b` >= -1.5e3", ("a `b", ">=", [("-1.5e3", False)])),
        ("größe < 7", ("größe", "<", [("7", False)])),
        ("x.y-z <= 'it''s'", ("x.y-z", "<=", [("it's", True)])),
        ("c in (a, b c, 'd, )', \"e\")", ("c", "in", [("a", False), ("b c", False), ("d, )", True), ("e", True)])),
        ("c in(a)", ("c", "in", [("a", False)])),
        ("c in ( a )", ("c", "in", [("a", False)])),
        ("inner = in", ("inner", "=", [("in", False)])),
        ("in in (in)", ("in", "in", [("in", False)])),
        ("c = null", ("c", "=", [("null", False)])),
        ("c > 'null'", ("c", ">", [("null", True)])),
        ("c = ''", ("c", "=", [("", True)])),
        ("c = a=b", ("c", "=", [("a=b", False)])),
    ],
)
def test_conditions_are_parsed(text: str, expected: tuple[str, Any, list[tuple[str, bool]]]) -> None:
    column, name, values = expected
    assert parse_condition(text) == Condition(text, column, name, tuple(Value(*value) for value in values))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "c =",
        "= a",
        "c like a",
        "two words = a",
        "c = 'a",
        "c = 'a' b",
        "c = 'a'b'",
        "c in",
        "c in a",
        "c in ()",
        "c in (a",
        "c in (a,)",
        "c in (a,, b)",
        "c in (a, 'b)",
        "c in (a, null)",
        "c < null",
        "c not in (a)",
        '"" = a',
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(UsageError, match="where") as error:
        TextSelection(where=(text,))
    assert "\n" not in str(error.value)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4), st.sampled_from("'\""))
def test_anything_can_be_quoted(values: list[str], quote: str) -> None:
    quoted = [quote + value.replace(quote, quote * 2) + quote for value in values]
    expected = tuple(Value(value, quoted=True) for value in values)
    assert parse_condition(f"c in ({', '.join(quoted)})").values == expected
    assert parse_condition(f"c = {quoted[0]}").values == expected[:1]


@pytest.mark.parametrize(
    "text",
    [
        "1970-01-01",
        "2025-02-28T23:59",
        "2025-02-28 23:59:59.5",
        "2025-02-28T23:59:59.123456+05:30",
        "2025-02-28T23:59:59-0130",
        "2025-02-28T10:00+14",
        "2025-02-28T23:59:59Z",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59:59.999999-12:00",
        "20250228",
    ],
)
def test_times_are_read_as_python_reads_them(text: str) -> None:
    expected = datetime.fromisoformat(text)
    offset = expected.utcoffset() or timedelta()
    naive = expected.replace(tzinfo=None) - EPOCH.replace(tzinfo=None)
    assert parse_time(text) == (naive - offset) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "2025-02-30",
        "2025-13-01",
        "2025",
        "yesterday",
        "2025-01-01T24:30",
        "01/02/2025",
        " 2025-01-01",
        "2025-01-01x",
        "١٩٧٠-01-01",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert parse_time(text) is None
    with pytest.raises(UsageError, match="expected an ISO 8601 date or date-time"):
        TextSelection(since=text)


def test_spans_that_are_none() -> None:
    with pytest.raises(UsageError, match="is not before until"):
        TextSelection(since="2025-01-02", until="2025-01-02T02:00+03:00")
    with pytest.raises(UsageError, match="name the column"):
        TextSelection(since="2025-01-02", time_column="")


def test_a_selection_travels_as_json(tmp_path: Path) -> None:
    selection = TextSelection("2025-01-01", "2026-01-01T00:00+01:00", "when", ("a = 'b'", "c in (1, 2)"))
    write_value(str(tmp_path / "x"), selection)
    assert read_value(str(tmp_path / "x"), TextSelection) == selection


# --- conditions against plain Python ---

integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5)
number_literals = (
    st.integers(-(2**70), 2**70).map(str)
    | st.integers(-5, 5).map(str)
    | st.decimals(-10, 10, places=2).map(str)
    | st.sampled_from(["1e3", "+2", ".5", "-2.50", "7."])
)
words = st.sampled_from(["", "a", "b", "ab", "B", "é", "🧪", "7", "null", "a b"])


@st.composite
def column_and_literals(draw: st.DrawFn) -> tuple[pa.Array, list[str], Callable[[str], Any]]:
    """Cells, values to compare them with, and how Python reads a value."""
    kind = draw(
        st.sampled_from(["int64", "int8", "uint64", "double", "float", "decimal", "string", "timestamp", "date"])
    )
    size = {"min_size": 1, "max_size": 25}
    if kind in ("int64", "int8", "uint64"):
        low, high = {"int64": (-(2**63), 2**63 - 1), "int8": (-128, 127), "uint64": (0, 2**64 - 1)}[kind]
        cells = draw(st.lists(st.none() | st.integers(low, high) | st.integers(0, 5), **size))
        return pa.array(cells, kind), draw(st.lists(number_literals, min_size=1, max_size=3)), Decimal
    if kind in ("double", "float"):
        width = 32 if kind == "float" else 64
        cells = draw(st.lists(st.none() | st.floats(width=width) | st.sampled_from([0.5, -2.5, 3.0]), **size))
        array = pa.array(cells, pa.float32() if kind == "float" else pa.float64())
        literals = draw(st.lists(number_literals, min_size=1, max_size=3))
        return array, literals, lambda text: pa.array([float(text)], array.type)[0].as_py()
    if kind == "decimal":
        cells = draw(st.lists(st.none() | st.decimals(-99, 99, places=2), **size))
        return pa.array(cells, pa.decimal128(6, 2)), draw(st.lists(number_literals, min_size=1, max_size=3)), Decimal
    if kind == "string":
        quoted = words.map(lambda word: f"'{word}'")
        return (
            pa.array(draw(st.lists(st.none() | words, **size)), pa.string()),
            draw(st.lists(quoted, min_size=1, max_size=3)),
            lambda text: text[1:-1],
        )
    moments = st.datetimes(datetime(1960, 1, 1), datetime(2040, 1, 1)) | st.sampled_from([datetime(2025, 1, 1)])
    literals = [moment.isoformat() for moment in draw(st.lists(moments, min_size=1, max_size=3))]
    if kind == "date":
        cells = draw(st.lists(st.none() | moments.map(datetime.date), **size))
        return pa.array(cells, pa.date32()), literals, datetime.fromisoformat
    unit = draw(st.sampled_from(["ms", "us", "ns"]))
    cells = [
        moment and moment.replace(microsecond=moment.microsecond // 1000 * 1000 if unit == "ms" else moment.microsecond)
        for moment in draw(st.lists(st.none() | moments, **size))
    ]
    zone = draw(st.sampled_from([None, "UTC", "Asia/Kolkata"]))
    array = pa.array(cells, pa.timestamp(unit, zone))
    return array, literals, datetime.fromisoformat


def plain(value: Any) -> Any:
    """A cell as Python compares it: times naive, in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    if hasattr(value, "to_pydatetime"):
        return plain(value.to_pydatetime())
    return datetime(value.year, value.month, value.day) if isinstance(value, date) else value


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=column_and_literals(), name=st.sampled_from([*ORDER, "in"]), group=st.integers(1, 6), ordered=st.booleans()
)
def test_conditions_take_what_plain_python_takes(
    tmp_path: Path,
    drawn: tuple[pa.Array, list[str], Callable[[str], Any]],
    name: str,
    group: int,
    ordered: bool,
) -> None:
    array, literals, read = drawn
    if ordered:
        # So that the statistics of row groups rule some out.
        array = array.take(pa.compute.sort_indices(array))
    text = f"c in ({', '.join(literals)})" if name == "in" else f"c {name} {literals[0]}"
    bounds = [read(literal) for literal in (literals if name == "in" else literals[:1])]
    compare = ORDER["=" if name == "in" else name]
    expected = [
        str(row)
        for row, cell in enumerate(array.to_pylist())
        if cell is not None and any(compare(plain(cell), bound) for bound in bounds)
    ]
    path = tmp_path / "x.parquet"
    write(path, numbered(array), group=group)
    assert taken(path, TextSelection(where=(text,))) == expected


json_cells = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | words


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(json_cells, min_size=1, max_size=25), word=words, name=st.sampled_from(["=", "!="]))
def test_each_cell_of_jsonl_is_compared_as_what_it_is(tmp_path: Path, cells: list[Any], word: str, name: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "text": "t", "c": cell}) + "\n" for i, cell in enumerate(cells)))
    strings = all(cell is None or isinstance(cell, str) for cell in cells)
    selection = TextSelection(where=(f"c {name} '{word}'",))
    if strings and any(cell is not None for cell in cells):
        expected = [str(i) for i, cell in enumerate(cells) if cell is not None and ORDER[name](cell, word)]
        assert taken(path, selection) == expected
    nulls = [str(i) for i, cell in enumerate(cells) if cell is None]
    assert taken(path, TextSelection(where=("c = null",))) == nulls
    assert taken(path, TextSelection(where=("c != null",))) == [
        str(i) for i in range(len(cells)) if str(i) not in nulls
    ]
    if all(cell is None or (isinstance(cell, (int, float, str)) and not isinstance(cell, bool)) for cell in cells):
        # Of a mixed column, numbers as numbers and strings as strings.
        numbers = [str(i) for i, cell in enumerate(cells) if (cell == "7" if isinstance(cell, str) else cell == 7)]
        assert taken(path, TextSelection(where=("c = 7",))) == numbers
