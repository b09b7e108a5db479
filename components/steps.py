"""What every step shares: a clock, progress in the log, and errors that stand out in it.

Progress goes to the logger ``driftline`` as one JSON object a line, so that a pod's log can be searched by field and
the `driftline` command can draw a bar from the same lines. Each holds ``driftline`` (start, progress, done, failed),
``step``, ``task``, ``tasks`` and, where they apply, ``done``, ``of``, ``unit``, ``seconds`` and ``error``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, Literal

from driftline.components.errors import DriftlineError, UsageError

LOGGER: Final = logging.getLogger("driftline")
_PROGRESS_INTERVAL_S: Final = 2.0  # often enough for a bar, seldom enough for a log of hours

MAX_TASKS: Final = 200
"""Ceiling of a fan-out: the artifacts of all its tasks travel to the next step in one argument."""

Event = Literal["start", "progress", "done", "failed"]


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
def running(step: str, task: int = 0, tasks: int = 1) -> Generator[StepClock]:
    """Run a task of a step: log its start and its end, and the one clear line of an error before it is raised."""
    clock = StepClock(step, task, tasks)
    clock.log("start")
    try:
        yield clock
    except DriftlineError as error:
        clock.log("failed", error=str(error), kind=type(error).__name__, seconds=round(clock.seconds, 3))
        raise
    clock.log("done", seconds=round(clock.seconds, 3))


def check_tasks(tasks: int) -> None:
    """Raise UsageError for a number of tasks that cannot be fanned out to."""
    if not 1 <= tasks <= MAX_TASKS:
        raise UsageError(f"tasks: expected from 1 to {MAX_TASKS}, got {tasks}")
