from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.cutting import ROWS_PER_SHARD
from driftline.components.embedding.backfill.settings import IN_PIPELINES, BackfillSettings
from driftline.components.errors import StorageError, UsageError
from driftline.components.mmd.result import DriftResult
from driftline.components.storage.objects.store import read_json
from driftline.pipelines import runs
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.local import PipelineFailed
from driftline.pipelines.profile import Profile
from driftline.pipelines.runs import absolute, run_drift
from tests.support.command import listing
from tests.support.datasets import write_embeddings
from tests.support.ir_lint import documents
from tests.support.steps import pipeline_in_process

SETTINGS = DriftSettings(pca_components=3, test_permutations=99)


@pytest.fixture
def datasets(tmp_path, monkeypatch) -> tuple[str, str]:
    monkeypatch.setattr(runs, "run_pipeline", pipeline_in_process(tmp_path / "artifacts"))
    rng = np.random.default_rng(0)
    reference = write_embeddings(str(tmp_path / "x"), rng.normal(size=(60, 5)).astype(np.float32))
    return reference, write_embeddings(str(tmp_path / "y"), rng.normal(3.0, 1.0, size=(50, 5)).astype(np.float32))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("data/x", "{here}/data/x"),
        ("./x/", "{here}/x"),
        ("texts/*.csv", "{here}/texts/*.csv"),
        ("/data/x", "/data/x"),
        ("file:///data/a%20b", "/data/a b"),
        ("gs://bucket/x", "gs://bucket/x"),
        ("gs://bucket", "gs://bucket"),
    ],
)
def test_absolute(uri, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute(uri) == expected.replace("{here}", str(tmp_path))


@pytest.mark.parametrize("uri", ["", "s3://bucket/x", "gs://", "gs:///x", "gs://a b/x", "file://host/x", "a\0b"])
def test_absolute_refuses_what_names_nothing(uri):
    with pytest.raises(UsageError, match=r"; give |: give |holds"):
        absolute(uri)


def test_result_is_that_of_the_output_folder(datasets, tmp_path):
    out = tmp_path / "out"
    result = run_drift(*datasets, str(out), SETTINGS)
    assert result.drift
    assert result == DriftResult.from_json(read_json(str(out / "result.json")))
    assert sorted(path.name for path in out.iterdir()) == [
        *("history", "report.html", "result.json", "run.log", "witness.parquet")
    ]


def test_what_else_lies_in_the_output_folder_stays(datasets, tmp_path):
    out = tmp_path / "out"
    for name in ("work/mine.txt", "notes/mine.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    run_drift(*datasets, str(out), SETTINGS)
    assert (out / "work" / "mine.txt").read_text() == (out / "notes" / "mine.txt").read_text() == "mine"
    assert listing(out / "work") == ["mine.txt"]


def test_a_second_run_leaves_the_first_one_s_report_and_log_alone(datasets, tmp_path):
    out = tmp_path / "out"
    first = run_drift(*datasets, str(out), SETTINGS)
    names = ("report.html", "result.json", "run.log", "witness.parquet")
    (out / "run.log").write_text("what the first run said")
    before = {name: (out / name).read_bytes() for name in names}
    second = run_drift(*datasets, str(out), SETTINGS)
    assert {name: (out / name).read_bytes() for name in names} == before
    own = Path(second.report_uri).parent
    assert own.parent == out
    assert (first.run, second.run[:8]) == (read_json(str(out / "result.json"))["run"], own.name.partition("-")[2])
    assert listing(own) == sorted(names)
    assert len(listing(out / "history")) == 2
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, own.name, "history"])


