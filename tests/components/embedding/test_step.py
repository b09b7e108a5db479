from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from driftline.components.embedding.backfill.cutting import ROWS_PER_SHARD
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.model import content_revision
from driftline.components.embedding.encoding.settings import Tuning
from driftline.components.embedding.encoding.tuning.tunings import (
    EncoderTunings,
    MeasuredTuning,
    best_device,
    device_name,
    write_tunings,
)
from driftline.components.embedding.step import TaskReport
from driftline.components.errors import DataError, DriftlineError, StorageError, UsageError
from driftline.components.storage.dataset.manifest import Manifest
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.store import exists, join, list_files, read_json, remove, write_bytes
from driftline.components.storage.objects.values import read_value
from tests.components.embedding.backfills import TEXTS, Backfill, contents, one_line, rows
from tests.components.embedding.tiny_models import by_hand
from tests.support.datasets import write_texts


def test_the_dataset_holds_each_text_s_vector(work: Backfill, texts: Path, full: Path, out: Path):
    counts = work.run([texts], full, out)
    ids, vectors = rows(out)
    assert ids == [f"t{number}" for number in range(11)]
    np.testing.assert_allclose(vectors, by_hand(full, TEXTS), rtol=0, atol=1e-5)
    manifest = EmbeddingsDataset.open(str(out)).manifest
    assert (manifest.model, manifest.revision) == ("full", content_revision(full))
    assert (manifest.dimension, manifest.normalized, manifest.dtype) == (8, True, "float32")
    assert [(shard.name, shard.rows) for shard in manifest.shards] == [
        ("part-00000.parquet", 4),
        ("part-00001.parquet", 4),
        ("part-00002.parquet", 3),
    ]
    record = read_json(str(work.folder / "out.json"))
    assert record["uri"] == str(out)
    assert Manifest.from_json(record["manifest"]) == manifest
    assert record["counts"] == counts
    assert counts.pop("task_seconds") > 0
    assert counts.pop("rows_per_second") > 0
    assert counts.pop("tokens") > 11
    assert counts == {
        "texts": 11.0,
        "texts_encoded": 11.0,
        "duplicates": 0.0,
        "truncated": 0.0,
        "null": 0.0,
        "empty": 0.0,
        "whitespace": 0.0,
        "surrogates": 0.0,
        "control": 0.0,
        "outside": 0.0,
        "deleted": 0.0,
        "unknown_tombstones": 0.0,
        "shards": 3.0,
        "dimension": 8.0,
    }


def test_any_number_of_tasks_gives_the_same_bytes(tmp_path: Path, texts: Path, full: Path):
    for tasks in (1, 2, 3):
        Backfill(tmp_path / f"work{tasks}").run([texts], full, tmp_path / f"out{tasks}", embed_tasks=tasks)
    one, two, three = (contents(tmp_path / f"out{tasks}") for tasks in (1, 2, 3))
    assert one.keys() == {"manifest.json", *(f"part-0000{number}.parquet" for number in range(3))}
    assert one == two
    assert one == three
    digests = {EmbeddingsDataset.open(str(tmp_path / f"out{tasks}")).manifest.digest for tasks in (1, 2, 3)}
    assert len(digests) == 1


def test_tasks_share_the_shards_whatever_their_order(work: Backfill, texts: Path, full: Path, out: Path):
    assert work.plan([texts], full, out, embed_tasks=2) == [0, 1]
    reports = {task: work.embed(task) for task in (1, 0)}
    assert [number for number, _ in reports[0].shards] == [0, 2]
    assert [number for number, _ in reports[1].shards] == [1]
    assert (reports[0].rows, reports[1].rows) == (7, 4)
    work.finish()
    assert rows(out)[0] == [f"t{number}" for number in range(11)]


def test_no_more_tasks_are_made_than_there_are_shards(work: Backfill, texts: Path, full: Path, out: Path):
    assert work.plan([texts], full, out, embed_tasks=200) == [0, 1, 2]
    assert work.plan([texts], full, out, embed_tasks=200, output_rows_per_shard=0) == [0]
    assert read_value(work.planned, BackfillPlan).shards[0].texts == 11 < ROWS_PER_SHARD


