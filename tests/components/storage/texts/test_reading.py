"""Texts that are right: the same rows through every format, slice and store."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import read_value, write_value
from driftline.components.storage.texts.reading import TextSource, carried_schema, find_texts, read_texts, scan_texts
from driftline.components.storage.texts.rows import TextColumns

Row = dict[str, Any]


def as_parquet(rows: list[Row], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


def as_jsonl(rows: list[Row], ensure_ascii: bool = False) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=ensure_ascii) + "\n" for row in rows).encode()


def as_csv(rows: list[Row]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


WRITERS = {"parquet": as_parquet, "jsonl": as_jsonl, "csv": as_csv}


def all_rows(sources: list[TextSource], columns: TextColumns | None = None, **options: Any) -> list[Row]:
    return [row for s in sources for batch in read_texts(s, columns, **options) for row in batch.to_pylist()]


def numbered(count: int) -> list[Row]:
    return [{"id": f"r{i}", "text": f"text {i} of the rows", "time": f"2025-01-{i % 28 + 1:02}"} for i in range(count)]


@pytest.mark.parametrize("kind", WRITERS)
def test_rows_come_back_from_either_store(place: str, kind: str) -> None:
    rows = numbered(50)
    store.write_bytes(store.join(place, f"x.{kind}"), WRITERS[kind](rows))
    (source,) = scan_texts([store.join(place, f"x.{kind}")])
    assert source.rows == 50
    assert source.format == kind
    assert source.carried == (("time", "string"),)
    info = store.stat(source.uri)
    assert (source.bytes, source.crc32c) == (info.size, store.crc32c(info))
    assert all_rows([source]) == rows
    write_value(store.join(place, "source.value"), source)
    assert read_value(store.join(place, "source.value"), TextSource) == source


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.sampled_from(
    [
        '"',
        '""',
        ',"\r\n',
        "a\nb",
        "a\r",
        "\r\n\r\n x",
        "\0x",
        "\u2028",
        "\ufeffx",
        "🧪\U000e0001",
        "é",
        "'",
        "\\",
        "a\x85b",
        "\x1ca",
    ]
)
row_lists = st.lists(
    st.fixed_dictionaries({"text": texts.filter(lambda t: t.strip()), "extra": texts}), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=row_lists, kind=st.sampled_from(sorted(WRITERS)), packed=st.booleans(), batch=st.integers(1, 5))
def test_odd_texts_come_back(tmp_path: Path, rows: list[Row], kind: str, packed: bool, batch: int) -> None:
    given_rows = [{"id": f"{i}", **row} for i, row in enumerate(rows)]
    content = WRITERS[kind](given_rows)
    name = f"x.{kind}"
    if packed and kind != "parquet":
        content, name = gzip.compress(content), name + ".gz"
    path = tmp_path / name
    path.write_bytes(content)
    try:
        assert all_rows(scan_texts([str(path)]), batch_rows=batch) == given_rows
    finally:
        path.unlink()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(WRITERS)),
    count=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    batch=st.integers(1, 50),
    group=st.integers(1, 15),
)
def test_slices_give_the_same_rows(
    tmp_path: Path, kind: str, count: int, cuts: list[int], batch: int, group: int
) -> None:
    rows = [{"id": f"{i}", "text": f"t\n{i}", "n": f"{i * i}"} for i in range(count)]
    path = tmp_path / f"x.{kind}"
    options = {"row_group_size": group} if kind == "parquet" else {}
    path.write_bytes(WRITERS[kind](rows, **options))
    (source,) = scan_texts([str(path)])
    bounds = sorted({0, count, *(cut for cut in cuts if cut < count)})
    schemas: set[str] = set()
    found: list[Row] = []
    for begin, end in pairwise(bounds):
        for part in read_texts(source, start=begin, rows=end - begin, batch_rows=batch):
            assert 1 <= part.num_rows <= batch
            schemas.add(str(part.schema))
            found += part.to_pylist()
    assert found == rows
    assert len(schemas) == 1


def test_parquet_slices_skip_row_groups(tmp_path: Path) -> None:
    rows = numbered(1000)
    content = bytearray(as_parquet(rows, row_group_size=100, compression="none", use_dictionary=False))
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    (source,) = scan_texts([str(path)])
    # Damage the first row group: a slice behind it is not troubled.
    place = content.index(b"text 3 of")
    content[place - 400 : place + 400] = b"\xff" * 800
    path.write_bytes(content)
    assert all_rows([source], start=500, rows=100) == rows[500:600]
    with pytest.raises(DataError):
        all_rows([source], start=0, rows=100)


def test_configured_columns_are_renamed(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("when,body,key\nnow,hello,k1\n")
    columns = TextColumns(id="key", text="body")
    sources = scan_texts([str(tmp_path)], columns)
    assert all_rows(sources, columns) == [{"id": "k1", "text": "hello", "when": "now"}]
    batch = next(read_texts(sources[0], columns))
    assert batch.schema.names == ["id", "text", "when"]


@pytest.mark.parametrize("id_type", [pa.int8(), pa.int64(), pa.uint64(), pa.dictionary(pa.int8(), pa.string())])
def test_integer_ids_become_strings(tmp_path: Path, id_type: pa.DataType) -> None:
    ids = pa.array(["1", "2"] if pa.types.is_dictionary(id_type) else [1, 2]).cast(id_type)
    pq.write_table(pa.table({"id": ids, "text": ["a", "b"]}), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text('{"id": 3, "text": "c"}\n{"id": "x", "text": "d"}\n')
    rows = all_rows(scan_texts([str(tmp_path / "x.parquet"), str(tmp_path / "x.jsonl")]))
    assert [row["id"] for row in rows] == ["1", "2", "3", "x"]


def test_jsonl_types(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"i": 1, "d": 1, "b": True, "s": "x", "m": 1, "n": {"k": [1, "ü"]}, "null": None, "big": 2**70, "wide": 2**60},
        {"i": None, "d": 1.5, "b": False, "s": "y", "m": "one", "n": [], "big": 1, "wide": 0.5},
        {"i": -(2**63), "d": 2**53, "m": None, "late": True},
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(as_jsonl([{"id": f"{i}", "text": "t", **row} for i, row in enumerate(rows)]))
    (source,) = scan_texts([str(path)])
    assert dict(source.carried) == {
        "i": "int64",
        "d": "double",
        "b": "bool",
        "s": "string",
        "m": "json",
        "n": "json",
        "null": "null",
        "big": "json",
        "wide": "json",
        "late": "bool",
    }
    found = all_rows([source], batch_rows=1)
    assert [row["i"] for row in found] == [1, None, -(2**63)]
    assert [row["d"] for row in found] == [1.0, 1.5, float(2**53)]
    assert [row["b"] for row in found] == [True, False, None]
    assert [row["m"] for row in found] == ["1", '"one"', None]
    assert [row["n"] for row in found] == ['{"k": [1, "ü"]}', "[]", None]
    assert [row["null"] for row in found] == [None, None, None]
    assert [row["wide"] for row in found] == [str(2**60), "0.5", None]
    assert [row["late"] for row in found] == [None, None, True]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    fields = {
        "i32": pa.array([1, None], pa.int32()),
        "when": pa.array([0, 1], pa.timestamp("us", tz="UTC")),
        "price": pa.array([None, None], pa.decimal128(9, 2)),
        "tags": pa.array([["a"], []], pa.list_(pa.string())),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "raw": pa.array([b"\xff", b""], pa.binary()),
        "large": pa.array(["x", "y"], pa.large_string()),
    }
    pq.write_table(pa.table({"text": ["a", "b"], "id": ["1", "2"], **fields}), tmp_path / "x.parquet")
    (source,) = scan_texts([str(tmp_path)])
    write_value(str(tmp_path / "source.json"), source)
    again = read_value(str(tmp_path / "source.json"), TextSource)
    batch = next(read_texts(again))
    # Parquet's own name for what a list holds.
    tags = pa.list_(pa.field("element", pa.string()))
    expected = {name: array.type for name, array in fields.items()} | {"kind": pa.string(), "tags": tags}
    assert batch.schema.names == ["id", "text", *fields]
    assert {name: batch.schema.field(name).type for name in fields} == expected
    assert carried_schema([again]) == pa.schema(expected)
    assert dict(source.carried)["when"] == "timestamp[us, tz=UTC]"
    assert dict(source.carried)["price"] == "decimal128(9, 2)"
    assert batch.to_pylist()[0]["tags"] == ["a"]


def test_files_that_differ_are_reconciled(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "a", "n": 1, "same": 1.5, "t": null}\n')
    (tmp_path / "b.csv").write_text("id,text,n,only\n2,b,two,x\n")
    times = pa.array([0], pa.timestamp("s", "UTC"))
    table = pa.table({"id": ["3"], "text": ["c"], "n": [[1, 2]], "same": [2.5], "t": times})
    pq.write_table(table, tmp_path / "c.parquet")
    sources = scan_texts([str(tmp_path)])
    schema = carried_schema(sources)
    # Parquet keeps times in milliseconds at the coarsest.
    assert schema == pa.schema(
        {"n": pa.string(), "same": pa.float64(), "t": pa.timestamp("ms", "UTC"), "only": pa.string()}
    )
    batches = [batch for source in sources for batch in read_texts(source, schema=schema)]
    table = pa.Table.from_batches(batches)
    assert table.column("n").to_pylist() == ["1", "two", "[1, 2]"]
    assert table.column("same").to_pylist() == [1.5, None, 2.5]
    assert table.column("only").to_pylist() == [None, "x", None]
    assert table.column("t").is_valid().to_pylist() == [False, False, True]


def test_byte_order_marks_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfid,text\r\n1,a\r\n\r\n2,b")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "3", "text": "c"}\n\n  \n{"id": "4", "text": "d"}')
    sources = scan_texts([str(tmp_path)])
    assert [row["id"] for row in all_rows(sources)] == ["1", "2", "3", "4"]
    assert [source.rows for source in sources] == [2, 2]
    assert [row["id"] for row in all_rows(sources[1:], start=1)] == ["4"]


@pytest.mark.parametrize("kind", WRITERS)
def test_texts_of_megabytes(tmp_path: Path, kind: str) -> None:
    rows = [{"id": f"{i}", "text": f'{i}, "quoted"\n' * 300_000} for i in range(3)]
    (tmp_path / f"x.{kind}").write_bytes(WRITERS[kind](rows))
    assert all_rows(scan_texts([str(tmp_path)])) == rows


def test_gzip_is_told_by_content(tmp_path: Path) -> None:
    # As uploads with Content-Encoding: gzip are stored.
    (tmp_path / "x.jsonl").write_bytes(gzip.compress(as_jsonl(numbered(3))))
    assert len(all_rows(scan_texts([str(tmp_path)]))) == 3


def test_found_files(place: str) -> None:
    readable = ["a.parquet", "b.jsonl", "c.NDJSON", "d.csv", "deep/er/g.csv", "e.jsonl.gz", "f.csv.gz"]
    others = ["readme.md", "_SUCCESS.csv", ".hidden.csv", "_tmp/x.csv", "deep/.git/x.csv", "x.gz"]
    for name in readable + others:
        store.write_bytes(store.join(place, name), b"x")

    def found(*inputs: str) -> list[str]:
        return [uri.removeprefix(place).lstrip("/") for uri in find_texts([store.join(place, i) for i in inputs])]

    assert found("") == readable
    assert found("*.csv") == ["d.csv"]
    assert found("?.*") == ["a.parquet", "b.jsonl", "c.NDJSON", "d.csv", "e.jsonl.gz", "f.csv.gz"]
    assert found("**/*.csv") == ["d.csv", "deep/er/g.csv"]
    assert found("deep/**") == ["deep/er/g.csv"]
    assert found("de*/e?/*.csv") == ["deep/er/g.csv"]
    assert found("_tmp/x.csv") == ["_tmp/x.csv"]
    assert found("d.csv", "a.parquet", "*.csv") == ["d.csv", "a.parquet"]
    for nothing in ("*.txt", "deep/*.csv", "none", "none/*.csv", "x?.csv"):
        with pytest.raises(DataError, match="check the path") as error:
            found(nothing)
        assert "\n" not in str(error.value)
    for other in ("readme.md", "x.gz", "*.md"):
        with pytest.raises(DataError, match=r"\.parquet, \.jsonl, \.ndjson or \.csv"):
            found(other)


def test_found_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a*.csv").write_bytes(b"x")
    (tmp_path / "data" / "ab.csv").write_bytes(b"x")
    assert find_texts(["./data/a*.csv"]) == ["data/a*.csv"]
    assert find_texts(["./data/?b.csv"]) == ["data/ab.csv"]
    assert find_texts(["*/ab.csv", str(tmp_path / "data")]) == ["data/ab.csv", str(tmp_path / "data" / "a*.csv")]
    assert find_texts(["."]) == ["data/a*.csv", "data/ab.csv"]
    assert find_texts([f"file://{tmp_path}/data/ab.csv"]) == [str(tmp_path / "data" / "ab.csv")]
    with pytest.raises(DataError, match="no inputs"):
        find_texts([])


@pytest.mark.parametrize(("start", "rows", "batch"), [(-1, None, 1), (0, 6, 1), (6, None, 1), (3, -1, 1), (0, 5, 0)])
def test_slices_out_of_range(tmp_path: Path, start: int, rows: int | None, batch: int) -> None:
    (tmp_path / "x.jsonl").write_bytes(as_jsonl(numbered(5)))
    (source,) = scan_texts([str(tmp_path)])
    with pytest.raises(UsageError, match="give a range within the file"):
        list(read_texts(source, start=start, rows=rows, batch_rows=batch))
    assert list(read_texts(source, start=5)) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_anywhere_is_a_data_error_or_other_rows(tmp_path: Path, kind: str) -> None:
    generator = random.Random(1)
    content = WRITERS[kind](numbered(30))
    path = tmp_path / f"x.{kind}"
    refused: list[str] = []
    for _ in range(80):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 8)):
            damaged[generator.randrange(len(damaged))] = generator.choice(b'\x00\xff"{},\n5')
        path.write_bytes(damaged[: generator.randint(len(damaged) // 2, len(damaged))])
        try:
            all_rows(scan_texts([str(path)]))
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 40
    assert not [message for message in refused if "\n" in message]


def test_memory_is_bounded_by_the_batch(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with path.open("w") as file:
        file.write("id,text\n")
        for i in range(20_000):
            file.write(f"{i},{'word ' * 400}\n")
    (source,) = scan_texts([str(path)])
    assert source.bytes > 40_000_000
    tracemalloc.start()
    rows = sum(batch.num_rows for batch in read_texts(source, batch_rows=256))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 20_000
    assert peak < 12_000_000
