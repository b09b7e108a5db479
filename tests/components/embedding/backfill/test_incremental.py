"""Incremental runs: new ids are embedded, changed texts anew, null texts deleted, all else stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.errors import DataError
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.store import join, list_files
from driftline.components.storage.objects.values import read_value
from tests.components.embedding.backfills import Backfill, contents, one_line, rows
from tests.components.embedding.tiny_models import SCRIPTS, by_hand

OLD = {f"t{number}": f"{SCRIPTS[number % 7]} {number}" for number in range(11)}


def write(path: Path, texts: Mapping[str, str | None], **extra: Any) -> Path:
    """Write texts by their ids as JSONL."""
    lines = [json.dumps({"id": name, "text": text} | extra) for name, text in texts.items()]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def held(out: str) -> dict[str, str]:
    """Return a dataset's texts by their ids, after a look that each vector is that of its text."""
    ids, vectors = rows(out)
    dataset = EmbeddingsDataset.open(out)
    texts = dataset.take(range(dataset.rows), ["text"])["text"].to_pylist()
    assert len(set(ids)) == len(ids)
    np.testing.assert_allclose(vectors, [VECTORS[text] for text in texts], rtol=0, atol=1e-5)
    return dict(zip(ids, texts, strict=True))


VECTORS: dict[str, np.ndarray] = {}


@pytest.fixture(autouse=True)
def known_vectors(full: Path) -> None:
    texts = [*OLD.values(), "new one", "new two", "changed", "changed again", "more", *map(str, range(30))]
    missing = [text for text in texts if text not in VECTORS]
    if missing:
        VECTORS.update(zip(missing, by_hand(full, missing), strict=True))


@pytest.fixture
def work(tmp_path: Path) -> Backfill:
    return Backfill(tmp_path / "work")


@pytest.fixture
def out(tmp_path: Path, work: Backfill, full: Path) -> str:
    """A finished dataset of `OLD`, in shards of four."""
    out = str(tmp_path / "out")
    work.run([write(tmp_path / "old.jsonl", OLD)], full, out)
    return out


NEWS = {"n0": "new one", "t3": "changed", "t4": OLD["t4"], "t5": None, "gone": None, "n1": "new two"}
AFTER = {name: text for name, text in OLD.items() if name not in ("t3", "t5")} | {
    "n0": "new one",
    "t3": "changed",
    "n1": "new two",
}


def add(work: Backfill, tmp_path: Path, full: Path, out: str, texts: Mapping[str, str | None], **changes: Any):
    return work.run([write(tmp_path / "news.jsonl", texts)], full, out, output_incremental=True, **changes)


def test_new_changed_and_deleted_texts(work: Backfill, tmp_path: Path, full: Path, out: str):
    before = contents(out)
    metrics = add(work, tmp_path, full, out, NEWS)
    assert held(out) == AFTER
    assert {name: metrics[name] for name in ("texts", "texts_encoded", "deleted", "unknown_tombstones", "null")} == {
        "texts": 12.0,
        "texts_encoded": 3.0,
        "deleted": 2.0,
        "unknown_tombstones": 1.0,
        "null": 2.0,
    }
    after = contents(out)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    shards = [shard.name for shard in EmbeddingsDataset.open(out).manifest.shards]
    assert shards[:3] == [f"part-0000{number}.parquet" for number in range(3)]
    assert len(shards) == 4
    assert shards[3].startswith("part-00003-")


@pytest.mark.parametrize("place", ["local", "gs"])
def test_the_same_input_twice_changes_nothing(
    work: Backfill, tmp_path: Path, full: Path, place: str, request: pytest.FixtureRequest
):
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path)
    out = join(base, "out")
    work.run([write(tmp_path / "old.jsonl", OLD)], full, out)
    add(work, tmp_path, full, out, NEWS)
    before = {info.uri: info for info in list_files(out)}
    metrics = add(work, tmp_path, full, out, NEWS)
    assert {info.uri: info for info in list_files(out)} == before
    assert (metrics["texts_encoded"], metrics["deleted"], metrics["unknown_tombstones"]) == (0, 0, 2)
    assert held(out) == AFTER