def test_carried_columns_of_all_files_are_kept(work: Backfill, tmp_path: Path, full: Path, out: Path):
    write_texts(tmp_path / "in" / "a.jsonl", TEXTS[:5], "a", time=[f"2024-01-0{day}" for day in range(1, 6)])
    write_texts(tmp_path / "in" / "b.jsonl", TEXTS[5:], "b", film=[f"film {number}" for number in range(6)])
    work.run([tmp_path / "in"], full, out)
    dataset = EmbeddingsDataset.open(str(out))
    assert dataset.manifest.columns == ("text", "time", "film")
    table = dataset.take([4, 5, 0], ["id", "text", "time", "film"])
    assert table.to_pylist() == [
        {"id": "a4", "text": TEXTS[4], "time": "2024-01-05", "film": None},
        {"id": "b0", "text": TEXTS[5], "time": None, "film": "film 0"},
        {"id": "a0", "text": TEXTS[0], "time": "2024-01-01", "film": None},
    ]
    np.testing.assert_allclose(rows(out)[1], by_hand(full, TEXTS), rtol=0, atol=1e-5)


def test_other_columns_may_hold_the_ids_and_texts(work: Backfill, tmp_path: Path, full: Path, out: Path):
    (tmp_path / "reviews.csv").write_text("number,body\n7,a film\n8,the plot\n")
    work.run([tmp_path / "reviews.csv"], full, out, text_id_column="number", text_column="body")
    assert rows(out)[0] == ["7", "8"]
    table = EmbeddingsDataset.open(str(out)).take([0, 1], ["text"])
    assert table["text"].to_pylist() == ["a film", "the plot"]


def test_float16_vectors_are_the_float32_ones_rounded(work: Backfill, texts: Path, full: Path, tmp_path: Path):
    work.run([texts], full, tmp_path / "single")
    work.run([texts], full, tmp_path / "half", output_dtype="float16")
    half, single = rows(tmp_path / "half")[1], rows(tmp_path / "single")[1]
    np.testing.assert_array_equal(half, single.astype(np.float16).astype(np.float32))
    dataset = EmbeddingsDataset.open(str(tmp_path / "half"))
    assert dataset.manifest.dtype == "float16"
    assert sum(s.rows for s in dataset.manifest.shards) == 11


def test_a_vector_too_large_for_float16_is_refused(work: Backfill, texts: Path, copy: Path, out: Path):
    (copy / "modules.json").write_text(json.dumps(json.loads((copy / "modules.json").read_text())[:3]))
    settings = json.loads((copy / "2_Dense" / "config.json").read_text())
    settings["activation_function"] = "torch.nn.modules.linear.Identity"
    (copy / "2_Dense" / "config.json").write_text(json.dumps(settings))
    weights = load_file(copy / "2_Dense" / "model.safetensors")
    weights["linear.bias"][:] = 1e6
    save_file(weights, copy / "2_Dense" / "model.safetensors")
    work.plan([texts], copy, out, output_dtype="float16")
    with pytest.raises(DataError, match=one_line(out, "as halffloat; check the model and its precision")):
        work.embed(0)
    assert not [info.uri for info in list_files(str(out)) if info.uri.endswith(".parquet")]


def test_a_prompt_is_used_and_ends_up_in_the_revision(work: Backfill, texts: Path, full: Path, out: Path):
    work.run([texts], full, out, model_prompt="query")
    assert EmbeddingsDataset.open(str(out)).manifest.revision == f"{content_revision(full)};prompt=query"
    np.testing.assert_allclose(rows(out)[1], by_hand(full, TEXTS, prompt="query: "), rtol=0, atol=1e-5)


