"""Pieces: together they are the file, wherever it is cut, and each can be reached without reading what is before it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import read_value, write_value
from driftline.components.storage.texts import parquet as text_parquet
from driftline.components.storage.texts import reading
from driftline.components.storage.texts import reading as texts
from driftline.components.storage.texts.reading import (
    PieceCutter,
    TextPiece,
    TextSource,
    read_texts,
    read_tombstones,
    scan_texts,
)
from driftline.components.storage.texts.rules import TextCounts
from driftline.components.storage.texts.selection import TextSelection

NAMES = ("x.parquet", "x.jsonl", "x.csv", "x.jsonl.gz", "x.csv.gz")
Row = dict[str, Any]


def csv_record(fields: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(fields)
    # A line end of its own within a field stays what it is.
    return text.getvalue().removesuffix("\r\n")


def content_of(name: str, rows: list[Row], end: str = "\n", mark: bool = False, blank: str = "") -> bytes:
    """A file's bytes, with a byte order mark and blank lines where asked for."""
    if name.endswith(".parquet"):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=7)
        return buffer.getvalue()
    if ".jsonl" in name:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    else:
        lines = [csv_record(fields) for fields in [list(rows[0]), *(list(row.values()) for row in rows)]]
    whole = ("\ufeff" if mark else "") + "".join(f"{line}{end}{blank}" for line in lines)
    return gzip.compress(whole.encode()) if name.endswith(".gz") else whole.encode()


def read(source: TextSource, **options: Any) -> list[Row]:
    return [row for batch in read_texts(source, **options) for row in batch.to_pylist()]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_ROWS", 4)
    monkeypatch.setattr(reading, "PIECE_BYTES", 40)
    monkeypatch.setattr(texts, "_SCAN_ROWS", 5)


texts_of_rows = st.text(st.sampled_from('aé界🧪",\n\r \u2028'), max_size=12).filter(
    lambda text: "\0" not in text
) | st.sampled_from(["x" * 39, "x" * 40, "x" * 41, "é" * 60, '"', "\n\n", "\r\n", "a\n\nb", "", " "])
file_rows = st.lists(
    st.tuples(texts_of_rows, st.sampled_from(["", "k", "a\r\nb", 'q"', "界"])), min_size=1, max_size=30
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=file_rows,
    name=st.sampled_from(NAMES),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    blank=st.sampled_from(["", "\n", "\r\n", "\n\n"]),
    selected=st.booleans(),
    data=st.data(),
)
def test_pieces_are_the_file(
    tmp_path: Path,
    small_pieces: None,
    drawn: list[tuple[str, str]],
    name: str,
    end: str,
    mark: bool,
    blank: str,
    selected: bool,
    data: st.DataObject,
) -> None:
    rows = [{"id": f"{i}", "text": text, "c": carried} for i, (text, carried) in enumerate(drawn)]
    path = tmp_path / name
    path.write_bytes(content_of(name, rows, end, mark, blank))
    selection = TextSelection(where=("c != k",)) if selected else TextSelection()
    expected = [row for row in rows if row["text"].strip() and not (selected and row["c"] == "k")]
    try:
        (source,) = scan_texts([str(path)], selection=selection)
        assert source.rows == len(rows)
        assert read(source, selection=selection) == expected
        assert source.texts == len(expected)
        assert source.counts.outside == sum(selected and row["c"] == "k" for row in rows)
        found: list[Row] = []
        for piece in source.pieces:
            texts_read = read(source, selection=selection, start=piece.start, rows=piece.rows)
            assert len(texts_read) == piece.texts
            size = sum(len(row["text"].encode()) for row in texts_read)
            assert size == piece.bytes
            assert 1 <= piece.rows <= 4
            assert size <= 40 or piece.texts == 1
            assert (piece.offset is None) == (name.endswith((".gz", ".parquet")))
            found += texts_read
        assert found == expected
        assert [piece.start for piece in source.pieces] == [
            sum(piece.rows for piece in source.pieces[:i]) for i in range(len(source.pieces))
        ]
        # Any other range, too: it begins within a piece.
        start = data.draw(st.integers(0, len(rows)))
        count = data.draw(st.integers(0, len(rows) - start))
        wanted = [row for row in expected if start <= int(row["id"]) < start + count]
        assert read(source, selection=selection, start=start, rows=count, batch_rows=3) == wanted
    finally:
        path.unlink()


