"""What Kubeflow shows of a backfill: ten numbers at most, by names that sort well, and whole in its store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.embedding.backfill.plan import BackfillPlan, Previous
from driftline.components.embedding.backfill.reports import Encoded, ShardReport, TaskReport, counted, metrics
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.objects.store import FileInfo, read_json
from driftline.components.storage.texts.reading import TextSource
from driftline.components.storage.texts.rules import TextCounts
from driftline.components.storage.texts.selection import TextSelection
from tests.components.embedding.backfills import TEXTS, Backfill
from tests.support.datasets import write_texts
from tests.support.kfp_local import run_locally

ROWS = 10
"""Of a page of the UI's metrics."""

DECIMALS = 6
"""That its metadata store keeps."""

SHOWN = [
    "Status", "cost_per_million_texts", "deleted", "left_out", "shards", "texts", "texts_embedded", "texts_per_second",
    "tokens", "truncated",
]  # fmt: skip
"""In the UI's order, which is that of ASCII."""


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Eight texts, of which three are left out, and one of another day."""
    texts = [None, "", " ", "bell \u0007", "good", "good", "fair", "long " * 90, "another day's"]
    rows = [
        {"id": f"t{number}", "text": text, "time": "2026-11-29" if number < 8 else "2026-11-30"}
        for number, text in enumerate(texts)
    ]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "mixed.jsonl"


def test_a_run_s_metrics(work: Backfill, mixed: Path, full: Path, out: Path):
    for task in work.plan([mixed], full, out, window_until="2026-11-30", hourly_price=2.0, output_rows_per_shard=3):
        work.embed(task)
    done = work.finished()
    assert sorted(done.metrics) == SHOWN
    found = dict(done.metrics)
    assert [found.pop(name) > 0 for name in ("cost_per_million_texts", "texts_per_second", "tokens")] == [True] * 3  # pyright: ignore
    # The row of another day is outside of the selection: nothing that was asked for is missing.
    assert found == {
        "Status": "embedded", "deleted": 0, "left_out": 3, "shards": 2, "texts": 5, "texts_embedded": 5, "truncated": 1,
    }  # fmt: skip
    counts = read_json(str(work.folder / "out.json"))["counts"]
    assert counts == done.counts
    assert [counts[name] for name in ("null", "empty", "whitespace", "outside", "control", "duplicates")] == [1] * 6


def test_null_texts_that_delete_are_not_left_out(work: Backfill, tmp_path: Path, mixed: Path, full: Path, out: Path):
    work.run([write_texts(tmp_path / "before.jsonl", TEXTS, time=["2026-11-28"] * 11)], full, out)
    work.plan([mixed], full, out, output_incremental=True, window_until="2026-11-30")
    work.embed(0)
    done = work.finished()
    assert done.counts["null"] == 1
    shown = {name: done.metrics[name] for name in ("texts", "texts_embedded", "deleted", "left_out")}
    # t0 is deleted; t3 to t7 changed; t1 and t2, empty and blank, stay as they were.
    assert shown == {"texts": 10, "texts_embedded": 5, "deleted": 6, "left_out": 2}


def test_without_a_price_there_is_no_cost_and_without_work_no_rate(work: Backfill, texts: Path, full: Path, out: Path):
    work.plan([texts], full, out)
    work.embed(0)
    assert sorted(work.finished().metrics) == [name for name in SHOWN if name != "cost_per_million_texts"]
    work.plan([texts], full, out, hourly_price=1.0)
    work.embed(0)
    again = work.finished().metrics
    assert sorted(again) == [name for name in SHOWN if name not in ("cost_per_million_texts", "texts_per_second")]
    assert (again["texts"], again["texts_embedded"], again["tokens"]) == (11, 0, 0)


def test_a_skipped_run_says_so_in_a_word(work: Backfill, mixed: Path, full: Path, out: Path):
    work.plan([mixed], full, out, window_since="2026-12-24")
    done = work.finished()
    assert (done.status, done.metrics) == ("skipped", {"Status": "skipped"})


numbers = st.integers(0, 10**9)


@given(
    counts=st.builds(TextCounts, *[numbers] * 6),
    encoded=st.builds(Encoded, numbers, numbers, numbers, numbers),
    rows=numbers,
    seconds=st.floats(0, 1e7),
    price=st.floats(0.01, 1e4) | st.just(0.0),
    changes=st.none() | st.tuples(numbers, numbers, numbers),
)
def test_any_run_s_metrics_fit_on_a_page_and_keep_their_meaning(
    counts: TextCounts,
    encoded: Encoded,
    rows: int,
    seconds: float,
    price: float,
    changes: tuple[int, int, int] | None,
):
    shard = Shard("part-00000.parquet", 1, 2, "c")
    manifest = Manifest("tiny", "r", 3, normalized=True, dtype="float32", columns=("text",), shards=(shard,))
    previous = None
    if changes is not None:
        previous = Previous(manifest, FileInfo("/data/out/manifest.json", 12, None, "v1"), None, *changes)
    source = TextSource("/data/a.jsonl", "jsonl", 1, 1, "AAAAAA==", (), (), counts)
    known = BackfillPlan(
        BackfillSettings(hourly_price=price), "/data/out", "m", "tiny", "r", TextSelection(), (source,),
        previous=previous,
    )  # fmt: skip
    report = TaskReport(((0, ShardReport(shard, 3, True, encoded)),), rows, seconds)
    all_numbers = counted(known, manifest, [report])
    shown = metrics(known, all_numbers)
    assert len(shown) <= ROWS
    assert set(shown) <= set(SHOWN)
    assert min(shown) == "Status", "it comes first"
    for name, value in shown.items():
        if isinstance(value, float):
            kept = round(value, DECIMALS)
            measured = {"texts_per_second": "rows_per_second"}.get(name, name)
            exact = all_numbers.get(measured, value)
            if exact >= 1e-3:  # a rate or a price below is none that anybody runs
                assert kept == pytest.approx(exact, rel=1e-3), name
    left_out = counts.empty + counts.whitespace + (0 if previous else counts.null)
    assert (shown["left_out"], shown["texts"]) == (left_out, 1)


@pytest.mark.slow
def test_the_pipeline_with_every_box_cleared(tmp_path: Path, mixed: Path, full: Path):
    """By KFP's local runner, as a form sends it: what is cleared arrives as an empty text."""
    code = """
from driftline.pipelines.backfill import backfill_pipeline
from driftline.pipelines.profile import LOCAL
made = backfill_pipeline(LOCAL)
"""
    cleared = {
        field.name: ""
        for field in dataclasses.fields(BackfillSettings)
        if isinstance(field.default, str) and field.name not in ("model_cache", "encoder_tunings")
    }
    places: dict[str, Any] = {"text_files": [str(mixed)], "model": str(full), "output_folder": str(tmp_path / "out")}
    run = run_locally(code, tmp_path / "run", **places, **cleared, embed_tasks=0)
    assert run.succeeded, run.log
    assert {name: run.outputs[name] for name in ("uri", "rows", "status")} == {
        "uri": str(tmp_path / "out"), "rows": 6, "status": "embedded",
    }  # fmt: skip
    [put_out] = (tmp_path / "run").glob("a/*/finish-backfill/executor_output.json")
    artifacts = json.loads(put_out.read_text())["artifacts"]
    assert artifacts.keys() == {"embeddings_dataset", "backfill_metrics"}
    shown = artifacts["backfill_metrics"]["artifacts"][0]["metadata"]
    assert sorted(shown) == [name for name in SHOWN if name != "cost_per_million_texts"]
    assert (shown["Status"], shown["texts"], shown["left_out"]) == ("embedded", 6, 3)
    record = read_json(run.outputs["embeddings_dataset"]["uri"])
    assert record["uri"] == str(tmp_path / "out")
    assert record["counts"]["duplicates"] == 1
