"""Driftline's pipelines on the backend: to the end, as a run on this machine, whatever pods are lost on the way."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest

from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.storage.history import read_history
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.profile import Profile
from driftline.pipelines.runs import DriftSettings, EmbedSettings, run_drift, run_embed
from tests.backend import toys
from tests.backend.argo_rules import Phase
from tests.backend.release import Backend, Run
from tests.components.embedding.tiny_models import save_model
from tests.support.command import listing
from tests.support.datasets import write_embeddings, write_texts

pytestmark = pytest.mark.slow

TASKS: Final = 3
SETTINGS: Final = DriftSettings(components=3, permutations=99, tasks=2)  # of the local run, shared out otherwise
OF_THE_RUN: Final = ("created", "run", "job", "as_of", "report_uri", "steps")  # what two runs' results may differ in

# A python3 that loses the first pod of every step, after its work was done and before anybody was told.
LOSING_PYTHON: Final = """#!/bin/sh
"{python}" "$@"
status=$?
step=
for word in "$@"; do
    if [ "$step" = next ]; then step=$word; break; fi
    if [ "$word" = --function_to_execute ]; then step=next; fi
done
if [ -n "$step" ] && mkdir "{lost}/$step" 2>/dev/null; then exit 137; fi
exit "$status"
"""


class Drift(NamedTuple):
    """Inputs of drift, and what a local run made of them."""

    reference: str
    current: str
    out: Path

    def parameters(self, out: Path | str, **changes: Any) -> dict[str, Any]:
        """Return a run's parameters, the local run's but for the number of tasks."""
        same = {"components": SETTINGS.components, "permutations": SETTINGS.permutations, "tasks": TASKS}
        return {"reference": self.reference, "current": self.current, "out": str(out), **same, **changes}

    def agrees_with(self, out: Path) -> None:
        """Compare a run's output with that of the local run."""
        found, expected = (json.loads((folder / "result.json").read_text()) for folder in (out, self.out))
        assert {name: value for name, value in found.items() if name not in OF_THE_RUN} == {
            name: value for name, value in expected.items() if name not in OF_THE_RUN
        }
        steps = [[step["name"] for step in result["steps"]] for result in (found, expected)]
        assert steps[0] == steps[1]
        assert (out / "witness.parquet").read_bytes() == (self.out / "witness.parquet").read_bytes()
        assert "<html" in (out / "report.html").read_text()


