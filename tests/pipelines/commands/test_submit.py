"""`driftline submit`, against a server that answers as KFP's own does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.components.kubeflow import connection
from driftline.components.kubeflow.client import Kubeflow
from driftline.components.kubeflow.connection import Request
from driftline.components.kubeflow.refusals import KubeflowError
from driftline.components.storage.objects.json_history import append_history
from driftline.pipelines.cluster_runs import wait
from tests.support.kubeflow_cli import NEEDED, User


def record(run: str, /, **fields: Any) -> dict[str, Any]:
    """A record of the history, as far as it is read here."""
    values = {"created": "2026-11-30T16:00:00Z", "run": "f" * 32, "job": run, "status": "compared", "drift": False}
    return {**values, "p_value": 0.41, "mmd2": 1e-4, "threshold": 2e-4, "report_uri": f"gs://lake/{run[:4]}", **fields}


def reporting(user: User, *records: dict[str, Any], out: str | None = None) -> Callable[[str, str], None]:
    """Let the run write its history while it is waited for."""

    def before(method: str, target: str) -> None:
        if method == "GET" and "/runs/" in target:
            (run,) = user.kubeflow.runs
            for number, fields in enumerate(records):
                key = fields.get("run", f"{number:032x}")
                append_history(out or str(user.out / "history"), record(run, **{**fields, "run": key}), key=key)

    return before


def test_a_file_is_uploaded_once_and_run_by_its_ids(user: User) -> None:
    first = user.types("submit", "drift.yaml", *user.parameters, "-p", "test_level=0.1", "--no-wait")
    assert first.status == 0, first.err
    (pipeline,) = user.kubeflow.pipelines.values()
    (version,) = user.kubeflow.versions.values()
    assert pipeline["name"] == pipeline["display_name"] == "driftline-drift"
    assert version["name"].startswith("0.1.0-")
    assert version["pipeline_spec"].keys() == {"pipeline_spec", "platform_spec"}, "GPU selectors and volumes are in it"
    # The UI shows both on one card, which has room for each of them once.
    assert pipeline["description"] == "Tell whether a window still looks like the reference."
    needed = "`current` what to compare; `output_folder`; `reference`"
    assert version["description"].startswith(f"- **must be given:** {needed}\n- `")
    (run,) = user.kubeflow.runs.values()
    assert run["pipeline_version_reference"] == {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["runtime_config"]["parameters"]["test_level"] == 0.1
    assert first.out.splitlines() == [
        f"pipeline driftline-drift, version {version['name']}: uploaded",
        f"run {run['run_id']}: {run['display_name']}",
    ]
    again = user.types("submit", "drift.yaml", *user.parameters, "--no-wait", "--name", "mine")
    assert again.out.splitlines()[0].endswith(": is there")
    assert len(user.kubeflow.versions) == 1
    assert [one["display_name"] for one in user.kubeflow.runs.values()][1] == "mine"
    assert len(user.kubeflow.experiments) == 1
    user.file.write_text(user.file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    user.types("submit", "drift.yaml", *user.parameters, "--no-wait")
    assert len(user.kubeflow.pipelines) == 1
    assert len(user.kubeflow.versions) == 2


def test_a_killed_upload_is_taken_up(user: User) -> None:
    user.kubeflow.before = lambda method, target: (503, {"message": "restarts"}) if "upload_version" in target else None
    assert user.types("submit", "drift.yaml", *user.parameters, "--no-wait").status == 1
    assert len(user.kubeflow.pipelines) == 1
    user.kubeflow.before = lambda method, target: None
    assert user.types("submit", "drift.yaml", *user.parameters, "--no-wait").status == 0
    assert (len(user.kubeflow.pipelines), len(user.kubeflow.versions), len(user.kubeflow.runs)) == (1, 1, 1)


@pytest.mark.parametrize("made", ["/pipelines?", "upload_version?", "/experiments?"])
def test_what_another_makes_at_the_same_moment_is_used(user: User, made: str) -> None:
    """The other one is there between our looking for it and our making it."""
    assert user.types("submit", "drift.yaml", *user.parameters, "--no-wait").status == 0
    theirs = {name: dict(getattr(user.kubeflow, name)) for name in ("pipelines", "versions", "experiments")}
    for name in theirs:
        if made.strip("/?") in ("pipelines", name) or (made == "upload_version?" and name == "versions"):
            getattr(user.kubeflow, name).clear()

    def before(method: str, target: str) -> None:
        if method == "POST" and made.strip("?") in f"{target.partition('?')[0]}":
            for name, kept in theirs.items():
                getattr(user.kubeflow, name).update(kept)

    user.kubeflow.before = before
    done = user.types("submit", "drift.yaml", *user.parameters, "--no-wait")
    assert done.status == 0, done.err
    assert {name: [*kept] for name, kept in theirs.items()} == {
        name: [*getattr(user.kubeflow, name)] for name in theirs
    }


@pytest.mark.parametrize(
    ("records", "status", "said"),
    [
        ([{"drift": False}], 0, ["no drift found: p = 0.41", "report: gs://lake/{id}"]),
        ([{"drift": True, "p_value": 0.002}], 3, ["drift found: p = 0.002", "report: gs://lake/{id}"]),
        (
            [{"status": "skipped", "drift": False, "reason": "current holds no rows", "report_uri": ""}],
            0,
            ["skipped: current holds no rows"],
        ),
        (
            [{"drift": False}, {"drift": True, "p_value": 0.01, "report_uri": "gs://lake/b"}],
            3,
            ["no drift found: p = 0.41", "report: gs://lake/{id}", "drift found: p = 0.01", "report: gs://lake/b"],
        ),
        ([{"job": "another"}], 0, ["no verdict: the history has no record of this run"]),
    ],
)
def test_it_ends_with_the_verdict(user: User, records: list[dict[str, Any]], status: int, said: list[str]) -> None:
    user.kubeflow.progress = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    user.kubeflow.before = reporting(user, *records)
    done = user.types("submit", "drift.yaml", *user.parameters)
    (run,) = user.kubeflow.runs
    assert done.status == status, done.err
    expected = ["PENDING", "RUNNING", "SUCCEEDED", *(line.replace("{id}", run[:4]) for line in said)]
    assert done.out.splitlines()[2:] == expected
    assert done.err == ""


def test_the_history_is_where_the_run_was_told(user: User, tmp_path: Path) -> None:
    user.kubeflow.progress = ["SUCCEEDED"]
    user.kubeflow.before = reporting(user, {"drift": True}, out=str(tmp_path / "other"))
    parameters = (*NEEDED, "-p", f"output_folder={tmp_path}/out/{{date}}/{{run}}")
    assert user.types("submit", "drift.yaml", *parameters, "-p", f"output_history={tmp_path / 'other'}").status == 3


def test_a_history_that_cannot_be_read_from_here_is_one_line(user: User) -> None:
    user.kubeflow.progress = ["SUCCEEDED"]
    done = user.types("submit", "drift.yaml", *NEEDED, "-p", "output_folder=/mnt/claim/reports/{date}")
    assert done.status == 0
    assert done.out.splitlines()[-1] == (
        "the verdict is not known: /mnt/claim/reports/history is not on this machine; it is in the run's own storage"
    )
    (user.out / "history").mkdir(parents=True)
    (user.out / "history" / "20261130T160000.000000Z-x.json").write_text("{", encoding="utf-8")
    done = user.types("submit", "drift.yaml", *user.parameters)
    assert done.status == 0
    assert done.out.splitlines()[-1].startswith("the verdict is not known: its history cannot be read from here (hist")


def test_a_failed_run_is_a_failure_with_its_error(user: User) -> None:
    user.kubeflow.progress = ["RUNNING", "FAILED"]
    user.kubeflow.error = "current gs://lake/cur: there is no dataset"
    done = user.types("submit", "drift.yaml", *user.parameters)
    (run,) = user.kubeflow.runs
    assert done.status == 1
    assert done.refusal == (
        f"run {run}: FAILED: task sample: current gs://lake/cur: there is no dataset; its tasks' logs say more"
    )


@pytest.mark.parametrize(
    ("given", "drift", "status"),
    [("fail_on_drift=true", True, 3), ("fail_on_drift=false", True, 1), ("fail_on_drift=true", False, 1)],
)
def test_a_run_that_fails_over_drift_as_it_was_asked_to_ends_with_its_verdict(
    user: User, given: str, drift: bool, status: int
) -> None:
    user.kubeflow.progress = ["FAILED"]
    user.kubeflow.before = reporting(user, {"drift": drift})
    done = user.types("submit", "drift.yaml", *user.parameters, "-p", given)
    (run,) = user.kubeflow.runs
    assert done.status == status
    assert done.out.splitlines()[-1] == f"report: gs://lake/{run[:4]}"
    assert done.err.count(f"run {run}: FAILED") == 1  # whatever else failed is told, too
    for shown in (user.types("runs", run), user.types("runs", run, "--json")):
        assert shown.status == status


def test_waiting_ends_and_the_run_goes_on(user: User) -> None:
    user.kubeflow.progress = ["RUNNING"]
    done = user.types("submit", "drift.yaml", *user.parameters, "--timeout", "0.01s")
    (run,) = user.kubeflow.runs
    assert done.status == 1
    assert done.refusal == (f"run {run}: is RUNNING after 0.01 s and goes on; driftline runs {run} --wait waits on")
    assert user.types("submit", "drift.yaml", "--timeout", "soon").status == 2


class Server:
    """Answers from a list: a run's state, or an error."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = [*answers]

    def send(self, request: Request) -> dict[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"run_id": "r", "state": answer}