def test_an_incremental_run_into_nothing_makes_a_whole_dataset(work: Backfill, tmp_path: Path, full: Path):
    news = {name: text for name, text in NEWS.items() if text}
    add(work, tmp_path, full, str(tmp_path / "one"), news | {"null": None})
    work.run([write(tmp_path / "same.jsonl", news | {"null": None})], full, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_run_after_run(work: Backfill, tmp_path: Path, full: Path, out: str):
    add(work, tmp_path, full, out, NEWS, embed_tasks=2)
    second = {"t5": "changed again", "t3": OLD["t3"], "t0": None, "n1": None, "n2": "more"}
    add(work, tmp_path, full, out, second)
    before = contents(out)
    add(work, tmp_path, full, out, second)
    assert contents(out) == before
    expected = AFTER | {"t5": "changed again", "t3": OLD["t3"], "n2": "more"}
    del expected["t0"], expected["n1"]
    assert held(out) == expected
    add(work, tmp_path, full, out, dict.fromkeys(expected))
    assert EmbeddingsDataset.open(out).rows == 0
    add(work, tmp_path, full, out, OLD)
    assert held(out) == OLD


def test_readers_see_the_old_dataset_until_the_new_one_is_finished(
    work: Backfill, tmp_path: Path, full: Path, out: str
):
    reader = EmbeddingsDataset.open(out)
    tasks = work.plan(
        [write(tmp_path / "news.jsonl", NEWS)],
        full,
        out,
        output_incremental=True,
        output_rows_per_shard=2,
        embed_tasks=2,
    )
    assert tasks == [0, 1]
    for task in tasks:
        assert held(out) == OLD
        work.embed(task)
    assert held(out) == OLD
    work.finish()
    assert held(out) == AFTER
    assert [name for batch in reader.batches() for name in batch.ids] == list(OLD)


def test_one_who_opened_the_dataset_before_the_last_run_reads_on(work: Backfill, tmp_path: Path, full: Path, out: str):
    add(work, tmp_path, full, out, NEWS)
    reader = EmbeddingsDataset.open(out)
    add(work, tmp_path, full, out, {"t0": None})
    assert sorted(name for batch in reader.batches() for name in batch.ids) == sorted(AFTER)


def test_a_resumed_run_goes_on_with_the_shards_that_are_there(work: Backfill, tmp_path: Path, full: Path, out: str):
    texts = {f"n{number}": str(number) for number in range(10)} | NEWS
    place = write(tmp_path / "news.jsonl", texts)
    whole = Backfill(tmp_path / "other")
    other = str(tmp_path / "other-out")
    whole.run([tmp_path / "old.jsonl"], full, other)
    whole.run([place], full, other, output_incremental=True)
    tasks = work.plan([place], full, out, output_incremental=True, embed_tasks=3)
    assert work.embed(tasks[0]).rows > 0
    again = work.plan([place], full, out, output_incremental=True, embed_tasks=3)
    assert work.embed(again[0]).rows == 0
    for task in again[1:]:
        assert work.embed(task).rows > 0
    work.finish()
    work.finish()  # as after a kill just before its end
    assert contents(out) == contents(other)


def test_two_incremental_runs_at_once_do_not_lose_each_other_s_texts(
    work: Backfill, tmp_path: Path, full: Path, out: str
):
    other = Backfill(tmp_path / "other")
    work.plan([write(tmp_path / "a.jsonl", {"n0": "new one"})], full, out, output_incremental=True)
    other.plan([write(tmp_path / "b.jsonl", {"n1": "new two"})], full, out, output_incremental=True)
    work.embed(0)
    other.embed(0)
    other.finish()
    with pytest.raises(DataError, match=one_line(out)):
        work.finish()
    assert held(out) == OLD | {"n1": "new two"}
    work.run([tmp_path / "a.jsonl"], full, out, output_incremental=True)
    assert held(out) == OLD | {"n0": "new one", "n1": "new two"}


def test_the_manifest_that_another_run_wrote_meanwhile_is_not_written_over(
    work: Backfill, tmp_path: Path, full: Path, out: str
):
    other = Backfill(tmp_path / "other")
    work.plan([write(tmp_path / "a.jsonl", {"t0": None})], full, out, output_incremental=True)
    deletes = {info.uri: Path(info.uri).read_bytes() for info in list_files(out) if "deletes-" in info.uri}
    add(other, tmp_path, full, out, {"n1": "new two"})
    for uri, content in deletes.items():
        Path(uri).write_bytes(content)  # as if the other run had not cleared it away yet
    work.embed(0)
    with pytest.raises(DataError, match=one_line(join(out, "manifest.json"), "another run changed the dataset since")):
        work.finish()
    assert held(out) == OLD | {"n1": "new two"}


def test_a_dataset_that_is_being_replaced_is_not_added_to(work: Backfill, tmp_path: Path, full: Path, out: str):
    changed = {name: f"{text} film" for name, text in OLD.items()}
    work.plan([write(tmp_path / "changed.jsonl", changed)], full, out)
    with pytest.raises(DataError, match=one_line(out, "a run that replaces the dataset has not finished")):
        add(Backfill(tmp_path / "other"), tmp_path, full, out, NEWS)
    work.embed(0)
    work.finish()
    add(work, tmp_path, full, out, {"t0": None})
    assert rows(out)[0] == [*OLD][1:]


@pytest.mark.parametrize("changes", [{"output_dtype": "float16"}, {"model_prompt": "query"}], ids=["dtype", "settings"])
def test_other_settings_are_refused(work: Backfill, tmp_path: Path, full: Path, out: str, changes: dict[str, Any]):
    before = contents(out)
    with pytest.raises(DataError, match=one_line(out, "or run without output_incremental")):
        add(work, tmp_path, full, out, NEWS, **changes)
    assert contents(out) == before


def test_another_model_is_refused(work: Backfill, tmp_path: Path, models: Path, full: Path, out: str):
    with pytest.raises(DataError, match=one_line(out, "the dataset was made by full (sha256:")):
        add(work, tmp_path, models / "mean", out, NEWS)


def test_columns_must_fit(work: Backfill, tmp_path: Path, full: Path):
    out = str(tmp_path / "rated")
    work.run([write(tmp_path / "old.jsonl", OLD, rating=3)], full, out)
    fitting = write(tmp_path / "fitting.jsonl", {"n0": "new one"}, rating=5)
    work.run([fitting, write(tmp_path / "without.jsonl", {"n1": "new two"})], full, out, output_incremental=True)
    assert EmbeddingsDataset.open(out).take(range(13), ["rating"])["rating"].to_pylist() == [3] * 11 + [5, None]
    for extra, message in (
        ({"rating": 5, "film": "a"}, "has no column 'film'"),
        ({"rating": "five"}, "column 'rating' holds string, in the dataset"),
    ):
        place = write(tmp_path / "other.jsonl", {"n2": "more"}, **extra)
        with pytest.raises(DataError, match=one_line(place, message)):
            work.run([place], full, out, output_incremental=True)


def test_the_plan_of_scattered_texts_is_small_and_they_alone_are_embedded(work: Backfill, tmp_path: Path, full: Path):
    out = str(tmp_path / "many")
    old = {f"t{number}": str(number % 30) for number in range(5000)}
    work.run([write(tmp_path / "old.jsonl", old)], full, out, output_rows_per_shard=2000)
    new = {name: "more" if number % 7 == 3 else text for number, (name, text) in enumerate(old.items())}
    metrics = work.run(
        [write(tmp_path / "new.jsonl", new)], full, out, output_rows_per_shard=100, output_incremental=True
    )
    assert (metrics["texts_encoded"], metrics["duplicates"]) == (714, 714 - 8)
    assert held(out) == new
    planned = read_value(work.planned, BackfillPlan)
    assert sum(len(entry.slices) for entry in planned.shards) == 8
    assert len(json.dumps([str(entry) for entry in planned.shards])) < 3000


texts_by_id = st.dictionaries(st.integers(0, 12).map("t{}".format), st.none() | st.integers(0, 3).map(str), max_size=13)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts_by_id, min_size=1, max_size=3), st.integers(1, 5))
def test_any_sequence_of_runs_gives_what_a_dictionary_does(
    tmp_path_factory: pytest.TempPathFactory, full: Path, inputs: list[dict[str, str | None]], rows_per_shard: int
):
    folder = tmp_path_factory.mktemp("runs")
    work, out = Backfill(folder / "work"), str(folder / "out")
    work.run([write(folder / "old.jsonl", OLD)], full, out)
    expected: dict[str, str] = dict(OLD)
    for texts in inputs:
        if not texts:
            continue
        work.run(
            [write(folder / "in.jsonl", texts)],
            full,
            out,
            output_rows_per_shard=rows_per_shard,
            output_incremental=True,
        )
        for name, text in texts.items():
            if text is None:
                expected.pop(name, None)
            else:
                expected[name] = text
        if expected:
            assert held(out) == expected
        else:
            assert EmbeddingsDataset.open(out).rows == 0
