"""Steps as a log shows them: a clock, progress, and errors that stand out.

Progress goes to the logger ``driftline`` as one JSON object a line, so that a pod's log can be searched by field and
the `driftline` command can draw a bar from the same lines. Each holds ``driftline`` (start, progress, done, failed),
``step``, ``task``, ``tasks`` and, where they apply, ``done``, ``of``, ``unit``, ``seconds``, ``error`` and ``skipped``.

Kubeflow's UI shows the last lines of a pod's log, and of each some 75 letters. So in a pod these lines stand alone,
without the front that KFP gives to what is logged, which also lets a cluster's collector of logs read them as JSON; a
failure's begins with ``error``, the reason before the file; and a step that fails ends with that reason as one line,
in the place of a traceback: what a user can put right is in the message, and a defect keeps its traceback.

A run whose window is empty is *skipped*, not failed: the first step says so in its output file, whoever reads that file
writes the same into its own, and the last step tells the user. So a pipeline has one shape, whatever the night brought.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TextIO, cast

from driftline.components.errors import DriftlineError, reason_first

LOGGER: Final = logging.getLogger("driftline")
_PROGRESS_INTERVAL_S: Final = 2.0  # often enough for a bar, seldom enough for a log of hours

_SKIPPED: Final = "driftline.skipped"

Event = Literal["start", "progress", "done", "failed"]


class Skipped(Exception):  # noqa: N818 - no error: there is nothing to do
    """There is nothing to do for a step, since the run is skipped.

    Attributes:
        why: the reason.
        fields: further values that the first step knew.
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
        self._logged_s = 0.0
        self._rate_from_s: float | None = None

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the task began."""
        return time.perf_counter() - self._began

    def begin_rate(self) -> None:
        """Measure the rate of a task that resumes from now on; only the first call counts."""
        if self._rate_from_s is None:
            self._rate_from_s = self.seconds

    def progress(self, done: int, of: int, unit: str = "rows", *, resumed: int | None = None) -> None:
        """Log how much of the task is done, at most every two seconds.

        Args:
            done: what is done.
            of: all that there is to do.
            unit: of both.
            resumed: of what is done, what others had done before: it counts for nothing in the rate, which is then that
                since :meth:`begin_rate`. None where the task does all of it, from its beginning on.
        """
        now_s = self.seconds
        if now_s - self._logged_s < _PROGRESS_INTERVAL_S:
            return
        self._logged_s = now_s
        spent_s = now_s if resumed is None else now_s - (now_s if self._rate_from_s is None else self._rate_from_s)
        rate = (done - (resumed or 0)) / spent_s if spent_s > 0 else 0.0
        self.log(
            "progress",
            done=done,
            of=of,
            unit=unit,
            **({} if resumed is None else {"resumed": resumed}),
            per_second=round(rate, 1),
            seconds_left=round((of - done) / rate, 1) if rate > 0 else None,
        )

    def log(self, event: Event, **fields: Any) -> None:
        """Write one line of JSON to the log, that of an error with ``error`` in front."""
        record = {"driftline": event, **self._fields, **fields}
        if "error" in record:
            record = {"error": record.pop("error"), **record}
        line = json.dumps(record, ensure_ascii=False)
        if _in_component():
            _write(sys.stdout, line)
        else:
            LOGGER.log(logging.ERROR if event == "failed" else logging.INFO, line)

    def failed(self, error: DriftlineError) -> None:
        """Say why the task failed: the reason first, and ``message`` for how it was put where that is otherwise."""
        message, reason = str(error), reason_first(str(error))
        as_put = {} if message == reason else {"message": message}
        self.log("failed", error=reason, **as_put, kind=type(error).__name__, seconds=round(self.seconds, 3))


@contextmanager
def logged_step(step: str, task: int = 0, tasks: int = 1, outputs: Sequence[str] = ()) -> Generator[StepClock]:
    """Run a task of a step: log its start and its end, and the one clear line of an error before it is raised.

    Args:
        step: name of the step.
        task: number of the task.
        tasks: tasks of the step.
        outputs: paths of the artifacts that the step writes. Where the run is skipped, which reading an input raises
            as :class:`Skipped`, each of them says so instead.
    """
    if _in_component() and not isinstance(sys.excepthook, _PlainEnd):
        sys.excepthook = _PlainEnd(sys.excepthook)
    clock = StepClock(step, task, tasks)
    clock.log("start")
    try:
        yield clock
    except Skipped as skipped:
        for path in outputs:
            write_skipped(path, skipped)
        clock.log("done", seconds=round(clock.seconds, 3), skipped=skipped.why)
        return
    except DriftlineError as error:
        clock.failed(error)
        raise
    clock.log("done", seconds=round(clock.seconds, 3))


def _in_component() -> bool:
    """Say whether this process runs a component, in a pod or under KFP's local runner, which set this for it alone."""
    return os.environ.get("_KFP_RUNTIME") == "true"


class _PlainEnd:
    """The hook that Python calls with the error that ends the process: of a DriftlineError it writes one line."""

    def __init__(self, otherwise: Callable[[type[BaseException], BaseException, TracebackType | None], Any]) -> None:
        self._otherwise = otherwise

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, DriftlineError):
            _write(sys.stderr, reason_first(str(error)) or kind.__name__)
        else:
            self._otherwise(kind, error, trace)


def _write(stream: TextIO | None, line: str) -> None:
    """Write a line at once and whole; names of files may hold bytes that are no text. A log is no reason to fail."""
    if stream is not None:
        encoding = stream.encoding or "utf-8"
        with suppress(OSError, ValueError):
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()


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
