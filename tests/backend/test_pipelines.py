"""Driftline's pipelines on the backend: to the end, as a run on this machine, whatever pods are lost on the way."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
import yaml

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.storage.objects.json_history import read_history
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.profile import Profile
from driftline.pipelines.profile.cluster import SecretValue
from driftline.pipelines.runs import run_drift, run_embed
from tests.backend import toys
from tests.backend.argo_rules import Phase
from tests.backend.release import Backend, Run
from tests.components.embedding.tiny_models import save_model
from tests.support.command import listing
from tests.support.datasets import write_embeddings, write_texts
from tests.support.http_server import TestServer, serving

pytestmark = pytest.mark.slow

TASKS: Final = 3
ROWS_PER_SHARD: Final = 20
SETTINGS: Final = DriftSettings(pca_components=3, test_permutations=99, kernel_tasks=2)  # the local run's
TOKEN: Final = "a token of the tests"
OF_THE_RUN: Final = ("created", "run", "job", "as_of", "report_uri", "steps")  # what two runs' results may differ in

STEPS_WITH_DRIFT: Final = ("sample", "fit", "project", "plan", "mmd-test", "report", "notify")

# A python3 that loses the first pod of every step that is tried again, after its work was done and before anybody was
# told.
LOSING_PYTHON: Final = """#!/bin/sh
"{python}" "$@"
status=$?
step=
for word in "$@"; do
    if [ "$step" = next ]; then step=$word; break; fi
    if [ "$word" = --function_to_execute ]; then step=next; fi
done
if [ -n "$step" ] && [ "$step" != fail_on_drift ] && mkdir "{lost}/$step" 2>/dev/null; then exit 137; fi
exit "$status"
"""


class Drift(NamedTuple):
    """Inputs of drift, and what a local run made of them."""

    reference: str
    current: str
    out: Path

    def parameters(self, out: Path | str, **changes: Any) -> dict[str, Any]:
        """Return a run's parameters, the local run's but for the number of tasks."""
        same = {"pca_components": SETTINGS.pca_components, "test_permutations": SETTINGS.test_permutations}
        given = {"reference": self.reference, "current": self.current, "output_folder": str(out)}
        return {**given, **same, "kernel_tasks": TASKS, **changes}

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
    """A folder of tools for the pods, whose python3 loses the first pod of every step that is tried again."""
    tools, marks = tmp_path / "tools", tmp_path / "lost"
    tools.mkdir()
    marks.mkdir()
    script = tools / "python3"
    script.write_text(LOSING_PYTHON.format(python=sys.prefix + "/bin/python3", lost=marks))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return tools


class Receiver(NamedTuple):
    """Takes CloudEvents, and keeps each event with its token."""

    url: str
    events: list[tuple[str, dict[str, Any]]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    events: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            refused = self.path == "/refused"
            if not refused:
                events.append((self.headers.get("Authorization", ""), event))
            self.send_response(403 if refused else 202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep quiet."""

    with serving(TestServer(Handler)) as url:
        yield Receiver(url, events)


def own_lines(log: str) -> list[str]:
    """Return what a step itself logged, without the lines of KFP's launcher around it."""
    lines = [line for line in log.splitlines() if line.strip() and not re.match(r"[IWEF]\d{4} ", line)]
    # The launcher shows its input and output as indented JSON.
    return [line for line in lines if not line.startswith((" ", "{\n", "}")) and line != "{"]


def branches(run: Run, phase: Phase) -> list[str]:
    """Return the conditions of a run that ended so, by their places in the Workflow."""
    return [node.path.removeprefix("entrypoint/root/") for node in run.all(phase) if node.name.startswith("condition")
            and not node.name.endswith("-driver")]  # fmt: skip


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
    assert attempts(run)["notify"] == [1]
    assert attempts(run)["fail-on-drift"] == [1]  # nobody asked for it
    assert branches(run, Phase.SKIPPED) == []
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
    assert tried.pop("fail-on-drift") == [1]
    assert tried == {step: [2] for step in STEPS_WITH_DRIFT}
    assert len(read_history(str(tmp_path / "out" / "history"))) == 1
    assert len([name for name in listing(tmp_path / "out") if name.endswith("report.html")]) == 1