def test_a_run_that_fails_beside_a_report_logs_to_a_file_of_its_own(datasets, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_drift(*datasets, str(out), SETTINGS)
    (out / "run.log").write_text("what the first run said")

    def break_down(**_) -> None:
        raise StorageError("the disk: broke")

    monkeypatch.setattr("tests.support.steps.mmd.test", break_down)
    for failures in (1, 2):
        with pytest.raises(PipelineFailed, match="the disk: broke"):
            run_drift(*datasets, str(out), SETTINGS)
        assert (out / "run.log").read_text() == "what the first run said"
        assert len([name for name in listing(out) if re.fullmatch(r"run-[0-9a-f]{8}\.log", name)]) == failures


def test_a_result_of_something_else_in_the_output_folder_stays(datasets, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("result.json", "run.log"):
        (out / name).write_text("mine")
    result = run_drift(*datasets, str(out), SETTINGS)
    assert (out / "result.json").read_text() == (out / "run.log").read_text() == "mine"
    assert Path(result.report_uri).parent.parent == out


def test_working_files_go_when_a_later_task_fails(datasets, tmp_path, monkeypatch):
    out = tmp_path / "out"
    seen: list[list[str]] = []

    def break_down(**_) -> None:
        seen.append(listing(out / "work"))
        raise StorageError("the disk: broke")

    monkeypatch.setattr("tests.support.steps.mmd.test", break_down)
    with pytest.raises(PipelineFailed, match="the disk: broke"):
        run_drift(*datasets, str(out), SETTINGS)
    assert [re.sub(r"[0-9a-f]{16}-", "", name.partition("/")[2]) for name in seen[0]] == [
        *("", "manifest.json", "part-00000.parquet", "part-00001.parquet"),
        *("sums", "sums/00000.npz", "sums/00001.npz", "sums/00002.npz"),
    ]
    assert listing(out) == ["run.log"]


def test_working_files_of_another_run_into_the_same_folder_stay(datasets, tmp_path, monkeypatch):
    out = tmp_path / "out"
    other = write_embeddings(str(out / "work" / "another-run"), np.eye(4, dtype=np.float32))
    run_drift(*datasets, str(out), SETTINGS)
    assert {name.partition("/")[0] for name in listing(out / "work")} == {"another-run"}
    assert Path(other, "manifest.json").exists()


def test_temporary_files_go(datasets, tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    run_drift(*datasets, str(tmp_path / "out"), SETTINGS)
    assert listing(temporary) == []


def parameters(name: str) -> dict:
    spec, _ = documents(compile_pipeline(name, Profile()))
    return spec["root"]["inputDefinitions"]["parameters"]


def test_settings_are_the_pipelines_parameters():
    declared = parameters("drift")
    ours = DriftSettings()
    names = {field.name for field in fields(ours)}
    notified = {"notify_url", "fail_on_drift"}  # behind the report
    assert declared.keys() == names | {"reference", "current", "output_folder"} | notified
    assert {name for name in names if declared[name]["defaultValue"] != getattr(ours, name)} == set()


def test_backfill_settings_are_the_pipelines_parameters_and_the_command_s_options():
    ours = BackfillSettings()
    expected = {field.name: getattr(ours, field.name) for field in fields(ours)}
    of_the_cluster = {"encoder_tunings", "hourly_price", "model_cache"}  # a profile says them
    of_the_component = {"model_segment_overlap", "output_rows_per_shard"}  # nobody would turn them in a form
    declared = {name: value.get("defaultValue") for name, value in parameters("backfill").items()}
    in_form = expected.keys() - of_the_cluster - of_the_component
    assert declared.keys() == in_form | {"text_files", "model", "output_folder"}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in expected.items()}
    assert {name: declared[name] for name in in_form} == {name: plain[name] for name in in_form}

    from driftline.pipelines.commands.embed import embed

    typed = embed.make_context("embed", ["texts.csv", "--model", "m", "--out", "o"]).params
    options = {IN_PIPELINES.get(name, name): value for name, value in typed.items()}
    # All is one task on this machine.
    assert options.keys() - {"inputs", "model", "output_folder", "as_json"} == expected.keys() - {"embed_tasks"}
    assert options["output_rows_per_shard"] == ROWS_PER_SHARD
    for name in expected.keys() - {"encoder_tunings", "model_cache", "embed_tasks"}:
        assert (options[name] or expected[name]) == expected[name], name
    assert "title" in inspect.signature(runs.run_embed).parameters
