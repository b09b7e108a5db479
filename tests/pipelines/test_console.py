from __future__ import annotations

import io
import logging
import re

import pytest
from rich.console import Console

from driftline.components.errors import DataError
from driftline.components.steps import LOGGER, StepClock, logged_step
from driftline.pipelines import console
from driftline.pipelines.console import Display, following

STEPS = ("sample", "kernel", "report")


def record(event: str, step: str, task: int = 0, tasks: int = 1, **more) -> dict:
    return {"driftline": event, "step": step, "task": task, "tasks": tasks, **more}


RUN = [
    record("start", "sample"),
    record("done", "sample", seconds=0.25),
    *(record("start", "kernel", task, 4) for task in range(4)),
    record("progress", "kernel", 0, 4, done=1, of=2, unit="tiles", per_second=3.6, seconds_left=12.4),
    *(record("done", "kernel", task, 4, seconds=1.5) for task in range(4)),
    record("start", "report"),
    record("progress", "report", drift=True, p_value=0.01),
    record("done", "report", seconds=0.125),
]


@pytest.fixture
def screen(monkeypatch):
    def make(terminal: bool) -> io.StringIO:
        file = io.StringIO()
        made = Console(file=file, force_terminal=terminal, width=100, highlight=False, soft_wrap=True)
        monkeypatch.setattr(console, "STDERR", made)
        return file

    return make


def rows(display: Display) -> list[list[str]]:
    file = io.StringIO()
    Console(file=file, width=100).print(display.table())
    return [line.split() for line in file.getvalue().splitlines()]


def test_a_log_gets_one_plain_line_for_each_end_and_each_word_of_progress(screen):
    file = screen(False)
    with Display("[drift]", STEPS) as display:
        for value in RUN:
            display(value)
    assert file.getvalue().splitlines() == [
        "[drift]: sample done in 0.25 s",
        "[drift]: kernel 1/4 1 of 2 tiles, 4/s, 12 s left",
        *(f"[drift]: kernel {task}/4 done in 1.50 s" for task in (1, 2, 3, 4)),
        "[drift]: report done in 0.12 s",
    ]


def test_the_table_counts_tasks_and_adds_their_seconds(screen):
    screen(False)
    with Display("drift", STEPS) as display:
        for value in RUN:
            display(value)
    assert rows(display) == [
        ["drift"],
        ["step", "tasks", "seconds"],
        ["sample", "1", "0.25"],
        ["kernel", "4", "6.00"],
        ["report", "1", "0.12"],
    ]


def test_the_bar_fills_by_tasks_and_parts_of_tasks_up_to_its_steps(screen):
    screen(True)
    filled = []
    with Display("drift", STEPS) as display:
        for value in RUN:
            display(value)
            [bar] = display._bar.tasks
            filled.append(bar.completed)
        assert bar.total == len(STEPS)
    done = [0, 1, 1, 1, 1, 1, 1.125, 1.25, 1.5, 1.75, 2, 2, 2, 3]
    assert filled == pytest.approx(done)


def test_a_terminal_gets_the_table_at_the_end_and_a_failure_gets_none(screen):
    file = screen(True)
    with Display("drift", STEPS) as display:
        for value in RUN:
            display(value)
    assert re.search(r"^kernel +4 +6\.00", file.getvalue(), re.MULTILINE)

    file = screen(True)

    def fail() -> None:
        with Display("drift", STEPS) as display:
            display(RUN[0])
            display(record("failed", "sample", error="no", kind="DataError"))
            raise DataError("no")

    with pytest.raises(DataError):
        fail()
    assert "seconds" not in file.getvalue()
    assert file.getvalue().rstrip().endswith("\x1b[2K")  # the bar is wiped away


def test_unknown_time_left_and_nothing_to_do(screen):
    file = screen(False)
    with Display("embed", ("embed",)) as display:
        display(record("progress", "embed", done=0, of=0, unit="texts", per_second=0.0, seconds_left=None))
        display(record("failed", "embed", 1, 2, error="x", kind="DataError"))
    assert file.getvalue().splitlines() == ["embed: embed 0 of 0 texts, 0/s", "embed: embed 2/2 failed"]


def test_steps_of_this_process_are_followed_for_the_length_of_the_block(screen):
    file = screen(False)
    before = LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)
    with following(Display("embed", ("plan", "embed"))):
        assert LOGGER.isEnabledFor(logging.INFO)
        with logged_step("plan"):
            pass
        with pytest.raises(DataError), logged_step("embed", 1, 2):
            raise DataError("no")
    assert (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)) == before
    StepClock("finish").log("start")
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("embed: plan done in 0.0")
    assert lines[1:] == ["embed: embed 2/2 failed"]


def test_what_a_step_warns_of_is_shown_as_it_is(screen):
    file = screen(False)
    with following(Display("embed", ("plan",))), logged_step("plan"):
        LOGGER.warning("%s: cannot be read [%s]; it is made anew", "/x", "red")
    lines = file.getvalue().splitlines()
    assert lines[0] == "/x: cannot be read [red]; it is made anew"
    assert lines[1].startswith("embed: plan done in ")