def waited(*answers: str | Exception, **limits: float) -> tuple[list[str], float]:
    passed, told = [0.0], []

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    wait(Kubeflow(Server(*answers)), "r", told.append, clock=lambda: passed[0], sleep=sleep, **limits)
    return told, passed[0]


def test_an_outage_is_sat_out() -> None:
    silent = KubeflowError("http://kfp: gives no answer")
    told, passed_s = waited("PENDING", *[silent] * 60, "RUNNING", *[silent] * 60, "SUCCEEDED")
    assert told == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert passed_s == 122 * 5.0
    with pytest.raises(KubeflowError, match="gives no answer; the run may go on: driftline runs r --wait waits on"):
        waited("RUNNING", silent)
    with pytest.raises(KubeflowError, match="run r: is RUNNING after 60 s and goes on"):
        waited("RUNNING", timeout_s=60)


def test_a_name_runs_the_latest_version_or_the_one_named(user: User) -> None:
    user.types("submit", "drift.yaml", *user.parameters, "--no-wait")
    user.file.write_text(user.file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    user.types("submit", "drift.yaml", *user.parameters, "--no-wait")
    first, second = user.kubeflow.versions.values()
    user.types("submit", "driftline-drift", *user.parameters, "--no-wait")
    user.types("submit", "driftline-drift", *user.parameters, "--no-wait", "--version", first["name"])
    *_, latest, named = user.kubeflow.runs.values()
    assert latest["pipeline_version_reference"]["pipeline_version_id"] == second["pipeline_version_id"]
    assert named["pipeline_version_reference"]["pipeline_version_id"] == first["pipeline_version_id"]
    second["created_at"] = first["created_at"]
    tied = user.types("submit", "driftline-drift", *user.parameters)
    assert tied.status == 2
    assert "were made in the same second; name one with --version" in tied.refusal
    wrong = user.types("submit", "driftline-drift", *user.parameters, "--version", "9.9")
    assert wrong.refusal.startswith("version '9.9': the pipeline driftline-drift has none of that name")


def test_a_pipeline_that_the_ui_named_is_found_by_what_it_shows(user: User) -> None:
    user.types("submit", "drift.yaml", *user.parameters, "--no-wait")
    (pipeline,) = user.kubeflow.pipelines.values()
    pipeline.update(name="drift-1", display_name="Drift of reviews")
    assert user.types("submit", "Drift of reviews", *user.parameters, "--no-wait").status == 0
    user.kubeflow.pipelines["other"] = {**pipeline, "pipeline_id": "other", "name": "drift-2"}
    several = user.types("submit", "Drift of reviews", *user.parameters, "--no-wait")
    assert several.refusal == "pipeline 'Drift of reviews': 2 have that display name; give a name: drift-1, drift-2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "none.yaml: No such file or directory; name a compiled pipeline's file, or a pipeline"),
        (["nosuch", *NEEDED], "pipeline 'nosuch': Kubeflow has none of that name; check the name and the namespace"),
        (["drift.yaml", *NEEDED], "parameter output_folder: must be given: -p output_folder=…"),
        (
            ["drift.yaml", *NEEDED, "-p", "output_folder=x", "-p", "test_levle=1"],
            "parameter test_levle: the pipeline has none of that name",
        ),
        (["drift.yaml", "--version", "v1"], "version 'v1': is for pipelines in Kubeflow; drift.yaml is run as it is"),
        (["drift.yaml", "--params", "none"], "params none: No such file or directory; name a YAML or JSON file"),
    ],
)
def test_a_usage_error_sends_nothing_that_changes(user: User, arguments: list[str], message: str) -> None:
    done = user.types("submit", *arguments)
    assert done.status == 2
    assert done.refusal.startswith(message)
    assert user.kubeflow.changes == []


