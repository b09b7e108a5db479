"""A backfill that runs again: over a finished dataset, after a kill, over other texts, over a larger dataset."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from driftline.components.embedding.step import TaskReport
from driftline.components.errors import DataError
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from tests.components.embedding.backfills import Backfill, contents, one_line, rows
from tests.components.embedding.tiny_models import SCRIPTS, by_hand
from tests.support.datasets import write_texts

TEXTS = [f"{script} {number}" for number in range(2) for script in SCRIPTS][:11]
SHARDS = [f"part-0000{number}.parquet" for number in range(3)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts.jsonl", TEXTS)


@pytest.fixture
def work(tmp_path: Path) -> Backfill:
    return Backfill(tmp_path / "work")


@pytest.fixture
def out(tmp_path: Path, work: Backfill, texts: Path, full: Path) -> Path:
    """A finished dataset of `texts`."""
    work.run([texts], full, tmp_path / "out")
    return tmp_path / "out"


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Tell a file that was written again from one that was not: a rename gives it another inode."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.iterdir()}


def rerun(work: Backfill, texts: Path, model: Path, out: Path, tasks: int = 1) -> list[TaskReport]:
    numbers = work.plan([texts], model, out, embed_tasks=tasks)
    reports = [work.embed(number) for number in numbers]
    work.finish()
    return reports


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_finished_dataset_is_left_as_it_is(work: Backfill, texts: Path, full: Path, out: Path, tasks: int):
    before, written = contents(out), stamps(out)
    reports = rerun(work, texts, full, out, tasks)
    assert sum(report.rows for report in reports) == 0
    assert sum(entry.shard.rows for report in reports for _, entry in report.shards) == 11
    assert contents(out) == before
    assert {name: stamps(out)[name] for name in SHARDS} == {name: written[name] for name in SHARDS}


def test_a_finished_dataset_stays_readable_while_it_is_planned_again(
    work: Backfill, texts: Path, full: Path, out: Path
):
    work.plan([texts], full, out, embed_tasks=3)
    assert EmbeddingsDataset.open(str(out)).rows == 11


def test_places_do_not_matter_only_contents(work: Backfill, texts: Path, full: Path, out: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(full, moved / "full")
    shutil.copytree(out, moved / "out")
    shutil.copy(texts, moved / "other-name.jsonl")
    assert [report.rows for report in rerun(work, moved / "other-name.jsonl", moved / "full", moved / "out")] == [0]
    assert contents(moved / "out") == contents(out)


def remove(shard: Path) -> None:
    shard.unlink()


def halve(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def empty(shard: Path) -> None:
    shard.write_bytes(b"")


def replace_with_neighbour(shard: Path) -> None:
    shutil.copy(shard.with_name(SHARDS[0]), shard)


@pytest.mark.parametrize("damage", [remove, halve, empty, replace_with_neighbour])
@pytest.mark.parametrize("finished", [True, False], ids=["after-finish", "killed-before-finish"])
def test_only_the_shard_that_is_not_whole_is_embedded_again(
    work: Backfill, texts: Path, full: Path, out: Path, damage: Callable[[Path], None], finished: bool
):
    before = contents(out)
    if not finished:
        (out / "manifest.json").unlink()
    damage(out / SHARDS[1])
    written = stamps(out)
    work.plan([texts], full, out)
    with pytest.raises(DataError, match=one_line(out, "the dataset is unfinished")):
        EmbeddingsDataset.open(str(out))
    assert work.embed(0).rows == 4
    work.finish()
    assert contents(out) == before
    for name in (SHARDS[0], SHARDS[2]):
        assert stamps(out)[name] == written[name]


def test_texts_changed_in_place_withdraw_the_dataset_until_it_is_finished(
    work: Backfill, texts: Path, full: Path, out: Path
):
    changed = [text.replace("0", "film") for text in TEXTS]
    write_texts(texts, changed)
    tasks = work.plan([texts], full, out, embed_tasks=2)
    for task in tasks:
        assert not (out / "manifest.json").exists()
        with pytest.raises(DataError, match=one_line(out, "the dataset is unfinished")):
            EmbeddingsDataset.open(str(out))
        work.embed(task)
    work.finish()
    np.testing.assert_allclose(rows(out)[1], by_hand(full, changed), rtol=0, atol=1e-5)
    table = EmbeddingsDataset.open(str(out)).take(range(11), ["text"])
    assert table["text"].to_pylist() == changed


def test_a_same_sized_change_of_one_letter_is_noticed(work: Backfill, texts: Path, full: Path, out: Path):
    changed = [*TEXTS[:10], TEXTS[10][:-1] + "7"]
    size = texts.stat().st_size
    write_texts(texts, changed)
    assert texts.stat().st_size == size
    assert [report.rows for report in rerun(work, texts, full, out)] == [11]
    np.testing.assert_allclose(rows(out)[1], by_hand(full, changed), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"output_dtype": "float16"}, {"model_prompt": "query"}, {"output_rows_per_shard": 5}]
)
def test_other_settings_embed_everything_again(
    work: Backfill, texts: Path, full: Path, out: Path, changes: dict[str, object]
):
    metrics = work.run([texts], full, out, **changes)
    assert metrics["texts_encoded"] == 11
    assert rows(out)[0] == [f"t{number}" for number in range(11)]


def test_another_model_embeds_everything_again(work: Backfill, texts: Path, models: Path, out: Path):
    assert work.run([texts], models / "mean", out)["texts_encoded"] == 11
    assert EmbeddingsDataset.open(str(out)).manifest.model == "mean"
    np.testing.assert_allclose(rows(out)[1], by_hand(models / "mean", TEXTS), rtol=0, atol=1e-5)


def test_a_file_that_is_added_leaves_the_earlier_files_whole_shards(
    work: Backfill, tmp_path: Path, full: Path, out: Path
):
    folder = tmp_path / "in"
    write_texts(folder / "a.jsonl", TEXTS[:8], "a")
    work.run([folder], full, out)
    write_texts(folder / "b.jsonl", TEXTS[8:], "b")
    assert [report.rows for report in rerun(work, folder, full, out)] == [3]
    assert rows(out)[0] == [f"a{number}" for number in range(8)] + [f"b{number}" for number in range(3)]


@pytest.mark.parametrize("spelt", ["{0}", "{0}/", "file://{0}", "{0}/../out", "{1}//out", "./out"])
def test_shards_of_a_larger_dataset_go_and_nothing_else(
    work: Backfill, tmp_path: Path, full: Path, out: Path, spelt: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("notes.txt", "part-00009.csv", "part-of-mine.parquet"):
        (out / name).write_text("kept")
    (out / "sub").mkdir()
    (out / "sub" / "part-00007.parquet").write_text("another dataset's")
    monkeypatch.chdir(tmp_path)
    fewer = write_texts(tmp_path / "fewer.jsonl", TEXTS[:3])
    place = spelt.format(out, out.parent)
    tasks = work.plan([fewer], full, place)
    for task in tasks:
        work.embed(task)
    assert (out / SHARDS[2]).exists(), "a stray goes at the end only, so that a failed run loses nothing"
    work.finish()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["manifest.json", "notes.txt", "part-00000.parquet", "part-00009.csv", "part-of-mine.parquet", "sub"]
    )
    assert (out / "sub" / "part-00007.parquet").read_text() == "another dataset's"
    assert rows(place)[0] == ["t0", "t1", "t2"]