@given(
    sizes=st.lists(st.integers(0, 50), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    left_out=st.sets(st.integers(0, 39)),
)
def test_cuts_do_not_depend_on_how_rows_arrive(sizes: list[int], cuts: list[int], left_out: set[int]) -> None:
    kept = np.array([row not in left_out for row in range(len(sizes))], bool)
    weights = np.where(kept, np.array(sizes, np.int64), 0) << 15

    def pieces(bounds: Sequence[int]) -> tuple[TextPiece, ...]:
        cutter = PieceCutter()
        for begin, end in pairwise(bounds):
            cutter.add(weights[begin:end], kept[begin:end], range(begin * 10, end * 10, 10))
        return cutter.finish()

    whole = pieces([0, len(sizes)])
    assert pieces(sorted({0, len(sizes), *(cut for cut in cuts if cut < len(sizes))})) == whole
    # Told one row after the other: a row joins while the piece has room for it.
    expected: list[list[int]] = []
    for row, weight in enumerate(weights.tolist()):
        if not expected or sum(weights[expected[-1]].tolist()) + weight > reading.PIECE_BYTES:
            expected.append([])
        expected[-1].append(row)
    assert [list(range(piece.start, piece.start + piece.rows)) for piece in whole] == expected
    assert [piece.texts for piece in whole] == [int(kept[rows].sum()) for rows in expected]
    assert [piece.bytes for piece in whole] == [int(weights[rows].sum()) for rows in expected]
    assert [piece.offset for piece in whole] == [rows[0] * 10 for rows in expected]


def test_a_piece_has_at_most_1024_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,text\n" + "".join(f"{i},t\n" for i in range(20_000)))
    (source,) = scan_texts([str(tmp_path)])
    assert [piece.rows for piece in source.pieces] == [1024] * 19 + [20_000 - 19 * 1024]
    write_value(str(tmp_path / "source"), source)
    assert read_value(str(tmp_path / "source"), TextSource) == source


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
@pytest.mark.parametrize("kind", ["local", "gs"])
def test_a_piece_is_reached_without_what_is_before_it(
    name: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path) if kind == "local" else request.getfixturevalue("gcs_bucket")
    uri = store.join(place, name)
    rows = [{"id": f"r{i}", "text": f'row "{i}",\n界 of the file'} for i in range(3000)]
    content = content_of(name, rows, mark=True)
    store.write_bytes(uri, content)
    (source,) = scan_texts([uri])
    # What is before the piece is made unreadable, but for the header.
    offset = source.pieces[2].offset
    assert offset is not None
    header = content.index(b"\n") + 1 if name == "x.csv" else 0
    store.write_bytes(
        uri, content[:header] + b'"{\n' * ((offset - header) // 3) + b" " * ((offset - header) % 3) + content[offset:]
    )
    damaged = store.stat(uri)
    changed = TextSource(
        uri, source.format, source.rows, damaged.size, store.crc32c(damaged), source.carried, source.pieces
    )
    assert read(changed, start=2048) == rows[2048:]
    assert read(changed, start=2500, rows=3) == rows[2500:2503]
    with pytest.raises(DataError):
        read(changed, start=2047)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_messages_after_seeking_say_what_lines_are_counted_from(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [{"id": f"r{i}", "text": "t"} for i in range(1030)]
    content = content_of(name, rows)
    path.write_bytes(content)
    (source,) = scan_texts([str(path)])
    path.write_bytes(content[:-9] + b'"{' + content[-7:])
    with pytest.raises(DataError, match=r"line \d, counted from row 1025"):
        read(source, start=1024)


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_tombstones_are_read_from_the_pieces_that_leave_rows_out(
    tmp_path: Path, name: str, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": f"{i}", "text": None if i in (9, 10, 13, 30) else "t", "c": f"{i}"} for i in range(40)]
    (tmp_path / name).write_bytes(content_of(name, rows))
    (source,) = scan_texts([str(tmp_path)])
    assert source.counts == TextCounts(null=4)
    ranges: list[tuple[int, int]] = []
    whole = texts._rows

    def noted(*given: Any) -> Any:
        ranges.append((given[3], given[4]))
        return whole(*given)

    monkeypatch.setattr(texts, "_rows", noted)
    ids = list(read_tombstones(source))
    assert all(part.type == pa.string() and len(part) for part in ids)
    assert [value for part in ids for value in part.to_pylist()] == ["9", "10", "13", "30"]
    assert ranges == [(8, 8), (28, 4)]
    selection = TextSelection(where=("c in (10, 30, 31)",))
    (source,) = scan_texts([str(tmp_path)], selection=selection)
    assert source.counts == TextCounts(null=2, outside=37)
    assert [value for part in read_tombstones(source, selection=selection) for value in part.to_pylist()] == [
        "10",
        "30",
    ]
    with pytest.raises(DataError, match="the file or the selection has changed"):
        list(read_tombstones(source))
    with pytest.raises(DataError, match="the file or the selection has changed"):
        list(read_texts(source))


def test_long_rows_of_parquet_come_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_parquet, "BATCH_BYTES", 10_000)
    rows = [{"id": f"{i}", "text": chr(97 + i % 26) * 1000 + f"{i}"} for i in range(60)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=30, compression="none")
    (source,) = scan_texts([str(path)])
    batches = list(read_texts(source))
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert all(1 <= batch.num_rows <= 10 for batch in batches)
    # A row that is longer by itself comes alone.
    monkeypatch.setattr(text_parquet, "BATCH_BYTES", 10)
    assert [batch.num_rows for batch in read_texts(source)] == [1] * 60


def test_parquet_columns_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    nested = pa.array([{"b": 1}, {"b": 2}])
    table = pa.table({"id": ["1", "2"], "text": ["x", "y"], "a": nested, "a.b": [5, 6], "c": ["k", "l"]})
    pq.write_table(table, tmp_path / "x.parquet")
    selection = TextSelection(where=('"a.b" = 6',))
    (source,) = scan_texts([str(tmp_path)], selection=selection)
    assert read(source, selection=selection) == [{"id": "2", "text": "y", "a": {"b": 2}, "a.b": 6, "c": "l"}]
    narrow = pa.schema({"c": pa.string()})
    assert read(source, selection=selection, schema=narrow) == [{"id": "2", "text": "y", "c": "l"}]
    assert read(source, selection=selection, schema=pa.schema({"a.b": pa.int64()})) == [
        {"id": "2", "text": "y", "a.b": 6}
    ]
