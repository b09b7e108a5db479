"""`driftline schedule`: made, left alone, replaced and removed, and what is left when it is killed anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from driftline.components.errors import DriftlineError, UsageError
from driftline.components.kubeflow.client import Kubeflow
from driftline.components.kubeflow.connection import Request
from driftline.components.kubeflow.refusals import KubeflowError, refusal
from driftline.pipelines.schedules import Schedule, find_schedules, keep, remembered, remove
from tests.support.kubeflow_cli import NEEDED, User
from tests.support.kubeflow_double import KubeflowDouble

NIGHTLY = (
    "schedule",
    "drift.yaml",
    "--name",
    "nightly",
    "--cron",
    "5 0 * * *",
    *NEEDED,
    "-p",
    "output_folder=gs://lake/{date}",
)


class KilledError(BaseException):
    """The process ends here: nothing catches it."""


class Wire:
    """Reaches the double without a network; something happens at one of the requests that change anything.

    Attributes:
        enabled: how many schedules are on, at first and after each such request.
    """

    def __init__(self, double: KubeflowDouble, at: int = -1, *, lost: bool = True, kills: bool = False) -> None:
        """Count from 0.

        Args:
            double: the server.
            at: the request at which it happens.
            lost: whether the server has done the request all the same.
            kills: whether the process is killed, or else an error comes back.
        """
        self._double, self._at, self._lost, self._kills = double, at, lost, kills
        self._number = count()
        self.happened = False
        self.enabled = [len(double.enabled)]

    def send(self, request: Request) -> dict[str, Any]:
        changes = request.method != "GET"
        happens = changes and next(self._number) == self._at
        if not happens or self._lost:
            body = b"" if request.body is None else json.dumps(request.body).encode()
            status, answer = self._double.answer(request.method, request.target, {}, body)
            if status != 200:
                raise refusal(request.method, status, json.dumps(answer).encode())
        if changes and (self._lost or not happens):
            self.enabled.append(len(self._double.enabled))
        if happens:
            self.happened = True
            raise KilledError if self._kills else KubeflowError("http://kfp: gives no answer")
        return answer


@pytest.fixture
def wanted(kubeflow: KubeflowDouble) -> Schedule:
    """A schedule that nobody has made yet, of a pipeline that is there."""
    spec = {"root": {"dag": {}, "inputDefinitions": {"parameters": {"output_folder": {"parameterType": "STRING"}}}}}
    pipeline = kubeflow._create_pipeline({"name": "drift"})["pipeline_id"]
    version = kubeflow._create_version(pipeline, "v1", "v1", {}, [spec])
    reference = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    experiment = Kubeflow(Wire(kubeflow)).experiment("driftline")
    return Schedule("nightly", experiment, reference, {"output_folder": "gs://lake/a"}, "0 5 0 * * *")


def run_keep(kubeflow: KubeflowDouble, wanted: Schedule, wire: Wire | None = None, *, spares: bool = True) -> list[str]:
    told: list[str] = []
    keep(Kubeflow(wire or Wire(kubeflow)), wanted, spares_runs=spares, told=told.append)
    return told


def only(kubeflow: KubeflowDouble) -> dict[str, Any]:
    (job,) = kubeflow.jobs.values()
    return job


def test_one_is_made_switched_on_and_then_left_alone(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    told = run_keep(kubeflow, wanted)
    job = only(kubeflow)
    assert told == [f"schedule nightly: made, {job['recurring_run_id']}", "schedule nightly: on"]
    assert job["mode"] == "ENABLE"
    assert job["no_catchup"] is True
    assert job["max_concurrency"] == "1"
    assert job["trigger"] == {"cron_schedule": {"cron": "0 5 0 * * *"}}
    assert job["pipeline_version_reference"] == wanted.version
    before = len(kubeflow.changes)
    assert run_keep(kubeflow, wanted) == [f"schedule nightly: is as it should be, {job['recurring_run_id']}"]
    assert len(kubeflow.changes) == before


@pytest.mark.parametrize(
    "change",
    [
        {"cron": "0 6 0 * * *"},
        {"parameters": {"output_folder": "gs://lake/b"}},
        {"max_concurrency": 2},
        {"catchup": True},
        {"service_account": "other"},
    ],
)
def test_a_change_replaces_it_in_four_requests(
    kubeflow: KubeflowDouble, wanted: Schedule, change: dict[str, Any]
) -> None:
    run_keep(kubeflow, wanted)
    old = only(kubeflow)["recurring_run_id"]
    wire = Wire(kubeflow)
    before = len(kubeflow.changes)
    run_keep(kubeflow, replace(wanted, **change), wire)
    new = only(kubeflow)["recurring_run_id"]
    place = "/apis/v2beta1/recurringruns"
    assert kubeflow.changes[before:] == [
        ("POST", place),
        ("POST", f"{place}/{old}:disable"),
        ("POST", f"{place}/{new}:enable"),
        ("DELETE", f"{place}/{old}?propagation_policy=ORPHAN"),
    ]
    assert wire.enabled == [1, 1, 0, 1, 1]
    (found,) = find_schedules(Kubeflow(Wire(kubeflow)), "nightly", wanted.experiment)
    assert remembered(found) == (old,)


def interruptions(requests: int) -> list[tuple[int, bool]]:
    """Each request, not done and done."""
    return [(at, lost) for at in range(requests) for lost in (False, True)]


@pytest.mark.parametrize(("at", "lost"), interruptions(4))
@pytest.mark.parametrize("then", ["the same", "another", "the old"])
def test_killed_anywhere_a_rerun_sets_it_right(
    kubeflow: KubeflowDouble, wanted: Schedule, at: int, lost: bool, then: str
) -> None:
    run_keep(kubeflow, wanted)
    changed = replace(wanted, cron="0 6 0 * * *")
    wire = Wire(kubeflow, at, lost=lost, kills=True)
    with pytest.raises(KilledError):
        run_keep(kubeflow, changed, wire)
    assert max(wire.enabled) == 1
    assert wire.enabled.count(0) <= 1, "the gap is between two requests"
    rerun = Wire(kubeflow)
    last = {"the same": changed, "another": replace(wanted, cron="0 7 0 * * *"), "the old": wanted}[then]
    run_keep(kubeflow, last, rerun)
    assert only(kubeflow)["trigger"]["cron_schedule"]["cron"] == last.cron
    assert kubeflow.enabled == [only(kubeflow)["recurring_run_id"]]
    enabled = wire.enabled + rerun.enabled
    assert max(enabled) == 1
    assert run_keep(kubeflow, last)[0].startswith("schedule nightly: is as it should be")


@pytest.mark.parametrize(("first", "lost"), interruptions(4))
@pytest.mark.parametrize("second", range(5))
def test_killed_twice(kubeflow: KubeflowDouble, wanted: Schedule, first: int, lost: bool, second: int) -> None:
    run_keep(kubeflow, wanted)
    with pytest.raises(KilledError):
        run_keep(kubeflow, replace(wanted, cron="0 6 0 * * *"), Wire(kubeflow, first, lost=lost, kills=True))
    third = replace(wanted, cron="0 7 0 * * *")
    wire = Wire(kubeflow, second, kills=True)
    try:
        run_keep(kubeflow, third, wire)
    except KilledError:
        assert wire.happened
    run_keep(kubeflow, third)
    assert only(kubeflow)["trigger"]["cron_schedule"]["cron"] == third.cron
    assert len(kubeflow.enabled) == 1
    assert max(wire.enabled) <= 1


@pytest.mark.parametrize(("at", "lost"), interruptions(4))
def test_a_request_that_fails_leaves_monitoring_on(
    kubeflow: KubeflowDouble, wanted: Schedule, at: int, lost: bool
) -> None:
    run_keep(kubeflow, wanted)
    old = only(kubeflow)["recurring_run_id"]
    wire = Wire(kubeflow, at, lost=lost)
    with pytest.raises(KubeflowError, match="gives no answer") as caught:
        run_keep(kubeflow, replace(wanted, cron="0 6 0 * * *"), wire)
    assert max(wire.enabled) == 1
    (on,) = kubeflow.enabled
    if at in (1, 2):
        assert on == old
        assert str(caught.value).endswith(f"schedule nightly: {old} is on again, as before: run the command again")
    run_keep(kubeflow, replace(wanted, cron="0 6 0 * * *"))
    assert only(kubeflow)["trigger"]["cron_schedule"]["cron"] == "0 6 0 * * *"
    assert len(kubeflow.enabled) == 1


def test_ctrl_c_in_the_gap_goes_back(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    run_keep(kubeflow, wanted)
    old = only(kubeflow)["recurring_run_id"]

    def before(method: str, target: str) -> None:
        if target.endswith(":disable"):
            kubeflow.before = lambda method, target: None
            raise KeyboardInterrupt

    kubeflow.before = before
    with pytest.raises(KeyboardInterrupt):
        run_keep(kubeflow, replace(wanted, cron="0 6 0 * * *"))
    assert kubeflow.enabled == [old]


def test_when_nothing_answers_any_more_it_says_so(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    run_keep(kubeflow, wanted)
    kubeflow.before = lambda method, target: (503, {"message": "down"}) if ":" in target else None
    with pytest.raises(KubeflowError, match=r"whether .* or .* is on is not known, since going back failed too"):
        run_keep(kubeflow, replace(wanted, cron="0 6 0 * * *"))


@pytest.mark.parametrize("spoilt", [{"parameters": {}}, {"version": {"pipeline_id": "p", "pipeline_version_id": "v"}}])
def test_what_the_server_refuses_changes_nothing(
    kubeflow: KubeflowDouble, wanted: Schedule, spoilt: dict[str, Any]
) -> None:
    run_keep(kubeflow, wanted)
    old = only(kubeflow)["recurring_run_id"]
    with pytest.raises(DriftlineError):
        run_keep(kubeflow, replace(wanted, **spoilt))
    assert kubeflow.enabled == [only(kubeflow)["recurring_run_id"]] == [old]


def test_a_refusal_in_the_gap_says_that_none_is_on(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    run_keep(kubeflow, wanted)
    with pytest.raises(KilledError):
        run_keep(kubeflow, replace(wanted, cron="0 6 0 * * *"), Wire(kubeflow, 1, kills=True))
    with pytest.raises(UsageError, match=r"user provided value; schedule nightly: none is on, as before$"):
        run_keep(kubeflow, replace(wanted, parameters={}))


def test_off_and_on(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    off = replace(wanted, enabled=False)
    assert run_keep(kubeflow, off)[-1] == "schedule nightly: off"
    job = only(kubeflow)["recurring_run_id"]
    assert kubeflow.enabled == []
    assert run_keep(kubeflow, off)[0].startswith("schedule nightly: is as it should be")
    assert run_keep(kubeflow, wanted) == [
        "schedule nightly: on; the last slot that it missed while it was off, if any, is run now"
    ]
    assert kubeflow.enabled == [job]
    run_keep(kubeflow, off)
    assert kubeflow.enabled == []
    run_keep(kubeflow, replace(off, cron="0 6 0 * * *"))
    assert kubeflow.enabled == []
    assert only(kubeflow)["recurring_run_id"] != job


def by_hand(kubeflow: KubeflowDouble, wanted: Schedule, **fields: Any) -> str:
    body = {**wanted.content(), "mode": "ENABLE", **fields}
    return kubeflow._create_job(body)["recurring_run_id"]


def test_one_that_was_made_by_hand_is_replaced(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    theirs = by_hand(kubeflow, wanted)
    run_keep(kubeflow, wanted)
    assert theirs not in kubeflow.jobs
    assert kubeflow.enabled == [only(kubeflow)["recurring_run_id"]]


def test_several_of_one_name_are_left_to_the_user(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    ids = {by_hand(kubeflow, wanted), by_hand(kubeflow, wanted, mode="DISABLE")}
    before = len(kubeflow.changes)
    for act in (lambda: run_keep(kubeflow, wanted), lambda: run_remove(kubeflow, wanted)):
        with pytest.raises(
            UsageError, match="'nightly': expected one of that name in the experiment, found 2"
        ) as caught:
            act()
        assert all(one in str(caught.value) for one in ids)
    assert len(kubeflow.changes) == before


def test_others_are_no_concern(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    elsewhere = Kubeflow(Wire(kubeflow)).experiment("other")
    theirs = {by_hand(kubeflow, wanted, display_name="weekly"), by_hand(kubeflow, wanted, experiment_id=elsewhere)}
    run_keep(kubeflow, wanted)
    run_keep(kubeflow, replace(wanted, cron="0 6 0 * * *"))
    assert theirs < {*kubeflow.enabled}
    run_remove(kubeflow, wanted)
    assert {*kubeflow.enabled} == theirs


@pytest.mark.parametrize("mode", ["ENABLE", "DISABLE"])
@pytest.mark.parametrize("created", ["2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"])
def test_two_that_were_made_at_once_become_one(
    kubeflow: KubeflowDouble, wanted: Schedule, mode: str, created: str
) -> None:
    run_keep(kubeflow, wanted)
    twin = {**only(kubeflow), "recurring_run_id": "twin", "mode": mode, "status": mode + "D", "created_at": created}
    kubeflow.jobs["twin"] = twin
    on = set(kubeflow.enabled)
    wire = Wire(kubeflow)
    run_keep(kubeflow, wanted, wire)
    assert len(kubeflow.jobs) == len(kubeflow.enabled) == 1
    assert set(kubeflow.enabled) <= on, "the one that is on stays"
    assert min(wire.enabled) == 1


def run_remove(
    kubeflow: KubeflowDouble, wanted: Schedule, wire: Wire | None = None, *, spares: bool = True
) -> list[str]:
    told: list[str] = []
    remove(Kubeflow(wire or Wire(kubeflow)), wanted.name, wanted.experiment, spares_runs=spares, told=told.append)
    return told


@pytest.mark.parametrize(("at", "lost"), interruptions(2))
def test_removed_though_killed(kubeflow: KubeflowDouble, wanted: Schedule, at: int, lost: bool) -> None:
    run_keep(kubeflow, wanted)
    with pytest.raises(KilledError):
        run_remove(kubeflow, wanted, Wire(kubeflow, at, lost=lost, kills=True))
    run_remove(kubeflow, wanted)
    assert kubeflow.jobs == {}
    assert run_remove(kubeflow, wanted) == ["schedule nightly: there is none"]


def test_before_2_17_a_schedule_stays_while_its_run_is_under_way(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    """There its deletion would end the run."""
    run_keep(kubeflow, wanted)
    old = only(kubeflow)["recurring_run_id"]
    run = kubeflow.fire(old)
    changed = replace(wanted, cron="0 6 0 * * *")
    told = run_keep(kubeflow, changed, spares=False)
    assert told[-1] == f"schedule {old}: off, and kept while a run of it is under way; the next time it is deleted"
    assert len(kubeflow.jobs) == 2
    assert old not in kubeflow.enabled
    kubeflow.runs[run]["state"] = "SUCCEEDED"
    assert run_keep(kubeflow, changed, spares=False)[-1] == f"schedule {old}: deleted; its runs stay"
    assert kubeflow.enabled == [only(kubeflow)["recurring_run_id"]]
    run_keep(kubeflow, wanted)
    assert len(kubeflow.jobs) == 1


def test_ids_of_earlier_ones_are_kept_and_bounded(kubeflow: KubeflowDouble, wanted: Schedule) -> None:
    ids: list[str] = []
    for minute in range(12):
        run_keep(kubeflow, replace(wanted, cron=f"0 {minute} 0 * * *"))
        ids.append(only(kubeflow)["recurring_run_id"])
    (found,) = find_schedules(Kubeflow(Wire(kubeflow)), "nightly", wanted.experiment)
    assert [*remembered(found)] == ids[-2:-10:-1]


# As typed


def test_as_typed(user: User) -> None:
    made = user.types(*NIGHTLY)
    assert made.status == 0, made.err
    job = only(user.kubeflow)
    assert job["trigger"]["cron_schedule"]["cron"] == "0 5 0 * * *"
    uploaded, _, _, when = made.out.splitlines()
    assert uploaded.endswith(": uploaded")
    assert when.startswith("cron '0 5 0 * * *' in the zone UTC; next: ")
    assert when.count(" 00:05:00 UTC") == 3
    assert "is as it should be" in user.types(*NIGHTLY).out
    assert len(user.kubeflow.versions) == 1
    zoned = user.types(*NIGHTLY, "--max-concurrency", "2", "--catchup", "--zone", "Asia/Tokyo")
    assert zoned.out.splitlines()[-1].count(" 00:05:00 JST") == 3
    assert only(user.kubeflow)["max_concurrency"] == "2"
    assert "no_catchup" not in only(user.kubeflow)
    removed = user.types("schedule", "--name", "nightly", "--remove")
    assert removed.status == 0
    assert user.kubeflow.jobs == {}
    assert user.types("schedule", "--name", "nightly", "--remove").out == "schedule nightly: there is none\n"


def test_another_driftline_with_the_same_file_replaces_nothing(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    from driftline.pipelines.commands import chosen_pipeline

    user.types(*NIGHTLY)
    monkeypatch.setattr(chosen_pipeline, "version", lambda package: "9.9.9")
    assert "is as it should be" in user.types(*NIGHTLY).out
    user.file.write_text(user.file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert ": deleted; its runs stay" in user.types(*NIGHTLY).out
    assert sorted(one["name"][:5] for one in user.kubeflow.versions.values()) == ["0.1.0", "9.9.9"]


def test_a_dry_run_shows_the_four_requests_and_sends_none(user: User) -> None:
    first = user.types(*NIGHTLY, "--dry-run")
    assert first.status == 0, first.err
    assert user.kubeflow.changes == []
    shown = [line.split("?")[0] for line in first.out.splitlines() if line.startswith("POST")]
    place = "POST /apis/v2beta1/"
    assert shown == [
        *(place + one for one in ("pipelines", "pipelines/upload_version", "experiments", "recurringruns")),
        place + "recurringruns/<recurring_run_id>:enable",
    ]
    user.types(*NIGHTLY)
    old = only(user.kubeflow)
    before = len(user.kubeflow.changes)
    second = user.types(*NIGHTLY, "--max-concurrency", "3", "--dry-run").out.splitlines()
    assert len(user.kubeflow.changes) == before
    assert [line for line in second if line.startswith(("POST", "DELETE"))] == [
        place + "recurringruns",
        place + f"recurringruns/{old['recurring_run_id']}:disable",
        place + "recurringruns/<recurring_run_id>:enable",
        f"DELETE /apis/v2beta1/recurringruns/{old['recurring_run_id']}?propagation_policy=ORPHAN",
    ]
    body = json.loads(second[1])
    assert (body["mode"], body["no_catchup"], body["max_concurrency"]) == ("DISABLE", True, "3")
    assert user.types(*NIGHTLY, "--dry-run").out.startswith("nothing to send: schedule nightly: is as it should be")
    assert user.types("schedule", "--name", "x", "--remove", "--dry-run").out.startswith("nothing to send: schedule x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cron", "5 0 * *"], "cron '5 0 * *': expected five fields, minute hour day month weekday"),
        (["--cron", "0 5 0 * * L"], "cron '0 5 0 * * L': day of the week: expected numbers from 0 to 6"),
        (["--zone", "Berlin"], "zone: expected a name such as UTC or Europe/Berlin, got 'Berlin'"),
        (["--max-concurrency", "11"], "Invalid value for '--max-concurrency': 11 is not in the range 1<=x<=10"),
        (["-p", "test_levle=1"], "parameter test_levle: the pipeline has none of that name; did you mean test_level?"),
        (["--remove"], "remove: expected --name alone, got a pipeline or --cron too; leave them out"),
    ],
)
def test_a_usage_error_sends_nothing(user: User, arguments: list[str], message: str) -> None:
    done = user.types(*NIGHTLY, *arguments)
    assert done.status == 2
    assert done.refusal.startswith(message)
    assert user.kubeflow.asked == []


def test_what_is_missing(user: User) -> None:
    assert user.types("schedule", "--name", "n").refusal.startswith("schedule: expected a pipeline's file or name")
    assert user.types("schedule", "drift.yaml").refusal.startswith("Missing option '--name'")
    assert user.types("schedule", "drift.yaml", "--name", "n").refusal.startswith("cron '': expected five fields")


def test_six_fields_that_look_like_five_are_sent_and_explained(user: User) -> None:
    given = (
        "schedule",
        "drift.yaml",
        "--name",
        "nightly",
        "--cron",
        "5 0 * * * *",
        *NEEDED,
        "-p",
        "output_folder=gs://lake/a",
    )
    done = user.types(*given)
    assert only(user.kubeflow)["trigger"]["cron_schedule"]["cron"] == "5 0 * * * *"
    assert done.out.splitlines()[-1] == (
        "note: six fields: the first is the second; for Unix's five fields of '5 0 * * * *', leave one out"
    )