@pytest.mark.parametrize("content", ["", "a: [", "root: {}", "root: {dag: {}}", "root: {dag: {}}\npipelineInfo: {}"])
def test_a_file_that_is_no_pipeline(user: User, content: str) -> None:
    user.file.write_text(content, encoding="utf-8")
    done = user.types("submit", "drift.yaml")
    assert done.status == 1
    assert done.refusal.startswith("drift.yaml: ")
    assert user.kubeflow.asked == []


def test_a_dry_run_shows_what_would_be_sent_and_sends_none_of_it(user: User) -> None:
    shown = user.types("submit", "drift.yaml", *user.parameters, "--dry-run", "--name", "r", "--service-account", "s")
    assert shown.status == 0
    assert user.kubeflow.changes == []
    lines = shown.out.splitlines()
    assert [line for line in lines if line.startswith("POST")] == [
        "POST /apis/v2beta1/pipelines",
        next(line for line in lines if line.startswith("POST /apis/v2beta1/pipelines/upload_version?name=0.1.0-")),
        "POST /apis/v2beta1/experiments",
        "POST /apis/v2beta1/runs",
    ]
    assert f"  uploadfile: driftline-drift.yaml, {user.file.stat().st_size} bytes" in lines
    would = json.loads(lines[-1])
    assert (
        user.types(
            "submit", "drift.yaml", *user.parameters, "--no-wait", "--name", "r", "--service-account", "s"
        ).status
        == 0
    )
    (run,) = user.kubeflow.runs.values()
    assert {key: run[key] for key in ("display_name", "runtime_config", "service_account")} == {
        key: would[key] for key in ("display_name", "runtime_config", "service_account")
    }
    again = user.types("submit", "drift.yaml", *user.parameters, "--dry-run", "--name", "r", "--service-account", "s")
    sent = json.loads(again.out.splitlines()[-1])
    assert {key: run[key] for key in sent} == sent


