"""What a person sees while a command runs: a bar and a table in a terminal, plain lines in a log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from driftline.components.steps import LOGGER
from driftline.pipelines.local import progress_records, task_name

STDERR: Final = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class _Step:
    tasks: int
    finished: int = 0
    seconds: float = 0.0


class Display:
    """Shows the progress records of :mod:`driftline.components.steps` on standard error.

    Args:
        title: what runs.
        steps: names of the steps to come, in order, so that the bar knows its length.
    """

    def __init__(self, title: str, steps: tuple[str, ...]) -> None:
        self._title = title
        self._expected = steps
        self._steps: dict[str, _Step] = {}
        self._partial: dict[tuple[str, int], float] = {}
        self._bar: Progress | None = None
        self._row = None

    def __enter__(self) -> Self:
        if STDERR.is_terminal:
            columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
            self._bar = Progress(*columns, console=STDERR, transient=True)
            self._bar.start()
            self._row = self._bar.add_task(self._title, total=float(len(self._expected)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            if kind is None:
                STDERR.print(self.table())

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Take one progress record."""
        event, name, task = record["driftline"], record["step"], int(record["task"])
        step = self._steps.setdefault(name, _Step(int(record["tasks"])))
        if event == "progress" and "of" in record:
            self._partial[name, task] = record["done"] / max(record["of"], 1)
        elif event == "done":
            step.finished += 1
            step.seconds += float(record["seconds"])
            self._partial[name, task] = 1.0
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, completed=self._done(), description=f"{self._title}: {_line(record)}")
        elif event != "start" and (event != "progress" or "of" in record):
            STDERR.print(f"{self._title}: {_line(record)}", markup=False)

    def _done(self) -> float:
        """Return how many steps are done, in part or whole."""
        return sum(part / self._steps[name].tasks for (name, _), part in self._partial.items())

    def table(self) -> Table:
        """Return the steps, their tasks and the seconds that these took together."""
        table = Table(title=self._title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("step")
        table.add_column("tasks", justify="right")
        table.add_column("seconds", justify="right")
        for name, step in self._steps.items():
            table.add_row(name, str(step.finished), f"{step.seconds:.2f}")
        return table


def _line(record: Mapping[str, Any]) -> str:
    name = task_name(record)
    match record["driftline"]:
        case "done":
            return f"{name} done in {record['seconds']:.2f} s"
        case "failed":
            return f"{name} failed"
        case "progress" if "of" in record:
            left = record.get("seconds_left")
            ahead = "" if left is None else f", {left:.0f} s left"
            return f"{name} {record['done']} of {record['of']} {record['unit']}, {record['per_second']:.0f}/s{ahead}"
        case _:
            return name


class _Forward(logging.Handler):
    """Hands the progress records logged in this process to a display, and shows what else is logged as it is."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        found = [*progress_records(line)]
        for one in found:
            self._display(one)
        if not found:
            STDERR.print(line, markup=False)


@contextmanager
def following(display: Display) -> Generator[None]:
    """Show what steps in this process log, for as long as the block lasts."""
    handler = _Forward(display)
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        with display:
            yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


@contextmanager
def counting(title: str) -> Generator[Callable[[int, int], None]]:
    """Yield a function that is told how much is done, of how much, and shows it as a bar in a terminal."""
    if not STDERR.is_terminal:
        yield lambda done, of: None
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=STDERR, transient=True) as bar:
        row = bar.add_task(title, total=None)
        yield lambda done, of: bar.update(row, completed=done, total=of)
