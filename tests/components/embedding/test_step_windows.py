"""Backfills of a window of time: what it becomes, and what becomes of a run whose window holds no text."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.components.embedding import step
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.errors import DataError, UsageError
from driftline.components.steps import Skipped
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.store import exists, join, read_bytes, read_json, write_bytes
from driftline.components.storage.objects.values import read_value
from tests.components.embedding.backfills import TEXTS, Backfill, contents, one_line, rows
from tests.support.command import listing
from tests.support.datasets import write_texts

AS_OF = "2026-11-30T06:00:00Z"
TIMES = [f"2026-11-{day}T{hour:02d}:30:00Z" for day, hour in ((28, 23), (29, 0), (29, 12), (29, 23), (30, 0), (30, 5))]


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """Six texts of three days."""
    return write_texts(tmp_path / "dated.jsonl", TEXTS[:6], time=TIMES)


@pytest.mark.parametrize(
    ("window", "as_of", "taken"),
    [
        ({"window_since": "-1d", "window_until": "today"}, AS_OF, ["t1", "t2", "t3"]),
        ({"window_since": "yesterday", "window_until": "today"}, "2026-11-30", ["t1", "t2", "t3"]),
        ({"window_since": "-1d", "window_until": "today"}, "2026-12-01T00:00:01Z", ["t4", "t5"]),
        ({"window_since": "-1d", "window_until": "today"}, "2026-11-30T23:59:59-05:00", ["t4", "t5"]),
        ({"window_since": "-7h"}, AS_OF, ["t3", "t4", "t5"]),
        ({"window_until": "yesterday"}, AS_OF, ["t0"]),
        ({"window_since": "2026-11-29", "window_until": "-6h"}, AS_OF, ["t1", "t2", "t3"]),
    ],
)
def test_bounds_are_relative_to_as_of(
    work: Backfill, dated: Path, full: Path, out: Path, window: dict[str, str], as_of: str, taken: list[str]
):
    metrics = work.run([dated], full, out, window_as_of=as_of, **window)
    assert rows(out)[0] == taken
    assert (metrics["texts"], metrics["outside"]) == (len(taken), 6 - len(taken))


def test_without_as_of_it_is_now(work: Backfill, dated: Path, full: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC).astimezone(tz)

    monkeypatch.setattr(step, "datetime", Clock)
    work.run([dated], full, out, window_since="-1d", window_until="today")
    assert rows(out)[0] == ["t4", "t5"]


def test_the_log_says_what_the_window_became(
    work: Backfill, dated: Path, full: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", logger="driftline"):
        work.plan([dated], full, f"{tmp_path}/{{date}}", window_as_of=AS_OF, window_since="-1d", window_until="today")
    said = [json.loads(record.getMessage()) for record in caplog.records if record.name == "driftline"][1]
    assert {name: said[name] for name in ("out", "since", "until", "as_of")} == {
        "out": str(tmp_path / "2026-11-30"),
        "since": "2026-11-29T00:00:00Z",
        "until": "2026-11-30T00:00:00Z",
        "as_of": "2026-11-30T06:00:00+00:00",
    }


def test_a_late_run_keeps_the_shards_of_the_one_that_was_in_time(
    work: Backfill, dated: Path, full: Path, out: Path, tmp_path: Path
):
    work.run([dated], full, out, window_as_of="2026-11-30T00:00:01Z", window_since="-1d", window_until="today")
    before = contents(out)
    late = Backfill(tmp_path / "late")
    assert (
        late.run([dated], full, out, window_as_of="2026-11-30T23:59:00Z", window_since="-1d", window_until="today")[
            "texts_encoded"
        ]
        == 0
    )
    assert contents(out) == before


# Windows without any text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("place", ["local", "gs"])
def test_an_empty_window_is_skipped_and_leaves_the_dataset_as_it_was(
    work: Backfill,
    dated: Path,
    full: Path,
    tmp_path: Path,
    incremental: bool,
    place: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
):
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path)
    texts, out = join(base, "texts", "dated.jsonl"), join(base, "out")
    write_bytes(texts, dated.read_bytes())
    work.run([texts], full, out)
    before = contents(out)
    empty = write_texts(tmp_path / "empty" / "none.jsonl", [])
    write_bytes(join(base, "texts", "dated.jsonl"), empty.read_bytes())
    quiet = Backfill(tmp_path / "quiet")
    with caplog.at_level("INFO", logger="driftline"):
        tasks = quiet.plan(
            [texts],
            full,
            out,
            window_as_of=AS_OF,
            window_since="-1d",
            window_until="today",
            output_incremental=incremental,
            embed_tasks=3,
        )
        assert tasks == [0], "a loop of no task is one that Kubeflow cannot run"
        step.embed(planned=quiet.planned, share={"task": 0, "tasks": 1})
        done = quiet.finished()
    assert done == step.Finished(out, 0, "skipped", {"texts": 0.0}, {"Status": "skipped"})
    assert contents(out) == before
    why = read_json(quiet.planned)["driftline.skipped"]
    assert why == f"{texts}: there are no rows; give at least one text"
    assert read_json(str(quiet.folder / "out.json")) == {"uri": out, "skipped": why}
    said = [json.loads(record.getMessage()) for record in caplog.records if record.name == "driftline"]
    assert {line["step"] for line in said if line.get("skipped") == why} == {"plan", "embed", "finish"}


def test_a_window_that_leaves_all_texts_out_is_skipped(work: Backfill, dated: Path, full: Path, out: Path):
    work.run([dated], full, out)
    before = contents(out)
    assert work.plan([dated], full, out, window_as_of="2026-12-25", window_since="-1d") == [0]
    work.folder.joinpath("out.json").unlink()
    assert work.finished().status == "skipped"
    assert contents(out) == before


def test_an_empty_window_of_a_dataset_that_is_not_there_makes_none(work: Backfill, dated: Path, full: Path, out: Path):
    work.plan([dated], full, out, window_as_of="2026-12-25", window_since="-1d")
    assert work.finished().status == "skipped"
    assert not out.exists()


def test_an_empty_window_is_refused_where_the_run_is_told_to(work: Backfill, dated: Path, full: Path, out: Path):
    work.run([dated], full, out)
    before = contents(out)
    with pytest.raises(DataError, match=one_line(dated, "none of the 6 rows holds a text to embed")):
        work.plan([dated], full, out, window_as_of="2026-12-25", window_since="-1d", window_when_empty="refuse")
    assert contents(out) == before


@pytest.mark.parametrize("texts", [[], ["", " "]], ids=["no-rows", "blank"])
def test_without_a_window_empty_input_is_refused_as_ever(
    work: Backfill, tmp_path: Path, full: Path, out: Path, texts: list[str]
):
    path = write_texts(tmp_path / "texts.jsonl", texts)
    with pytest.raises(DataError, match=one_line(path, "there are no rows" if not texts else "none of the 2 rows")):
        work.plan([path], full, out)
    with pytest.raises(DataError, match=one_line(tmp_path / "nowhere", "there is no such file")):
        work.plan([tmp_path / "nowhere"], full, out, window_since="-1d")
    assert not Path(work.planned).exists()
    assert not out.exists()


def test_an_incremental_run_with_tombstones_alone_in_its_window_deletes(
    work: Backfill, dated: Path, full: Path, out: Path
):
    work.run([dated], full, out)
    gone = [{"id": "t1", "text": None, "time": TIMES[1]}, {"id": "t5", "text": None, "time": "2026-11-01T00:00:00Z"}]
    dated.write_text("".join(json.dumps(record) + "\n" for record in gone))
    metrics = work.run(
        [dated], full, out, output_incremental=True, window_as_of=AS_OF, window_since="-1d", window_until="today"
    )
    assert rows(out)[0] == ["t0", "t2", "t3", "t4", "t5"]
    assert (metrics["deleted"], metrics["texts_encoded"], metrics["texts"]) == (1, 0, 5)
    finished = work.finished()
    assert (finished.status, finished.rows) == ("embedded", 5)


@pytest.mark.parametrize("value", ["ignore", "compare"])
def test_another_outcome_of_an_empty_window_is_refused_before_anything_is_read(
    work: Backfill, tmp_path: Path, value: str
):
    expected = one_line(f"window_when_empty: expected skip or refuse, got {value!r}")
    with pytest.raises(UsageError, match=expected):
        work.plan([tmp_path / "nowhere"], tmp_path / "no-model", tmp_path / "out", window_when_empty=value)


# Folders by day ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "gs"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, dated: Path) -> str:
    """Texts in folders by day, of which the 28th is missing."""
    base = request.getfixturevalue("gcs_bucket") if request.param == "gs" else str(tmp_path / "lake")
    for day, number in ((27, 0), (29, 1)):
        lines = dated.read_bytes().splitlines(keepends=True)[3 * number : 3 * number + 3]
        write_bytes(join(base, "texts", f"date=2026-11-{day}", "part.jsonl"), b"".join(lines))
    return base


def test_texts_and_dataset_of_yesterday(work: Backfill, lake: str, full: Path):
    texts, out = f"{lake}/texts/date=yesterday", f"{lake}/embeddings/date=yesterday"
    work.run([texts], full, out, window_as_of=AS_OF)
    assert work.finished().uri == f"{lake}/embeddings/date=2026-11-29"
    assert rows(f"{lake}/embeddings/date=2026-11-29")[0] == ["t3", "t4", "t5"]
    # Without a time column's help: the folder's name is the window.
    assert read_value(work.planned, BackfillPlan).selection.timed is False


def test_an_out_by_day_and_run(work: Backfill, lake: str, full: Path):
    out = f"{lake}/{{date}}T{{hour}}/{{run}}"
    work.run([f"{lake}/texts/date=-3d/*.jsonl"], full, out, window_as_of=AS_OF, job="nightly.3")
    finished = work.finished()
    assert (finished.uri, finished.rows) == (f"{lake}/2026-11-30T06/nightly.3", 3)
    assert EmbeddingsDataset.open(finished.uri).rows == 3


def test_a_day_without_texts_is_skipped_and_a_misspelt_folder_is_not(work: Backfill, lake: str, full: Path):
    out = f"{lake}/embeddings/date=-2d"
    assert work.plan([f"{lake}/texts/date=-2d"], full, out, window_as_of=AS_OF) == [0]
    finished = work.finished()
    assert (finished.uri, finished.rows, finished.status) == (f"{lake}/embeddings/date=2026-11-28", 0, "skipped")
    assert not exists(f"{lake}/embeddings")
    with pytest.raises(DataError, match=one_line(f"{lake}/texts/date=2026-11-28", "there is no such file")):
        work.plan([f"{lake}/texts/date=-2d"], full, out, window_as_of=AS_OF, window_when_empty="refuse")
    for misspelt in ("text/date=yesterday", "texts/dates=yesterday", "text/date=2026-11-29"):
        with pytest.raises(DataError, match=rf"\A{re.escape(lake)}/text[^\n]+check the path\Z"):
            work.plan([f"{lake}/{misspelt}"], full, out, window_as_of=AS_OF)


def test_a_quiet_day_of_one_folder_leaves_the_others_texts(work: Backfill, lake: str, full: Path):
    inputs, out = [f"{lake}/texts/date=-2d", f"{lake}/texts/date=yesterday"], f"{lake}/out"
    work.run(inputs, full, out, window_as_of=AS_OF)
    assert rows(out)[0] == ["t3", "t4", "t5"]
    with pytest.raises(DataError, match=one_line(f"{lake}/texts/date=2026-11-28", "there is no such file")):
        work.plan(inputs, full, out, window_as_of=AS_OF, window_when_empty="refuse")


@pytest.mark.parametrize("day", ["yesterday", "-2d"])
def test_a_misspelt_file_beside_a_day_s_folder_is_refused(work: Backfill, lake: str, full: Path, day: str):
    inputs = [f"{lake}/misspelt.jsonl", f"{lake}/texts/date={day}"]
    with pytest.raises(DataError, match=one_line(f"{lake}/misspelt.jsonl", "check the path")):
        work.plan(inputs, full, f"{lake}/out", window_as_of=AS_OF)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": "{lake}/texts/date=-7d..-1d"}, "text_files "),
        ({"out": "{lake}/out/date=-7d..-1d"}, "output_folder "),
        ({"out": "{lake}/out/{{day}}"}, "output_folder "),
        ({"out": "{lake}/out/{{run}}"}, "output_folder "),
        ({"window_since": "tomorrow"}, "window_since "),
        ({"window_until": "-1w"}, "window_until "),
        ({"window_as_of": "now"}, "window_as_of "),
        ({"embed_tasks": 8.5}, "embed_tasks: expected a whole number, got 8.5"),
        ({"embed_tasks": 201}, "embed_tasks: expected from 1 to 200, got 201"),
        ({"output_rows_per_shard": 2.5}, "output_rows_per_shard: expected a whole number, got 2.5"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    work: Backfill, tmp_path: Path, full: Path, changes: dict[str, Any], message: str
):
    lake = str(tmp_path)
    settings = {name: value.format(lake=lake) if isinstance(value, str) else value for name, value in changes.items()}
    given = settings.pop("inputs", f"{lake}/nowhere.jsonl")
    out = settings.pop("out", f"{lake}/out")
    with pytest.raises(UsageError, match=one_line(message)):
        work.plan([given], full, out, **({"window_as_of": AS_OF} | settings))
    assert listing(tmp_path) == ["work"]


# A last step that is tried again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local", "gs"])
@pytest.mark.parametrize("incremental", [False, True])
def test_the_last_step_tells_the_same_after_its_own_clean_up(
    work: Backfill,
    texts: Path,
    full: Path,
    tmp_path: Path,
    incremental: bool,
    place: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    out = join(request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path), "out")
    if incremental:
        work.run([write_texts(tmp_path / "before.jsonl", TEXTS[:5])], full, out)
    for task in work.plan([texts], full, out, embed_tasks=3, output_incremental=incremental):
        work.embed(task)
    first = work.finished()
    before, told = contents(out), read_json(str(work.folder / "out.json"))
    assert not [name for name in before if name.endswith(".json") and name != "manifest.json"]
    (work.folder / "out.json").unlink()

    def refused(*_: object, **__: object) -> Encoder:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Encoder, "load", refused)
    again = work.finished()
    assert (again.uri, again.rows, again.status) == (first.uri, first.rows, first.status) == (out, 11, "embedded")
    assert contents(out) == before
    # What it took to make the shards is told once: the tasks' reports went with the working files.
    assert read_json(str(work.folder / "out.json")) | {"counts": told["counts"]} == told


def test_a_skipped_plan_is_no_plan(work: Backfill, dated: Path, full: Path, out: Path):
    work.plan([dated], full, out, window_as_of="2026-12-25", window_since="-1d")
    with pytest.raises(Skipped, match="none of the 6 rows holds a text to embed"):
        read_value(work.planned, BackfillPlan)
    assert json.loads(read_bytes(work.planned))["out"] == str(out)