@pytest.mark.parametrize(
    ("number", "meaning", "begins"),
    [
        (40, "x" * 10, "- `p0` xxxxxxxxxx\n"),
        (40, "x" * 200, "- `p0`\n- `p1`\n"),
        (999, "", "\N{SNOWMAN}" * 500),
    ],
)
def test_a_long_description_fits_into_the_url(user: User, number: int, meaning: str, begins: str) -> None:
    """A version's description travels in the URL, of which gateways take 8 KiB; a pipeline's does not."""
    spec = yaml.safe_load(user.file.read_text(encoding="utf-8").partition("---")[0])
    described = {"parameterType": "STRING", "isOptional": True, "description": meaning}
    spec["root"]["inputDefinitions"]["parameters"] = {f"p{one}": described for one in range(number)}
    spec["pipelineInfo"]["description"] = "\N{SNOWMAN}" * 9000
    user.file.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    assert user.types("submit", "drift.yaml", "--no-wait").status == 0
    (target,) = [target for _, target in user.kubeflow.asked if "upload_version" in target]
    assert len(target) < 6500
    (pipeline,), (version,) = user.kubeflow.pipelines.values(), user.kubeflow.versions.values()
    assert pipeline["description"] == spec["pipelineInfo"]["description"]
    assert version["description"].startswith(begins)