def test_drift_takes_the_branch_that_tells_of_it(
    backend: Backend, drift: Drift, receiver: Receiver, tmp_path: Path
) -> None:
    profile = Profile(secrets={"DRIFTLINE_NOTIFY_TOKEN": SecretValue(name="events", key="token")})
    run = backend.succeed(
        compile_pipeline("drift", profile),
        drift.parameters(tmp_path / "out", notify_url=f"{receiver.url}/drift"),
        secrets={"events": {"token": TOKEN}},
    )
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    [(authorization, event)] = receiver.events
    assert authorization == f"Bearer {TOKEN}"
    assert (event["type"], event["subject"]) == ("driftline.drift.detected", drift.current)
    assert event["data"]["verdict"] == "drift found"
    assert {name: event["data"][name] for name in ("p_value", "mmd2", "report_uri", "job")} == {
        name: result[name] for name in ("p_value", "mmd2", "report_uri", "job")
    }
    shown = "".join(log for node in run.containers() for log in node.logs)
    assert TOKEN not in shown
    assert "current text" not in json.dumps(event)  # the texts stay in the report
    [tested] = run.tasks("mmd-test")
    assert run.outputs(tested) == {
        "verdict": "drift found", **{name: result[name] for name in ("drift", "p_value", "mmd2", "threshold")}
    }  # fmt: skip


def test_a_receiver_that_refuses_turns_the_run_red_after_its_report(
    backend: Backend, drift: Drift, drift_yaml: str, receiver: Receiver, tmp_path: Path
) -> None:
    run = backend.run(drift_yaml, drift.parameters(tmp_path / "out", notify_url=f"{receiver.url}/refused"))
    assert run.phase is Phase.FAILED
    assert [node.path.split("/")[-2] for node in run.all(Phase.FAILED) if node.attempts] == ["notify"]
    assert "403" in own_lines(run.tasks("notify")[0].logs[-1])[-1]
    assert "/refused" not in run.story()  # a webhook's path may be its password
    drift.agrees_with(tmp_path / "out")


def test_without_drift_no_branch_is_taken(
    backend: Backend, drift: Drift, drift_yaml: str, receiver: Receiver, tmp_path: Path
) -> None:
    quiet = {"current": drift.reference, "notify_url": receiver.url, "fail_on_drift": True}
    run = backend.succeed(drift_yaml, drift.parameters(tmp_path / "out", **quiet))
    assert branches(run, Phase.SKIPPED) == ["condition-1"]
    assert receiver.events == []
    assert run.tasks("notify") == run.tasks("fail-on-drift") == []
    outputs = run.outputs(run.tasks("mmd-test")[0])
    assert (outputs["drift"], outputs["verdict"]) == (False, "no drift found")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["drift"] is False


def test_a_run_that_is_to_fail_on_drift_fails_once_and_says_why(
    backend: Backend, drift: Drift, drift_yaml: str, receiver: Receiver, tmp_path: Path
) -> None:
    asked = {"fail_on_drift": True, "notify_url": receiver.url}
    run = backend.run(drift_yaml, drift.parameters(tmp_path / "out", **asked))
    assert run.phase is Phase.FAILED
    assert len(receiver.events) == 1  # told before the run turns red
    [failed] = [node for node in run.all(Phase.FAILED) if node.attempts]
    assert failed is run.tasks("fail-on-drift")[0]
    assert len(failed.attempts) == 1
    report = tmp_path / "out" / "report.html"
    assert own_lines(failed.logs[0])[-1] == f"drift found: p = 0.010 at level 0.05; report {report}"
    drift.agrees_with(tmp_path / "out")  # all else is as in a green run
    [record] = read_history(str(tmp_path / "out" / "history"))
    assert (record["job"], record["drift"]) == (run.id, True)