def test_texts_model_and_dataset_may_all_lie_on_gs(work: Backfill, texts: Path, full: Path, out: Path, gcs_bucket: str):
    for path in full.rglob("*"):
        if path.is_file():
            write_bytes(join(gcs_bucket, "full", path.relative_to(full).as_posix()), path.read_bytes())
    write_bytes(join(gcs_bucket, "in", "texts.jsonl"), texts.read_bytes())
    remote = join(gcs_bucket, "out")
    work.run([join(gcs_bucket, "in")], join(gcs_bucket, "full"), remote, embed_tasks=2)
    work.run([texts], full, out)
    assert contents(remote) == contents(out)
    assert work.run([join(gcs_bucket, "in")], join(gcs_bucket, "full"), remote)["texts_encoded"] == 0
    (texts.parent / "fewer.jsonl").write_bytes(b"".join(texts.read_bytes().splitlines(keepends=True)[:5]))
    work.run([texts.parent / "fewer.jsonl"], full, remote)
    assert contents(remote).keys() == {"manifest.json", "part-00000.parquet", "part-00001.parquet"}
    assert rows(remote)[0] == [f"t{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"embed_tasks": -1}, UsageError, "embed_tasks: expected from 1 to 200, got -1"),
        ({"embed_tasks": 201}, UsageError, "embed_tasks: expected from 1 to 200, got 201"),
        ({"output_dtype": "bfloat16"}, UsageError, "output_dtype: expected float32 or float16, got 'bfloat16'"),
        ({"output_rows_per_shard": -1}, UsageError, "output_rows_per_shard: expected 1 or more, got "),
        ({"model_prompt": "passage"}, UsageError, "model_prompt: model "),
    ],
    ids=["negative", "many", "dtype", "rows", "prompt"],
)
def test_bad_settings_are_refused_at_plan_and_leave_an_earlier_dataset_alone(
    work: Backfill,
    texts: Path,
    full: Path,
    out: Path,
    changes: dict[str, object],
    kind: type[DriftlineError],
    message: str,
):
    work.run([texts], full, out)
    before = contents(out)
    with pytest.raises(kind, match=one_line(message)):
        work.plan([texts], full, out, **changes)
    assert contents(out) == before


def test_the_tuning_that_was_measured_is_used(
    work: Backfill, texts: Path, full: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    used: list[Tuning | None] = []
    load = Encoder.load

    def noted(*args: Any, tuning: Tuning | None = None, **settings: Any) -> Encoder:
        used.append(tuning)
        return load(*args, tuning=tuning, **settings)

    monkeypatch.setattr(Encoder, "load", noted)
    best = Tuning(batch_tokens=100)
    entry = MeasuredTuning(device_name(best_device()), content_revision(full), "float32", best, 1.0, 1.0)
    tunings = str(work.folder / "tunings.json")
    write_tunings(tunings, EncoderTunings(entries=(entry,)))
    work.plan([texts], full, out, model_precision="float32", encoder_tunings=tunings)
    work.embed(0)
    (out / "part-00000.parquet").unlink()
    work.plan([texts], full, out, model_precision="float32")
    work.embed(0)
    assert used == [best, Tuning()]


def test_a_file_in_the_dataset_s_place_is_refused(work: Backfill, texts: Path, full: Path, out: Path):
    out.write_text("in the way")
    with pytest.raises(StorageError, match=one_line(out, "a part of the path is a file")):
        work.run([texts], full, out)
    assert out.read_text() == "in the way"


def test_shards_of_a_task_that_has_not_reported_are_missed(work: Backfill, texts: Path, full: Path, out: Path):
    work.plan([texts], full, out, embed_tasks=3)
    for missing in (
        "3 shards are missing, the first is 0",
        "2 shards are missing, the first is 1",
        "1 shards are missing, the first is 2; run the backfill again",
    ):
        with pytest.raises(DataError, match=one_line(out, missing)):
            work.finish()
        assert not exists(join(str(out), "manifest.json"))
        work.embed(3 - int(missing[0]))
    assert work.finish()["texts"] == 11


def test_a_task_tells_the_last_step_what_it_returns(work: Backfill, texts: Path, full: Path, out: Path):
    for task in work.plan([texts], full, out, embed_tasks=3):
        told = work.embed(task)
        assert read_value(work.report_uri(task), TaskReport) == told
        assert work.report_uri(task).startswith(f"{out}/_work/")


def test_a_task_s_shards_are_found_without_its_report(work: Backfill, texts: Path, full: Path, out: Path):
    for task in work.plan([texts], full, out, embed_tasks=3):
        work.embed(task)
    remove(work.report_uri(1))
    assert work.finish()["texts"] == 11
    assert rows(out)[0] == [f"t{number}" for number in range(11)]


@pytest.mark.parametrize("damage", ["gone", "cut", "another's"])
def test_a_task_without_report_whose_shard_is_not_whole_is_missed(
    work: Backfill, texts: Path, full: Path, out: Path, damage: str
):
    for task in work.plan([texts], full, out, embed_tasks=3):
        work.embed(task)
    remove(work.report_uri(1))
    shard = out / "part-00001.parquet"
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-9] if damage == "cut" else (out / "part-00000.parquet").read_bytes())
    with pytest.raises(DataError, match=one_line(out, "1 shards are missing, the first is 1; run the backfill again")):
        work.finish()
    assert not exists(join(str(out), "manifest.json"))


