"""What every step shares: a clock, progress in the log, and errors that stand out in it.

Progress goes to the logger ``driftline`` as one JSON object a line, so that a pod's log can be searched by field and
the `driftline` command can draw a bar from the same lines. Each holds ``driftline`` (start, progress, done, failed),
``step``, ``task``, ``tasks`` and, where they apply, ``done``, ``of``, ``unit``, ``seconds``, ``error`` and ``skipped``.

A run whose window is empty is *skipped*, not failed: the first step says so in the file that it hands on, whoever reads
that file hands the same on, and the last step tells the user. So a pipeline has one shape, whatever the night brought.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, cast

from driftline.components.errors import DriftlineError, UsageError

LOGGER: Final = logging.getLogger("driftline")
_PROGRESS_INTERVAL_S: Final = 2.0  # often enough for a bar, seldom enough for a log of hours

MAX_TASKS: Final = 200
"""Ceiling of a fan-out. Each of its tasks is three pods to the cluster, and all that Argo knows of them stays in the
workflow's own object, of which Argo packs at most 1 MiB: 200 tasks fill about half of that. No more are needed: 200
tasks of 6 hours are 1,200 hours of work."""

SKIP: Final = "skip"
REFUSE: Final = "refuse"
"""What becomes of a run that has too little to work on, by its settings."""

_SKIPPED: Final = "driftline.skipped"

Event = Literal["start", "progress", "done", "failed"]


class Skipped(Exception):  # noqa: N818 - no error: there is nothing to do
    """There is nothing to do for a step, since the run is skipped.

    Attributes:
        why: the reason.
        fields: what else the first step had to say.
    """

    def __init__(self, why: str, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.fields = dict(fields or {})


class StepClock:
    """Measures one task of one step and logs how far it is."""

    def __init__(self, step: str, task: int = 0, tasks: int = 1) -> None:
        self._fields = {"step": step, "task": task, "tasks": tasks}
        self._began = time.perf_counter()
        self._spoke = self._began

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the task began."""
        return time.perf_counter() - self._began

    def progress(self, done: int, of: int, unit: str = "rows") -> None:
        """Say how much of the task is done, at most every two seconds."""
        now = time.perf_counter()
        if now - self._spoke >= _PROGRESS_INTERVAL_S:
            self._spoke = now
            rate = done / (now - self._began)
            left = (of - done) / rate if rate > 0 else None
            self.log(
                "progress",
                done=done,
                of=of,
                unit=unit,
                per_second=round(rate, 1),
                seconds_left=None if left is None else round(left, 1),
            )

    def log(self, event: Event, **fields: Any) -> None:
        """Write one line of JSON to the log."""
        level = logging.ERROR if event == "failed" else logging.INFO
        LOGGER.log(level, json.dumps({"driftline": event, **self._fields, **fields}, ensure_ascii=False))


@contextmanager
def running(step: str, task: int = 0, tasks: int = 1, hands_on: Sequence[str] = ()) -> Generator[StepClock]:
    """Run a task of a step: log its start and its end, and the one clear line of an error before it is raised.

    Args:
        step: name of the step.
        task: number of the task.
        tasks: tasks of the step.
        hands_on: paths of the artifacts that the step writes: where the run is skipped, which reading one of its inputs
            tells by :class:`Skipped`, each of them says so instead.
    """
    clock = StepClock(step, task, tasks)
    clock.log("start")
    try:
        yield clock
    except Skipped as skipped:
        for path in hands_on:
            write_skipped(path, skipped)
        clock.log("done", seconds=round(clock.seconds, 3), skipped=skipped.why)
        return
    except DriftlineError as error:
        clock.log("failed", error=str(error), kind=type(error).__name__, seconds=round(clock.seconds, 3))
        raise
    clock.log("done", seconds=round(clock.seconds, 3))


def write_skipped(path: str, skipped: Skipped) -> None:
    """Say in an artifact's file that the run is skipped, and why."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({_SKIPPED: skipped.why, **skipped.fields}), encoding="utf-8")


def check_not_skipped(content: bytes) -> None:
    """Raise Skipped, with the fields beside the reason, where an artifact's content says that the run is skipped."""
    try:
        value = json.loads(content)
    except ValueError:
        return  # an archive, or damaged: whoever reads it says so
    if isinstance(value, dict) and _SKIPPED in value:
        fields = cast("dict[str, Any]", value)
        raise Skipped(str(fields.pop(_SKIPPED)), fields)


def shares(tasks: int) -> list[dict[str, int]]:
    """Return the items over which a fan-out loops, one for each of its tasks."""
    return [{"task": task, "tasks": tasks} for task in range(tasks)]


def check_whole(**numbers: float) -> None:
    """Raise UsageError for a number that must be whole and is not: Kubeflow hands an integer parameter 8.5 as it is."""
    for name, value in numbers.items():
        if not float(value).is_integer():
            raise UsageError(f"{name}: expected a whole number, got {value}")


def check_tasks(tasks: int) -> None:
    """Raise UsageError for a number of tasks that cannot be fanned out to."""
    check_whole(tasks=tasks)
    if not 1 <= tasks <= MAX_TASKS:
        raise UsageError(f"tasks: expected from 1 to {MAX_TASKS}, got {tasks}")