def test_a_refused_upload_says_what_may_be_the_cause(user: User) -> None:
    """The server answers the same where the file is wrong and where a right is missing."""
    user.kubeflow.before = lambda method, target: (
        (400, {"error_message": "Failed to create a pipeline version", "error_details": "a\nb"})
        if "upload_version" in target
        else None
    )
    done = user.types("submit", "drift.yaml", *user.parameters)
    assert done.status == 2
    assert done.refusal == (
        f"POST {user.url}/apis/v2beta1/pipelines/upload_version: answers 400 Bad Request: Failed to create a pipeline "
        "version; check that this release takes the file, and that the login may create pipelines"
    )


def test_several_users(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("submit", "drift.yaml", *user.parameters, "--no-wait")
    one = user.types(*given, "--namespace", "team")
    assert one.refusal == f"namespace team: the Kubeflow at {user.url} serves one user and has none; leave it out"
    user.kubeflow.namespaces = ("team",)
    none = user.types(*given)
    assert none.refusal == f"namespace: the Kubeflow at {user.url} serves several users; give yours with --namespace"
    wrong = user.types(*given, "--namespace", "other")
    assert wrong.status == 2
    assert wrong.refusal.endswith("no login was given: check its rights, and the namespace")
    assert user.kubeflow.changes == []
    assert user.types(*given, "--namespace", "team").status == 0
    monkeypatch.setenv("POD_NAMESPACE", "team")
    assert user.types(*given).status == 0
    assert {run["experiment_id"] for run in user.kubeflow.runs.values()} == {*user.kubeflow.experiments}


def test_logins_as_typed(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user.kubeflow.token = "s3cret"
    refused = user.types("runs")
    assert refused.status == 2
    assert refused.refusal.endswith("no user identity header.; no login was given: give one that has not expired")
    (tmp_path / "token").write_text("expired", encoding="ascii")
    expired = user.types("runs", "--token-file", "token")
    assert expired.refusal.endswith("the token is that of token: give one that has not expired")
    (tmp_path / "token").write_text("s3cret", encoding="ascii")
    assert user.types("runs", "--token-file", "token").status == 0
    monkeypatch.setenv("DRIFTLINE_KFP_TOKEN", "s3cret")
    assert user.types("runs").status == 0
    both = user.types("runs", "--cookies-file", "token")
    assert both.refusal.startswith("login: expected one, got DRIFTLINE_KFP_TOKEN and cookies-file")


def test_a_host_is_needed_and_reached(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    assert user.types("runs").refusal.startswith("host: expected --host or KF_PIPELINES_ENDPOINT")
    assert user.types("runs", "--host", user.url + "/#/runs").status == 0
    assert user.types("runs", "--host", "kf").refusal == "host: expected http:// or https:// and a host, got 'kf'"
    monkeypatch.setattr(connection, "_PAUSE_S", 0.0)
    nobody = user.types("runs", "--host", "http://127.0.0.1:9")
    assert nobody.status == 1
    assert nobody.refusal.startswith("http://127.0.0.1:9: gives no answer (Connection refused); check the host")


def test_a_server_that_refuses_is_one_line(user: User) -> None:
    """What we let through and the server does not: its parameter check, and a version deleted meanwhile."""
    user.types("submit", "drift.yaml", *user.parameters, "--no-wait")
    (version,) = user.kubeflow.versions.values()
    inputs = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    inputs["late"] = {"parameterType": "STRING"}
    done = user.types("submit", "drift.yaml", *user.parameters)
    assert done.status == 2
    assert done.refusal == (
        f"POST {user.url}/apis/v2beta1/runs: answers 400 Bad Request: parameter late is not optional, yet has neither "
        "default value nor user provided value"
    )

    def before(method: str, target: str) -> None:
        if method == "POST" and target.endswith("/runs"):
            user.kubeflow.versions.clear()

    user.kubeflow.before = before
    gone = user.types("submit", "drift.yaml", *user.parameters)
    assert gone.status == 1
    assert gone.refusal.endswith(
        f"answers 500 Internal Server Error: PipelineVersion {version['pipeline_version_id']} not found"
    )
