"""A replay of how Argo Workflows decides whether a failed task is tried again, and until when the next attempt may run.

`decide` follows `processNodeRetries` of workflow/controller/operator.go, v4.0.5 (the release that KFP 2.17 deploys; the
arithmetic is that of every release since v3.4), for the fields that KFP emits: limit, backoff {duration, factor,
maxDuration}, and no policy, which Argo reads as OnFailure. `replay` runs a whole task by it.

All times are seconds; instants count from any one moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

Phase = Literal["Succeeded", "Failed", "Error"]
"""How an attempt ended. Evicted, preempted, drained and out-of-memory pods, and those past activeDeadlineSeconds, are
Failed; a pod whose object vanished is Error."""

Policy = Literal["OnFailure", "OnError", "Always"]


@dataclass(frozen=True, slots=True)
class RetryStrategy:
    """What KFP's compiler makes of a task's retry policy.

    Attributes:
        limit: attempts after the first.
        duration_s: the first pause.
        factor: what each further pause is longer by.
        max_duration_s: the window for all attempts, from the first one's start; None for none, which KFP cannot say.
        policy: which ends are retried; KFP says none, and Argo takes OnFailure.
    """

    limit: int
    duration_s: float
    factor: int
    max_duration_s: float | None
    policy: Policy = "OnFailure"

    @classmethod
    def of_task(cls, task: Mapping[str, Any]) -> Self:
        """Read a task of the compiled pipeline; a missing field is 0, as the parameters of KFP's templates default."""
        policy = task.get("retryPolicy", {})
        return cls(
            limit=int(policy.get("maxRetryCount", 0)),
            duration_s=_whole_seconds(policy.get("backoffDuration", "0s")),
            factor=int(policy.get("backoffFactor", 0)),
            max_duration_s=_whole_seconds(policy.get("backoffMaxDuration", "0s")),
        )

    def pause_s(self, attempts: int) -> float:
        """Return the pause after this many attempts."""
        return self.duration_s * self.factor ** (attempts - 1) if self.factor > 0 else self.duration_s

    def window_needed_s(self, deadline_s: float) -> float:
        """Return the shortest window in which every attempt may take its whole deadline."""
        pauses = sum(self.pause_s(attempts) for attempts in range(1, self.limit + 1))
        return (self.limit + 1) * deadline_s + pauses


def _whole_seconds(text: str) -> float:
    """Return the seconds of a duration such as 30s; KFP's compiler drops what is below one."""
    return float(text.removesuffix("s").partition(".")[0])


@dataclass(frozen=True, slots=True)
class Attempt:
    """One pod of a task: when its node was made, pending time included, when it ended, and how."""

    started_s: float
    finished_s: float
    phase: Phase = "Failed"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the controller does next.

    Attributes:
        action: run another attempt, wait until then, or end the task.
        message: Argo's own, as the node shows it.
        phase: how the task ends; Running while it does not.
        deadline_s: instant at which the next attempt is killed; None for never.
        until_s: end of the pause where it waits.
    """

    action: Literal["retry", "wait", "end"]
    message: str = ""
    phase: Phase | Literal["Running"] = "Running"
    deadline_s: float | None = None
    until_s: float | None = None


def decide(strategy: RetryStrategy, attempts: Sequence[Attempt], now_s: float) -> Decision:
    """Decide after the last of a task's attempts has ended."""
    last = attempts[-1]
    if last.phase == "Succeeded":
        return Decision("end", phase="Succeeded")
    window_ends_s = None if strategy.max_duration_s is None else attempts[0].started_s + strategy.max_duration_s
    if window_ends_s is not None and now_s > window_ends_s:
        return Decision("end", "Max duration limit exceeded", last.phase)
    pause_ends_s = last.finished_s + strategy.pause_s(len(attempts))
    if window_ends_s is not None and pause_ends_s > window_ends_s:
        return Decision("end", "Backoff would exceed max duration limit", last.phase)
    if now_s < pause_ends_s and len(attempts) <= strategy.limit:
        return Decision("wait", "Backoff", until_s=pause_ends_s)
    retried = {"OnFailure": {"Failed"}, "OnError": {"Error"}, "Always": {"Failed", "Error"}}[strategy.policy]
    if last.phase not in retried:
        return Decision("end", phase=last.phase, deadline_s=window_ends_s)
    if len(attempts) > strategy.limit:
        return Decision("end", "No more retries left", last.phase, window_ends_s)
    return Decision("retry", deadline_s=window_ends_s)


@dataclass(frozen=True, slots=True)
class Course:
    """What one attempt would do if it were let: wait for a node and its image, then run, then end."""

    runs_s: float
    phase: Phase = "Failed"
    pending_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Replay:
    """A whole task.

    Attributes:
        attempts: those that ran.
        allowed_s: for how long each of them might have run, once its container had started.
        end: the last decision.
    """

    attempts: tuple[Attempt, ...]
    allowed_s: tuple[float, ...]
    end: Decision


def replay(strategy: RetryStrategy, deadline_s: float, courses: Iterable[Course]) -> Replay:
    """Run a task whose attempts would go like this.

    Args:
        strategy: how it is retried.
        deadline_s: activeDeadlineSeconds of its pods, which does not count while they are pending.
        courses: one for each attempt that may come; the last must succeed or exhaust the retries.
    """
    attempts: list[Attempt] = []
    allowed: list[float] = []
    decision = Decision("retry")
    now_s = 0.0
    for course in courses:
        begins_s = now_s + course.pending_s
        window_s = float("inf") if decision.deadline_s is None else max(decision.deadline_s - begins_s, 0.0)
        allowed.append(min(deadline_s, window_s))
        cut = course.runs_s > allowed[-1]
        ended_s = begins_s + min(course.runs_s, allowed[-1])
        attempts.append(Attempt(now_s, ended_s, "Failed" if cut else course.phase))
        decision = decide(strategy, attempts, ended_s)
        if decision.until_s is not None:
            decision = decide(strategy, attempts, decision.until_s)
        if decision.action == "end":
            return Replay(tuple(attempts), tuple(allowed), decision)
        now_s = ended_s + strategy.pause_s(len(attempts))
    raise ValueError(f"expected a course for each attempt, got {len(attempts)}, and the task is tried again")
