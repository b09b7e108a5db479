"""`driftline runs`: lists, shows, waits, and says what runs found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from driftline.components.storage.objects.json_history import append_history
from tests.support.kubeflow_cli import NEEDED, User

NIGHTLY = ("schedule", "drift.yaml", "--name", "nightly")
UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def ran(user: User) -> list[str]:
    """Four runs: drift, no drift, failed, under way; the latest first."""
    for _ in range(4):
        user.types("submit", "drift.yaml", *user.parameters, "--no-wait")
    first, second, failed, going = user.kubeflow.runs.values()
    for run, drift, p_value in ((first, True, 0.002), (second, False, 0.41)):
        record = {"created": run["created_at"], "job": run["run_id"], "status": "compared", "drift": drift}
        report = {"p_value": p_value, "report_uri": f"gs://lake/{p_value}"}
        append_history(str(user.out / "history"), {**record, **report}, key=run["run_id"])
        run.update(state="SUCCEEDED", finished_at=run["created_at"])
    failed.update(state="FAILED", error={"message": "no such bucket"})
    going.update(state="RUNNING")
    return [run["run_id"] for run in (going, failed, second, first)]


def test_they_are_listed_with_their_verdicts(user: User, ran: list[str]) -> None:
    done = user.types("runs")
    assert (done.status, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head.split() == ["run", "state", "created", "verdict", "report", "name"]
    assert [row.split()[0] for row in rows] == ran
    assert [row.split()[1] for row in rows] == ["RUNNING", "FAILED", "SUCCEEDED", "SUCCEEDED"]
    assert "no drift found: p = 0.41  gs://lake/0.41" in rows[2]
    assert "  drift found: p = 0.002 " in rows[3]
    assert rows[3].split()[-4] == "gs://lake/0.002"
    assert user.types("runs", "--limit", "1").out.splitlines()[1].startswith(ran[0])


def test_json_says_it_all(user: User, ran: list[str]) -> None:
    shown = json.loads(user.types("runs", "--json").out)
    assert [one["run"] for one in shown] == ran
    drift = {"drift": True, "p_value": 0.002, "report": "gs://lake/0.002", "reason": ""}
    assert shown[3]["verdicts"] == [drift]
    assert shown[1]["error"] == "no such bucket"
    assert shown[0]["verdicts"] == []
    assert [one["finished"] == "" for one in shown] == [True, True, False, False]


def test_all_pages_are_read(user: User, ran: list[str]) -> None:
    (first,) = [run for run in user.kubeflow.runs.values() if run["run_id"] == ran[0]]
    for number in range(250):
        user.kubeflow.runs[f"more-{number}"] = {**first, "run_id": f"more-{number}"}
    assert len(json.loads(user.types("runs", "--json", "--limit", "1000").out)) == 254
    assert len(json.loads(user.types("runs", "--json", "--limit", "120").out)) == 120


def test_those_of_a_schedule_also_after_it_was_replaced(user: User, ran: list[str]) -> None:
    given = (*NIGHTLY, *NEEDED, "-p", "output_folder=gs://lake/a")
    fired: list[str] = []
    for cron in ("5 0 * * *", "6 0 * * *", "7 0 * * *"):
        user.types(*given, "--cron", cron)
        (job,) = user.kubeflow.jobs
        run = user.kubeflow.fire(job)
        user.kubeflow.runs[run]["state"] = "SKIPPED"
        fired.insert(0, run)
    shown = json.loads(user.types("runs", "--schedule", "nightly", "--json").out)
    assert [one["run"] for one in shown] == fired
    assert not {*fired} & {*ran}
    by_id = json.loads(user.types("runs", "--schedule", job, "--json").out)
    assert [one["run"] for one in by_id] == fired[:1]
    unknown = user.types("runs", "--schedule", "weekly")
    assert unknown.status == 2
    assert unknown.refusal.endswith("answers 404 Not Found: Job weekly not found")


def test_those_of_an_experiment(user: User, ran: list[str]) -> None:
    user.types("submit", "drift.yaml", *user.parameters, "--no-wait", "--experiment", "trial")
    assert len(user.types("runs", "--experiment", "trial").out.splitlines()) == 2
    assert len(user.types("runs", "--experiment", "driftline").out.splitlines()) == 1 + len(ran)
    assert user.types("runs", "--experiment", "none").refusal.startswith(
        "experiment 'none': there is none of that name"
    )


def test_none(user: User) -> None:
    assert user.types("runs").out == "no runs\n"


@pytest.mark.parametrize(
    ("which", "state", "status", "said"),
    [
        (3, "SUCCEEDED", 3, ["drift found: p = 0.002", "report: gs://lake/0.002"]),
        (2, "SUCCEEDED", 0, ["no drift found: p = 0.41", "report: gs://lake/0.41"]),
        (0, "RUNNING", 0, []),
        (1, "CANCELED", 1, []),
    ],
)
def test_one_ends_with_its_verdict(
    user: User, ran: list[str], which: int, state: str, status: int, said: list[str]
) -> None:
    user.kubeflow.progress = [state]
    done = user.types("runs", ran[which])
    head, *rest = done.out.splitlines()
    assert head.startswith(f"{state}: driftline-drift ")
    assert rest == said
    assert done.status == status
    as_json: dict[str, Any] = json.loads(user.types("runs", ran[which], "--json").out)
    assert as_json["state"] == state


def test_one_is_waited_for(user: User, ran: list[str]) -> None:
    user.kubeflow.progress = ["PENDING", "RUNNING", "SUCCEEDED"]
    done = user.types("runs", ran[3], "--wait")
    assert done.out.splitlines() == [
        "PENDING", "RUNNING", "SUCCEEDED", "drift found: p = 0.002", "report: gs://lake/0.002",
    ]  # fmt: skip
    assert done.status == 3
    assert user.types("runs", ran[2], "--wait", "--json").status == 0
    user.kubeflow.progress = ["FAILED"]
    user.kubeflow.error = "no such bucket"
    failed = user.types("runs", ran[1], "--wait", "--json")
    assert failed.status == 1
    assert (
        failed.refusal == f"run {ran[1]}: FAILED: no such bucket; task sample: no such bucket; its tasks' logs say more"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([UNKNOWN], f"GET URL/apis/v2beta1/runs/{UNKNOWN}: answers 404 Not Found: Run {UNKNOWN} not found"),
        ([UNKNOWN, "--schedule", "n"], "runs: expected a run's id, or --schedule and --experiment, got both"),
        (["--wait"], "wait: expected a run's id, got none"),
    ],
)
def test_a_usage_error_is_one_line(user: User, arguments: list[str], message: str) -> None:
    done = user.types("runs", *arguments)
    assert done.status == 2
    assert done.refusal == message.replace("URL", user.url)