def test_a_shard_that_vanishes_before_the_end_is_missed(work: Backfill, texts: Path, full: Path, out: Path):
    work.plan([texts], full, out)
    work.embed(0)
    (out / "part-00001.parquet").unlink()
    with pytest.raises(DataError, match=one_line(out / "part-00001.parquet", "the shard is missing")):
        work.finish()
    assert not (out / "manifest.json").exists()


def test_a_model_replaced_between_plan_and_embed_is_refused(work: Backfill, texts: Path, copy: Path, out: Path):
    work.plan([texts], copy, out)
    planned = content_revision(copy)
    weights = load_file(copy / "2_Dense" / "model.safetensors")
    weights["linear.bias"] += 1
    save_file(weights, copy / "2_Dense" / "model.safetensors")
    changed = f"it changed from {planned} to {content_revision(copy)} during the run; start the run again"
    with pytest.raises(DataError, match=one_line(f"model {copy}: ", changed)):
        work.embed(0)
    assert list(out.glob("*.*")) == []


def test_texts_replaced_between_plan_and_embed_are_refused(work: Backfill, texts: Path, full: Path, out: Path):
    work.plan([texts], full, out)
    write_texts(texts, [*TEXTS, "one more"])
    with pytest.raises(DataError, match=one_line(texts, "has changed since it was scanned")):
        work.embed(0)
    assert not list_files(str(out))


def test_a_step_s_line_in_the_log_says_what_went_wrong(
    work: Backfill, texts: Path, full: Path, out: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", logger="driftline"):
        work.plan([texts], full, out, embed_tasks=2)
        work.embed(1)
        with pytest.raises(DataError):
            work.finish()
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "driftline"]
    assert [(line["driftline"], line["step"], line["task"], line["tasks"]) for line in lines] == [
        ("start", "plan", 0, 1),
        ("progress", "plan", 0, 1),
        ("done", "plan", 0, 1),
        ("start", "embed", 1, 2),
        ("done", "embed", 1, 2),
        ("start", "finish", 0, 1),
        ("failed", "finish", 0, 1),
    ]
    assert "2 shards are missing" in lines[-1]["error"]


def test_the_shards_carry_vectors_of_the_stated_type(work: Backfill, texts: Path, full: Path, out: Path):
    work.run([texts], full, out, output_dtype="float16")
    table = pq.read_table(out / "part-00000.parquet")
    kind = table.schema.field("embedding").type
    assert (kind.list_size, kind.value_type) == (8, pa.float16())
    assert table.column_names == ["id", "embedding", "text"]


def test_the_plan_says_how_long_it_took(work: Backfill, texts: Path, full: Path, out: Path):
    work.plan([texts], full, out)
    assert 0 < read_value(work.planned, BackfillPlan).seconds < 60
