"""Texts that are not right: each is refused with one line that names the place and says what to do."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.components import unique_ids
from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage.objects import store
from driftline.components.storage.texts.reading import read_texts, scan_texts
from driftline.components.storage.texts.rows import TextColumns


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def not_utf8() -> pa.Array:
    """Two strings, of which the second is none."""
    return pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe")]
    )


WHOLE = parquet(id=[str(i) for i in range(1000)], text=[f"text {i}" for i in range(1000)])

CASES: dict[str, tuple[str, bytes, list[str]]] = {
    "parquet without text": ("x.parquet", parquet(id=["1"], body=["a"]), ["'text'", "'id', 'body'"]),
    "csv without id": ("x.csv", b"key,text\n1,a\n", ["'id'", "'key', 'text'"]),
    "jsonl without text": (
        "x.jsonl",
        b'{"id": "1", "text": "a"}\n{"id": "2", "body": "b"}\n',
        ["'text'", "'id', 'body'", "line 2"],
    ),
    "csv header twice": ("x.csv", b"id,text,a,a\n1,a,b,c\n", ["several columns 'a'"]),
    "csv without rows": ("x.csv", b"id,text\n", ["there are no rows"]),
    "empty csv": ("x.csv", b"", ["'id'", "none"]),
    "empty jsonl": ("x.jsonl", b"", ["there are no rows"]),
    "blank jsonl": ("x.jsonl", b"\n \n", ["there are no rows"]),
    "parquet without rows": (
        "x.parquet",
        parquet(id=pa.array([], pa.string()), text=pa.array([], pa.string())),
        ["there are no rows"],
    ),
    "parquet text of numbers": ("x.parquet", parquet(id=["1"], text=[5]), ["'text'", "int64", "not strings"]),
    "parquet text of bytes": ("x.parquet", parquet(id=["1"], text=[b"a"]), ["'text'", "binary"]),
    "jsonl text of numbers": ("x.jsonl", b'\n{"id": "1", "text": 5}', ["'text', row 1", "5 is not a string"]),
    "parquet null id": ("x.parquet", parquet(id=["1", None], text=["a", "b"]), ["'id', row 2", "null"]),
    "jsonl null id": ("x.jsonl", b'{"id": null, "text": "a"}', ["'id', row 1", "null"]),
    "csv empty id": ("x.csv", b"id,text\n,a\n", ["'id', row 1", "empty"]),
    "parquet float ids": ("x.parquet", parquet(id=[1.5], text=["a"]), ["'id'", "double"]),
    "jsonl float id": ("x.jsonl", b'{"id": 1.0, "text": "a"}', ["'id', row 1", "1.0"]),
    "jsonl bool id": ("x.jsonl", b'{"id": true, "text": "a"}', ["'id', row 1", "true"]),
    "jsonl list id": ("x.jsonl", b'{"id": [1], "text": "a"}', ["'id', row 1", "[1]"]),
    "duplicate ids": ("x.csv", b"id,text\na,x\nb,y\na,z\n", ["row 3", "id 'a'", "row 1 of"]),
    "duplicate of an integer": ("x.jsonl", b'{"id":1,"text":"a"}\n{"id":"1","text":"b"}', ["row 2", "row 1 of"]),
    "truncated parquet": ("x.parquet", WHOLE[:-100], ["not a whole Parquet file"]),
    "parquet without its start": ("x.parquet", WHOLE[500:], ["not a whole Parquet file"]),
    "not parquet": ("x.parquet", b"id,text\n1,a\n", ["not a whole Parquet file"]),
    "empty parquet": ("x.parquet", b"", ["not a whole Parquet file"]),
    "damaged parquet page": ("x.parquet", WHOLE[:60] + b"\xff" * 500 + WHOLE[560:], ["not a whole Parquet file"]),
    "truncated jsonl": ("x.jsonl", b'{"id": "1", "text": "a"}\n{"id": "2", "te', ["line 2", "not JSON"]),
    "jsonl of lists": ("x.jsonl", b'["a"]\n', ["line 1", "not a JSON object"]),
    "jsonl too deep": ("x.jsonl", b"[" * 200_000, ["line 1", "not JSON"]),
    "truncated csv": ("x.csv", b'id,text\n1,a\n2,"b', ["line 3", "not CSV"]),
    "csv with too few fields": ("x.csv", b'id,text,n\n1,"a\nb",2\n2,b\n', ["row 2", "line 4", "2 fields", "has 3"]),
    "csv with too many fields": ("x.csv", b"id,text\n1,a,b\n", ["row 1", "3 fields", "has 2"]),
    "csv with a stray quote": ("x.csv", b'id,text\n1,"a"b\n', ["line 2", "not CSV"]),
    "jsonl in utf-16": ("x.jsonl", '{"id": "1", "text": "a"}'.encode("utf-16"), ["line 1", "not UTF-8"]),
    "csv header in latin-1": ("x.csv", "id,text,n\u00e9\n1,a,b\n".encode("latin-1"), ["header is not UTF-8"]),
    "csv id in latin-1": ("x.csv", "id,text\n1,a\ncaf\u00e9,a\n".encode("latin-1"), ["'id', row 2", "not Unicode"]),
    "jsonl id in latin-1": (
        "x.jsonl",
        '{"id": "\u00e9", "text": "a"}'.encode("latin-1"),
        ["'id', row 1", "not Unicode"],
    ),
    "parquet id not utf-8": ("x.parquet", parquet(id=not_utf8(), text=["a", "b"]), ["'id', row 2", "not Unicode"]),
    "half a pair in an id": ("x.jsonl", b'{"id": "\\ud83d", "text": "a"}', ["'id', row 1", "not Unicode"]),
    "half a pair in a name": ("x.jsonl", b'{"id": "1", "text": "a", "\\ud83d": 1}', ["row 1", "surrogate", "rename"]),
    "latin-1 in a name": ("x.jsonl", '{"id":"1","text":"a","\u00e9":1}'.encode("latin-1"), ["row 1", "rename"]),
    "csv blank id": ("x.csv", 'id,text\n"\u3000 ",a\n'.encode(), ["'id', row 1", "only white space"]),
    "carried embedding": ("x.csv", b"id,text,embedding\n1,a,b\n", ["'embedding'", "cannot be carried"]),
    "truncated gzip": (
        "x.csv.gz",
        gzip.compress(b"id,text\n" + b"".join(b"%d,t%d\n" % (i, i) for i in range(9999)))[:-2000],
        ["gzip"],
    ),
    "gzip in name only": ("x.jsonl.gz", b'{"id": "1", "text": "a"}', ["is not gzip"]),
    "unknown ending": ("x.txt", b"a", [".parquet, .jsonl, .ndjson or .csv"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    name, content, parts = CASES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        scan_texts([str(path)])
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert ";" in message or ":" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("case", ["truncated parquet", "damaged parquet page", "truncated gzip", "truncated csv"])
def test_damage_in_the_object_store(gcs_bucket: str, case: str) -> None:
    name, content, parts = CASES[case]
    store.write_bytes(f"{gcs_bucket}/{name}", content)
    with pytest.raises(DataError) as error:
        scan_texts([gcs_bucket])
    assert all(part in str(error.value) for part in parts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"key,body,id\n1,a,b\n"),
        ("b.jsonl", b'{"key": "1", "body": "a"}\n{"key": "2", "body": "a", "text": "b"}'),
        ("c.parquet", parquet(key=["1"], body=["a"], text=["b"])),
    ],
)
def test_reserved_names_are_not_carried(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"column '(id|text)' cannot be carried along"):
        scan_texts([str(tmp_path / name)], TextColumns(id="key", text="body"))


def test_duplicates_across_files_name_both(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"a{i},t\n" for i in range(20_000)))
    (tmp_path / "b.jsonl").write_text('{"id": "b", "text": "t"}\n{"id": "a12345", "text": "t"}\n')
    with pytest.raises(DataError) as error:
        scan_texts([str(tmp_path)])
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'b.jsonl'}: row 2: id 'a12345'")
    assert f"row 12346 of {tmp_path / 'a.csv'}" in message


def test_equal_hashes_of_different_ids_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unique_ids._hashes
    monkeypatch.setattr(unique_ids, "_hashes", lambda ids: whole(ids) % 7)
    monkeypatch.setattr(unique_ids, "_CANDIDATES_AT_ONCE", 2)
    path = tmp_path / "x.csv"
    path.write_text("id,text\n" + "".join(f"a{i},t\n" for i in range(100)))
    assert scan_texts([str(path)])[0].rows == 100
    path.write_text("id,text\n" + "".join(f"a{i % 99},t\n" for i in range(100)))
    with pytest.raises(DataError, match=r"row 100: id 'a0' is already that of row 1 of"):
        scan_texts([str(path)])


def test_a_file_without_rows_beside_others_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n")
    (tmp_path / "b.csv").write_text("id,text\n1,a\n")
    assert [source.rows for source in scan_texts([str(tmp_path)])] == [0, 1]


BEFORE = "id,text,n\n1,a,2\n2,b,3\n"


@pytest.mark.parametrize("after", ["id,text,n\n1,a,2\n", BEFORE + "3,c,5\n", "id,text\n1,a\n"])
def test_a_file_of_another_size_than_scanned(tmp_path: Path, after: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(BEFORE)
    (source,) = scan_texts([str(path)])
    path.write_text(after)
    with pytest.raises(DataError, match="has changed since it was scanned"):
        list(read_texts(source))


def test_a_file_removed_or_changed_within_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(BEFORE)
    (source,) = scan_texts([str(path)])
    # One row fewer in as many bytes.
    path.write_text("id,text,n\n1,a,222222222\n"[: len(BEFORE) - 1] + "\n")
    assert path.stat().st_size == source.bytes
    with pytest.raises(DataError, match="the file has changed"):
        list(read_texts(source))
    path.unlink()
    with pytest.raises(StorageError, match="no such file"):
        list(read_texts(source))


def test_an_object_of_the_same_size_that_changed(gcs_bucket: str) -> None:
    uri = f"{gcs_bucket}/x.csv"
    store.write_bytes(uri, b"id,text\n1,a\n")
    (source,) = scan_texts([uri])
    store.write_bytes(uri, b"id,text\n1,b\n")
    with pytest.raises(DataError, match="has changed since it was scanned"):
        list(read_texts(source))


@pytest.mark.parametrize(("id_column", "text_column"), [("", "text"), ("id", ""), ("x", "x")])
def test_columns_that_cannot_be(id_column: str, text_column: str) -> None:
    with pytest.raises(UsageError, match="two different columns"):
        TextColumns(id=id_column, text=text_column)
