"""Bad texts: one rule each, the same in every format, and counted."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError
from driftline.components.storage.texts import rules as text_rules
from driftline.components.storage.texts.reading import TextSource, read_texts, read_tombstones, scan_texts
from driftline.components.storage.texts.rows import RowBatch, TextColumns
from driftline.components.storage.texts.rules import TextCounts

KINDS = ("parquet", "jsonl", "csv")
HALF = re.compile("[\ud800-\udfff]")


def as_bytes(text: str) -> bytes:
    """A text in UTF-8, half surrogate pairs as the bytes that `surrogateescape` or `surrogatepass` make of them."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def write(path: Path, rows: list[tuple[str | None, str]]) -> None:
    """Write (text, carried) pairs; CSV has no null. Half surrogate pairs are escapes in JSONL, raw bytes elsewhere."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": f"{i}", "text": t, "c": c}) + "\n" for i, (t, c) in enumerate(rows)))
    elif path.suffix == ".csv":
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([("id", "text", "c"), *((f"{i}", t, c) for i, (t, c) in enumerate(rows))])
        path.write_bytes(b"".join(as_bytes(line) for line in lines.getvalue().splitlines(keepends=True)))
    else:
        cells = [None if text is None else as_bytes(text) for text, _ in rows]
        unchecked = pa.array(cells, pa.binary()).buffers()
        texts = pa.Array.from_buffers(pa.string(), len(rows), unchecked)
        carried = pa.Array.from_buffers(
            pa.string(), len(rows), pa.array([as_bytes(c) for _, c in rows], pa.binary()).buffers()
        )
        pq.write_table(pa.table({"id": [f"{i}" for i in range(len(rows))], "text": texts, "c": carried}), path)


def read(source: TextSource, **options: Any) -> list[dict[str, Any]]:
    return [row for batch in read_texts(source, **options) for row in batch.to_pylist()]


def mended(text: str, kind: str) -> tuple[str, bool]:
    """A text as it comes out, and whether something in it had to be replaced."""
    if kind == "jsonl":
        return HALF.sub("\ufffd", text), bool(HALF.search(text))
    try:
        # Bytes may make a character together.
        return as_bytes(text).decode("utf-8"), False
    except UnicodeDecodeError:
        return as_bytes(text).decode("utf-8", "replace"), True


def is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\t\n\r"


def oracle(rows: list[tuple[str | None, str]], kind: str) -> tuple[list[dict[str, str]], TextCounts]:
    """The rules, text by text."""
    kept: list[dict[str, str]] = []
    counts = TextCounts()
    for i, (given_text, given_carried) in enumerate(rows):
        if given_text is None:
            counts += TextCounts(null=1)
            continue
        (text, text_bad), (carried, carried_bad) = mended(given_text, kind), mended(given_carried, kind)
        if text == "":
            counts += TextCounts(empty=1)
        elif text.isspace():
            counts += TextCounts(whitespace=1)
        else:
            counts += TextCounts(surrogates=int(text_bad or carried_bad), control=int(any(map(is_control, text))))
            kept.append({"id": f"{i}", "text": text, "c": carried})
    return kept, counts


odd_texts = st.text(
    st.sampled_from(" \t\n\r\u3000\u2028\x85\x1c\x00\x07\x7f\x9f\xa0aé界🧪,\"'\u200b\ufeff\ufffd")
    | st.characters(codec="utf-8"),
    max_size=6,
)
halves = st.text(st.sampled_from("a é\udc80\udcc3\udca9\udcff"), max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.none() | odd_texts | halves, odd_texts | halves), min_size=1),
    kind=st.sampled_from(KINDS),
)
def test_every_text_falls_under_its_rule(tmp_path: Path, rows: list[tuple[str | None, str]], kind: str) -> None:
    if kind == "csv":
        rows = [(text or "", carried) for text, carried in rows]
    path = tmp_path / f"x.{kind}"
    write(path, rows)
    (source,) = scan_texts([str(path)])
    kept, counts = oracle(rows, kind)
    assert source.rows == len(rows)
    assert source.texts == len(kept)
    assert source.counts == counts
    assert read(source, batch_rows=3) == kept
    nulls = [f"{i}" for i, (text, _) in enumerate(rows) if text is None]
    assert [value for ids in read_tombstones(source) for value in ids.to_pylist()] == nulls
    if counts == TextCounts():
        assert scan_texts([str(path)], strict=True) == [source]
    else:
        with pytest.raises(DataError, match="strict reading") as error:
            scan_texts([str(path)], strict=True)
        message = str(error.value)
        first = next(i for i in range(len(rows)) if oracle(rows[i : i + 1], kind)[1] != TextCounts())
        assert re.match(rf"{re.escape(str(path))}: column '(text|c)', row {first + 1}: ", message)
        assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "content", "text", "counts", "state"),
    [
        ("jsonl", b'{"id": "1", "text": null}\n', None, TextCounts(null=1), "'text', row 1: the text is null"),
        ("csv", b"id,text\n\n1,\n", None, TextCounts(empty=1), "'text', row 1: the text is empty"),
        (
            "csv",
            'id,text\n1,"\n\u3000 "\n'.encode(),
            None,
            TextCounts(whitespace=1),
            "'text', row 1: the text is only white space",
        ),
        (
            "csv",
            "id,text\n1,café\n".encode("latin-1"),
            "caf\ufffd",
            TextCounts(surrogates=1),
            "'text', row 1: holds half",
        ),
        ("csv", b"id,text\n1,a\x00b\n", "a\x00b", TextCounts(control=1), "'text', row 1: the text holds control"),
        (
            "jsonl",
            '{"id": "1", "text": "caf\u00e9 \\ud83d\\ude00 \ufffd"}\n'.encode("latin-1", "replace").replace(
                b" ?", b" \xef\xbf\xbd"
            ),
            "caf\ufffd 😀 \ufffd",
            TextCounts(surrogates=1),
            "'text', row 1: holds half",
        ),
        (
            "jsonl",
            b'{"id": "1", "text": "\\ud83dx\\udcc3\\udca9", "c": {"\\udc00": ["\\ud83d", 1]}}\n',
            "\ufffdx\ufffd\ufffd",
            TextCounts(surrogates=1),
            "'text', row 1: holds half",
        ),
        (
            "jsonl",
            b'{"id": "1", "text": "a", "c": {"\\udc00": ["\\ud83d", 1]}}\n',
            "a",
            TextCounts(surrogates=1),
            "'c', row 1: holds half",
        ),
        # A record in another encoding beside one that holds U+FFFD itself: only the former is mended.
        ("csv", b"id,text,n\n1,\xef\xbf\xbd,\xe9\n", "\ufffd", TextCounts(surrogates=1), "'n', row 1: holds half"),
        ("csv", b"id,text\n1,\xef\xbf\xbd\n", "\ufffd", TextCounts(), None),
        ("jsonl", b'{"id": "1", "text": "\\ud83d\\ude00\\u0009"}\n', "😀\t", TextCounts(), None),
    ],
)
def test_each_rule(tmp_path: Path, kind: str, content: bytes, text: str | None, counts: TextCounts, state: str) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content)
    (source,) = scan_texts([str(path)])
    assert source.counts == counts
    assert [row["text"] for row in read(source)] == ([] if text is None else [text])
    if state is None:
        assert scan_texts([str(path)], strict=True) == [source]
        return
    with pytest.raises(DataError, match=re.escape(f"{path}: column {state}")):
        scan_texts([str(path)], strict=True)


def test_carried_halves_become_replacement_characters(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"id": "1", "text": "a", "s": "\\ud83d!", "n": {"\\udc00": ["\\ud83d", 1]}}\n')
    (source,) = scan_texts([str(tmp_path)])
    assert read(source) == [{"id": "1", "text": "a", "s": "\ufffd!", "n": '{"\ufffd": ["\ufffd", 1]}'}]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_parquet_of_any_string_type_is_mended(tmp_path: Path, kind: pa.DataType) -> None:
    raw = pa.array([b"ok", None, b"\xff\xfe", b"\xed\xa0\xbd", b""], pa.binary())
    table = pa.table(
        {"id": list("abcde"), "text": raw.view(pa.string()).cast(kind) if kind != pa.string() else raw.view(kind)}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    (source,) = scan_texts([str(tmp_path)])
    assert source.counts == TextCounts(null=1, empty=1, surrogates=2)
    assert [row["text"] for row in read(source)] == ["ok", "\ufffd\ufffd", "\ufffd\ufffd\ufffd"]


def test_control_characters_are_those_of_unicode() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    # Among others: alone, most white space would be left out first.
    texts = pa.array([f"a{character}b" for character in characters])
    expected = [is_control(character) for character in characters]
    assert text_rules._control_rows(texts).tolist() == expected
    # Without any, and of a slice, whose bytes begin elsewhere.
    assert not text_rules._control_rows(texts[0xA0:0xD7FF]).any()
    assert text_rules._control_rows(texts[0x7F:0x81]).tolist() == [True, True]
    assert text_rules._control_rows(texts[:0]).tolist() == []


def test_a_control_character_across_blocks_of_bytes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_rules, "_BLOCK_BYTES", 4)
    for place in range(12):
        text = "a" * place + "\x85" + "a" * (12 - place)
        assert text_rules._control_rows(pa.array(["é" * 9, text])).tolist() == [False, True]


def test_white_space_is_that_of_python() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    kept = text_rules.kept_rows(pa.array([character * 2 for character in characters]))
    assert kept.tolist() == [not character.isspace() for character in characters]


def test_counts_add() -> None:
    assert TextCounts(1, 2, 3, 4, 5, 6) + TextCounts(10, 20, 30, 40, 50, 60) == TextCounts(11, 22, 33, 44, 55, 66)


def test_ids_of_texts_left_out_must_be_right_as_well(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "a", "text": "b"}\n{"id": "a", "text": null}\n')
    with pytest.raises(DataError, match="row 2: id 'a' is already that of row 1"):
        scan_texts([str(path)])
    path.write_text('{"id": "a", "text": "b"}\n{"id": " ", "text": null}\n')
    with pytest.raises(DataError, match="'id', row 2: the id is only white space"):
        scan_texts([str(path)])


@pytest.mark.parametrize("kind", KINDS)
def test_ten_megabytes_are_kept_whole_in_little_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    texts = [f"{i} " + "word" * (10 << 18) for i in range(30)]
    if kind == "parquet":
        pq.write_table(pa.table({"id": [f"{i}" for i in range(30)], "text": texts}), path, row_group_size=3)
    elif kind == "csv":
        path.write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    else:
        path.write_text("".join(f'{{"id": "{i}", "text": "{text}"}}\n' for i, text in enumerate(texts)))
    script = (
        "import re, sys\n"
        "from driftline.components.storage.texts.reading import read_texts, scan_texts\n"
        "def peak():\n"
        "    with open('/proc/self/status') as status:\n"
        "        return int(re.search(r'VmHWM:\\s+(\\d+)', status.read())[1]) >> 10\n"
        "before = peak()\n"
        "(source,) = scan_texts([sys.argv[1]])\n"
        "length = sum(sum(map(len, batch.column('text').to_pylist())) for batch in read_texts(source))\n"
        "print(length, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    length, grown_mb = map(int, done.stdout.split())
    assert length == sum(map(len, texts))
    # Not the 300 MB of the file several times over: a few texts, as bytes, as strings and as an array.
    assert grown_mb < 450


def test_the_rules_say_which_rows_of_a_batch() -> None:
    columns = TextColumns()
    batch = RowBatch(10, 3, pa.array([11, 12]).to_numpy(), pa.array(["a", "b"]), pa.array(["x", " "]), {}, {}, None)
    kept, counts = text_rules.judge("f", columns, batch, strict=False)
    assert kept.tolist() == [True, False]
    assert counts == TextCounts(whitespace=1, outside=1)
    with pytest.raises(DataError, match="f: column 'text', row 13: the text is only white space"):
        text_rules.judge("f", columns, batch, strict=True)