@pytest.fixture(scope="module")
def drift(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Drift:
    folder = tmp_path_factory.mktemp("drift")
    rng = np.random.default_rng(0)
    sides = {
        name: write_embeddings(
            str(folder / name),
            rng.normal(mean, 1.0, size=(rows, 5)).astype(np.float32),
            texts=[f"{name} text {row}" for row in range(rows)],
        )
        for name, mean, rows in (("reference", 0.0, 60), ("current", 1.0, 50))
    }
    out = folder / "out"
    run_drift(sides["reference"], sides["current"], str(out), SETTINGS)
    return Drift(sides["reference"], sides["current"], out)


@pytest.fixture(scope="module")
def drift_yaml() -> str:
    return compile_pipeline("drift", Profile())


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A folder of tools for the pods, whose python3 loses the first pod of every step."""
    tools, marks = tmp_path / "tools", tmp_path / "lost"
    tools.mkdir()
    marks.mkdir()
    script = tools / "python3"
    script.write_text(LOSING_PYTHON.format(python=sys.prefix + "/bin/python3", lost=marks))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return tools


def attempts(run: Run) -> dict[str, list[int]]:
    """Return the number of attempts of every task's containers, by the task."""
    found: dict[str, list[int]] = {}
    for node in run.containers():
        if node.name == "executor":
            found.setdefault(node.path.split("/")[-2], []).append(len(node.attempts))
    return {name: sorted(numbers) for name, numbers in found.items()}


def test_drift_is_as_on_this_machine(backend: Backend, drift: Drift, drift_yaml: str, tmp_path: Path) -> None:
    run = backend.succeed(drift_yaml, drift.parameters(tmp_path / "out"), reverse=True)
    drift.agrees_with(tmp_path / "out")
    assert attempts(run)["kernel-sums"] == [1] * TASKS
    [record] = read_history(str(tmp_path / "out" / "history"))
    assert (record["job"], record["status"], record["drift"]) == (run.id, "compared", True)
    assert record["report_uri"] == str(tmp_path / "out" / "report.html")
    assert not (tmp_path / "out" / "work").exists() or not listing(tmp_path / "out" / "work")


def test_drift_is_the_same_when_every_step_loses_a_pod_after_its_work(
    backend: Backend, drift: Drift, drift_yaml: str, lost: Path, tmp_path: Path
) -> None:
    run = backend.succeed(drift_yaml, drift.parameters(tmp_path / "out"), tools=lost)
    drift.agrees_with(tmp_path / "out")
    tried = attempts(run)
    assert tried.pop("kernel-sums") == [1, 1, 2]
    assert tried == {step: [2] for step in ("sample", "fit", "project", "plan", "mmd-test", "report")}
    assert len(read_history(str(tmp_path / "out" / "history"))) == 1
    assert len([name for name in listing(tmp_path / "out") if name.endswith("report.html")]) == 1


def test_a_gate_behind_drift_opens_with_its_verdict(backend: Backend, drift: Drift, tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    backend.succeed(toys.compiled(toys.gated), drift.parameters(tmp_path / "out", said=str(said)))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    told = json.loads(said.read_text())
    assert result["drift"] is True
    assert told == {name: result[name] for name in ("p_value", "mmd2", "threshold", "report_uri", "status")}


def test_a_gate_behind_drift_stays_shut_without(backend: Backend, drift: Drift, tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    same = {"current": drift.reference, "said": str(said)}
    run = backend.succeed(toys.compiled(toys.gated), drift.parameters(tmp_path / "out", **same))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["drift"] is False
    assert [node.name for node in run.all(Phase.SKIPPED)] == ["condition-1"]
    assert not said.exists()


def test_a_window_without_rows_is_skipped_and_the_run_green(
    backend: Backend, drift: Drift, drift_yaml: str, tmp_path: Path
) -> None:
    days = tmp_path / "days"  # an archive that has other days only
    write_embeddings(str(days / "date=2026-11-20"), np.zeros((5, 5), np.float32))
    window = {"current": str(days / "date=yesterday"), "as_of": "2026-11-30T00:00:01Z"}
    run = backend.succeed(drift_yaml, drift.parameters(tmp_path / "out" / "{date}", **window))
    result = json.loads((tmp_path / "out" / "2026-11-30" / "result.json").read_text())
    assert (result["status"], result["job"]) == ("skipped", run.id)
    assert "date=2026-11-29" in result["reason"] + result["current"]["uri"]
    [record] = read_history(str(tmp_path / "out" / "history"))
    assert (record["status"], record["job"], record["reason"]) == ("skipped", run.id, result["reason"])
    assert run.tasks("report")[0].phase is Phase.SUCCEEDED


def test_a_small_window_fails_a_run_that_was_told_to_refuse_it(
    backend: Backend, drift: Drift, drift_yaml: str, tmp_path: Path
) -> None:
    changes = {"min_rows": 1000, "when_small": "refuse"}
    run = backend.run(drift_yaml, drift.parameters(tmp_path / "out", **changes))
    assert run.phase is Phase.FAILED
    assert "60 rows, of the 1000 that a comparison is to have" in run.tasks("sample")[0].message
    assert run.tasks("fit") == []


class Backfill(NamedTuple):
    """Inputs of a backfill, and what a local run made of them."""

    texts: Path
    model: Path
    out: Path

    def parameters(self, out: Path, **changes: Any) -> dict[str, Any]:
        """Return a run's parameters, the local run's but for the number of tasks."""
        given = {"texts": [str(self.texts)], "model": str(self.model), "out": str(out)}
        return {**given, "rows_per_shard": 20, "precision": "float32", "tasks": TASKS, **changes}

    def agrees_with(self, out: Path) -> None:
        """Compare a run's dataset with that of the local run."""
        assert [name for name in listing(out) if not name.startswith("_")] == listing(self.out)
        for shard in self.out.glob("*.parquet"):
            assert (out / shard.name).read_bytes() == shard.read_bytes(), shard.name
        found, expected = (_manifest(folder) for folder in (out, self.out))
        assert found == expected


def _manifest(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def backfill(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Backfill:
    folder = tmp_path_factory.mktemp("backfill")
    model = save_model(folder / "model")
    texts = write_texts(folder / "texts.jsonl", [f"a film with plot {number}, the query" for number in range(50)])
    settings = EmbedSettings(encoder=EncoderSettings(precision="float32"), rows_per_shard=20)
    run_embed([str(texts)], str(model), str(folder / "out"), settings)
    return Backfill(texts, model, folder / "out")


def test_a_backfill_is_as_on_this_machine(backend: Backend, backfill: Backfill, tmp_path: Path) -> None:
    run = backend.succeed(compile_pipeline("backfill", Profile()), backfill.parameters(tmp_path / "out"), reverse=True)
    backfill.agrees_with(tmp_path / "out")
    assert attempts(run) == {"plan-backfill": [1], "embed": [1] * TASKS, "finish-backfill": [1]}


def test_a_backfill_is_the_same_when_every_step_loses_a_pod_after_its_work(
    backend: Backend, backfill: Backfill, lost: Path, tmp_path: Path
) -> None:
    run = backend.succeed(compile_pipeline("backfill", Profile()), backfill.parameters(tmp_path / "out"), tools=lost)
    backfill.agrees_with(tmp_path / "out")
    assert attempts(run) == {"plan-backfill": [2], "embed": [1, 1, 2], "finish-backfill": [2]}