def test_a_gate_behind_drift_opens_with_its_verdict(backend: Backend, drift: Drift, tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    backend.succeed(toys.compiled(toys.gated), drift.parameters(tmp_path / "out", said=str(said)))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    told = json.loads(said.read_text())
    assert result["drift"] is True
    assert told.pop("verdict") == "drift found"
    assert told == {name: result[name] for name in ("p_value", "mmd2", "threshold", "report_uri")}


def test_a_gate_behind_drift_stays_shut_without(backend: Backend, drift: Drift, tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    same = {"current": drift.reference, "said": str(said)}
    run = backend.succeed(toys.compiled(toys.gated), drift.parameters(tmp_path / "out", **same))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["drift"] is False
    assert sorted(branches(run, Phase.SKIPPED)) == ["condition-1", "driftline-drift/condition-1"]
    assert not said.exists()


def test_a_window_without_rows_is_skipped_and_the_run_green(
    backend: Backend, drift: Drift, drift_yaml: str, receiver: Receiver, tmp_path: Path
) -> None:
    days = tmp_path / "days"  # an archive that has other days only
    write_embeddings(str(days / "date=2026-11-20"), np.zeros((5, 5), np.float32))
    window = {"current": str(days / "date=yesterday"), "window_as_of": "2026-11-30T00:00:01Z"}
    asked = {"notify_url": receiver.url, "fail_on_drift": True}
    run = backend.succeed(drift_yaml, drift.parameters(tmp_path / "out" / "{date}", **window, **asked))
    result = json.loads((tmp_path / "out" / "2026-11-30" / "result.json").read_text())
    assert (result["status"], result["job"]) == ("skipped", run.id)
    assert "date=2026-11-29" in result["reason"] + result["current"]["uri"]
    [record] = read_history(str(tmp_path / "out" / "history"))
    assert (record["status"], record["job"], record["reason"]) == ("skipped", run.id, result["reason"])
    assert run.tasks("report")[0].phase is Phase.SUCCEEDED
    outputs = run.outputs(run.tasks("mmd-test")[0])
    assert outputs == {"drift": False, "p_value": 1.0, "mmd2": 0.0, "threshold": 0.0, "verdict": "skipped"}
    assert branches(run, Phase.SKIPPED) == ["condition-1"]
    assert receiver.events == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_method": "Exact"}, "test_method: unknown 'Exact'"),
        ({"text_column": "txet"}, "txet"),
        ({"notify_url": "events.example.org/drift"}, "notify_url: expected http:// or https://"),
        ({"kernel_tasks": 8.5}, "kernel_tasks: expected a whole number, got 8.5"),
    ],
)
def test_what_can_be_refused_is_refused_by_the_first_step(
    backend: Backend, drift: Drift, drift_yaml: str, tmp_path: Path, changes: Mapping[str, Any], words: str
) -> None:
    run = backend.run(drift_yaml, drift.parameters(tmp_path / "out", **changes))
    assert run.phase is Phase.FAILED
    assert words in own_lines(run.tasks("sample")[0].logs[-1])[-1]
    assert run.tasks("fit") == []


def test_boxes_that_are_cleared_in_the_form_mean_the_defaults(
    backend: Backend, drift: Drift, drift_yaml: str, tmp_path: Path
) -> None:
    declared = yaml.safe_load(drift_yaml.partition("\n---\n")[0])["root"]["inputDefinitions"]["parameters"]
    cleared = {name: "" for name, one in declared.items() if one["parameterType"] == "STRING" and one.get("isOptional")}
    backend.succeed(drift_yaml, drift.parameters(tmp_path / "out", **cleared))
    drift.agrees_with(tmp_path / "out")


def test_a_small_window_fails_a_run_that_was_told_to_refuse_it(
    backend: Backend, drift: Drift, drift_yaml: str, tmp_path: Path
) -> None:
    changes = {"window_min_rows": 1000, "window_when_small": "refuse"}
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
        given = {"text_files": [str(self.texts)], "model": str(self.model), "output_folder": str(out)}
        return {**given, "model_precision": "float32", "embed_tasks": TASKS, **changes}

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
    settings = BackfillSettings(model_precision="float32", output_rows_per_shard=ROWS_PER_SHARD)
    run_embed([str(texts)], str(model), str(folder / "out"), settings)
    return Backfill(texts, model, folder / "out")


@pytest.fixture(scope="module")
def backfill_yaml() -> str:
    """The pipeline with small shards, so that a few texts are work for several tasks: no parameter says how large."""
    spec, platform = yaml.safe_load_all(compile_pipeline("backfill", Profile()))
    inputs = spec["root"]["dag"]["tasks"]["plan-backfill"]["inputs"]["parameters"]
    inputs["output_rows_per_shard"] = {"runtimeValue": {"constant": ROWS_PER_SHARD}}
    return yaml.safe_dump_all([spec, platform])


def test_a_backfill_is_as_on_this_machine(
    backend: Backend, backfill: Backfill, backfill_yaml: str, tmp_path: Path
) -> None:
    run = backend.succeed(backfill_yaml, backfill.parameters(tmp_path / "out"), reverse=True)
    backfill.agrees_with(tmp_path / "out")
    assert attempts(run) == {"plan-backfill": [1], "embed": [1] * TASKS, "finish-backfill": [1]}


def test_a_backfill_is_the_same_when_every_step_loses_a_pod_after_its_work(
    backend: Backend, backfill: Backfill, backfill_yaml: str, lost: Path, tmp_path: Path
) -> None:
    run = backend.succeed(backfill_yaml, backfill.parameters(tmp_path / "out"), tools=lost)
    backfill.agrees_with(tmp_path / "out")
    assert attempts(run) == {"plan-backfill": [2], "embed": [1, 1, 2], "finish-backfill": [2]}
