"""Argo's retry rules, replayed: first against what Argo itself did, then for every step of the compiled pipelines."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import NamedTuple

import pytest

from driftline.pipelines.catalogue import PIPELINES
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.profile import Profile, StepSettings
from tests.support.argo_retries import Attempt, Course, Decision, RetryStrategy, decide, replay
from tests.support.compiled_ir import Graph, documents

MINUTE_S = 60.0
HOUR_S = 3600.0

OURS = RetryStrategy(limit=3, duration_s=30, factor=2, max_duration_s=90_000)
TEN_MINUTES = dataclasses.replace(OURS, max_duration_s=600)
NO_WINDOW = dataclasses.replace(OURS, max_duration_s=None)

EXCEEDED = "Max duration limit exceeded"
WOULD_EXCEED = "Backoff would exceed max duration limit"


def until(minutes: float, seconds: float = 0.0) -> float:
    return minutes * MINUTE_S + seconds


@pytest.mark.parametrize(
    ("strategy", "failed_after_s", "phase", "expected"),
    [
        (TEN_MINUTES, 2 * MINUTE_S, "Failed", Decision("retry", deadline_s=until(7, 29))),
        (TEN_MINUTES, 9.75 * MINUTE_S, "Failed", Decision("end", WOULD_EXCEED, "Failed")),
        (TEN_MINUTES, 12 * MINUTE_S, "Failed", Decision("end", EXCEEDED, "Failed")),
        (OURS, 12 * MINUTE_S, "Failed", Decision("retry", deadline_s=until(24 * 60 + 47, 29))),
        (OURS, 5 * HOUR_S, "Failed", Decision("retry", deadline_s=until(19 * 60 + 59, 29))),
        (NO_WINDOW, 12 * MINUTE_S, "Failed", Decision("retry")),
        (OURS, 12 * MINUTE_S, "Error", Decision("end", "", "Error", deadline_s=until(24 * 60 + 47, 29))),
    ],
)
def test_argos_own_answers_are_reproduced(strategy, failed_after_s, phase, expected):
    """What processNodeRetries of Argo v4.0.5 answered 31 s after the first attempt's end; 1 s after it near the limit.

    An Error is a pod whose object vanished. Deadlines count from now.
    """
    waited_s = 1.0 if expected.message == WOULD_EXCEED else 31.0
    now_s = failed_after_s + waited_s
    decision = decide(strategy, [Attempt(0.0, failed_after_s, phase)], now_s)
    from_now = None if decision.deadline_s is None else decision.deadline_s - now_s
    assert dataclasses.replace(decision, deadline_s=from_now) == expected


def test_pauses_grow_and_end_with_the_limit():
    attempts: list[Attempt] = []
    waits = []
    now_s = 0.0
    for _ in range(OURS.limit):
        attempts.append(Attempt(now_s, now_s + 100))
        decision = decide(OURS, attempts, now_s + 100)
        assert (decision.action, decision.phase) == ("wait", "Running")
        waits.append(decision.until_s - attempts[-1].finished_s)
        assert decide(OURS, attempts, decision.until_s - 1).action == "wait"
        assert decide(OURS, attempts, decision.until_s).action == "retry"
        now_s = decision.until_s
    assert waits == [30, 60, 120]
    attempts.append(Attempt(now_s, now_s + 100))
    assert decide(OURS, attempts, now_s + 100).message == "No more retries left"
    assert decide(OURS, [*attempts[:2], Attempt(now_s, now_s + 1, "Succeeded")], now_s + 1) == Decision(
        "end", phase="Succeeded"
    )


def test_a_window_that_kfp_was_not_told_is_none_at_all():
    strategy = RetryStrategy.of_task({"retryPolicy": {"maxRetryCount": 3, "backoffDuration": "30s"}})
    assert strategy == RetryStrategy(limit=3, duration_s=30, factor=0, max_duration_s=0)
    assert decide(strategy, [Attempt(0.0, 1.0)], 2.0).message == EXCEEDED
    assert RetryStrategy.of_task({}).limit == 0


class Step(NamedTuple):
    task: str
    strategy: RetryStrategy
    deadline_s: float


ON_PURPOSE = "fail-on-drift"  # it fails to say something, which trying again would only delay


def steps_of(name: str, profile: Profile) -> list[Step]:
    """Return every task that runs a container, with how it is retried and how long an attempt may take.

    The one that fails on purpose is left out.
    """
    spec, platform = documents(compile_pipeline(name, profile))
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return [
        Step(str(task), RetryStrategy.of_task(task.spec), float(settings[task.executor]["activeDeadlineSeconds"]))
        for task in Graph(spec).tasks()
        if task.executor and task.name != ON_PURPOSE
    ]


# How attempts fail before the one that needs its whole time; each waits ten minutes for a node and its image.
FAILURES_S = {
    "after 12 minutes": [12 * MINUTE_S],
    "after 5 hours": [5 * HOUR_S],
    "twice": [12 * MINUTE_S, 5 * HOUR_S],
    "three times, the last second each": [6 * HOUR_S - 1] * 3,
}


@pytest.mark.parametrize("failures", FAILURES_S)
@pytest.mark.parametrize("name", PIPELINES)
def test_a_failed_step_is_tried_again_and_not_cut_short(name, failures):
    steps = steps_of(name, Profile())
    assert len(steps) >= 3
    for task, strategy, deadline_s in steps:
        assert strategy.limit == 3, task
        fails = [Course(min(after_s, deadline_s - 1), pending_s=10 * MINUTE_S) for after_s in FAILURES_S[failures]]
        last = Course(deadline_s, "Succeeded", pending_s=10 * MINUTE_S)
        done = replay(strategy, deadline_s, [*fails, last])
        assert done.end == Decision("end", phase="Succeeded"), task
        assert len(done.attempts) == len(fails) + 1, task
        assert done.allowed_s == (deadline_s,) * (len(fails) + 1), task


@pytest.mark.parametrize("name", PIPELINES)
def test_a_profiles_own_time_outs_and_retries_fit_into_the_window(name):
    longer = StepSettings(timeout=timedelta(days=2), retries=10)
    shorter = StepSettings(timeout=timedelta(minutes=5), retries=1)
    steps = {"kernel-sums": longer, "embed": longer, "sample": shorter, "plan-backfill": shorter}
    seen = set()
    for task, strategy, deadline_s in steps_of(name, Profile(retries=2, timeout=timedelta(hours=1), steps=steps)):
        fails = [Course(deadline_s - 1, pending_s=10 * MINUTE_S)] * strategy.limit
        done = replay(strategy, deadline_s, [*fails, Course(deadline_s, "Succeeded", pending_s=10 * MINUTE_S)])
        assert done.end.phase == "Succeeded", task
        assert done.allowed_s == (deadline_s,) * (strategy.limit + 1), task
        seen.add((strategy.limit, deadline_s))
    assert seen == {(10, 48 * HOUR_S), (1, 5 * MINUTE_S), (2, HOUR_S)}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_step_that_always_fails_is_tried_four_times(name):
    for task, strategy, deadline_s in steps_of(name, Profile()):
        done = replay(strategy, deadline_s, [Course(deadline_s)] * 5)
        assert (len(done.attempts), done.end.message) == (4, "No more retries left"), task


@pytest.mark.parametrize("profile", [Profile(), Profile(retries=10)], ids=["by default", "often"])
def test_the_step_that_fails_on_purpose_is_never_tried_again(profile):
    spec, _ = documents(compile_pipeline("drift", profile))
    [task] = [task for task in Graph(spec).tasks() if task.name == ON_PURPOSE]
    assert "retryPolicy" not in task.spec
    assert len(replay(RetryStrategy.of_task(task.spec), HOUR_S, [Course(60.0)] * 2).attempts) == 1


@pytest.mark.parametrize(
    ("failed_after_s", "message", "allowed_s"),
    [(12 * MINUTE_S, EXCEEDED, ()), (5 * HOUR_S, EXCEEDED, ()), (9.75 * MINUTE_S, WOULD_EXCEED, ())],
)
def test_a_window_of_ten_minutes_retries_nothing_later(failed_after_s, message, allowed_s):
    done = replay(TEN_MINUTES, 6 * HOUR_S, [Course(failed_after_s), Course(6 * HOUR_S, "Succeeded")])
    assert (done.end.message, done.end.phase, len(done.attempts)) == (message, "Failed", 1)
    assert done.allowed_s[1:] == allowed_s


def test_a_window_of_ten_minutes_kills_the_second_attempt():
    courses = [Course(2 * MINUTE_S), Course(40 * MINUTE_S, "Succeeded")]
    done = replay(TEN_MINUTES, 6 * HOUR_S, courses)
    assert done.attempts[1] == Attempt(150.0, 600.0, "Failed")
    assert done.allowed_s == (6 * HOUR_S, 450.0)
    assert done.end.message == WOULD_EXCEED
    assert replay(OURS, 6 * HOUR_S, courses).end.phase == "Succeeded"


def test_a_pod_whose_object_vanished_is_not_retried():
    done = replay(OURS, 6 * HOUR_S, [Course(60.0, "Error"), Course(60.0, "Succeeded")])
    assert (done.end.action, done.end.phase, len(done.attempts)) == ("end", "Error", 1)
    always = dataclasses.replace(OURS, policy="Always")
    assert replay(always, 6 * HOUR_S, [Course(60.0, "Error"), Course(60.0, "Succeeded")]).end.phase == "Succeeded"


def test_a_replay_wants_a_course_for_each_attempt():
    with pytest.raises(ValueError, match="expected a course for each attempt, got 1"):
        replay(OURS, 6 * HOUR_S, [Course(60.0)])
