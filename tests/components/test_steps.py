from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from driftline.components import steps
from driftline.components.errors import DataError, StorageError
from driftline.components.steps import LOGGER, StepClock, running


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(steps, "time", clock)
    return clock


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, logger=LOGGER.name)

    def read() -> list[dict[str, Any]]:
        return [json.loads(record.getMessage()) for record in caplog.records if record.name == "driftline"]

    return read


def test_a_task_says_that_it_starts_and_ends(clock: Clock, lines: Callable[[], list[dict[str, Any]]]):
    with running("embed", 2, 5) as task:
        assert lines() == [{"driftline": "start", "step": "embed", "task": 2, "tasks": 5}]
        clock.now += 3.25
        assert task.seconds == 3.25
    assert lines()[1:] == [{"driftline": "done", "step": "embed", "task": 2, "tasks": 5, "seconds": 3.25}]


def test_a_step_of_one_task_is_task_0_of_1(lines: Callable[[], list[dict[str, Any]]]):
    with running("plan"):
        pass
    assert [(line["task"], line["tasks"]) for line in lines()] == [(0, 1), (0, 1)]


@pytest.mark.parametrize("error", [DataError("file x: row 3 is odd"), StorageError("/data: cannot write: full")])
def test_an_error_is_one_line_in_the_log_before_it_is_raised(
    clock: Clock, lines: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture, error: Exception
):
    seen: list[dict[str, Any]] = []
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        try:
            with running("finish"):
                clock.now += 1.0004
                raise error
        except type(error):
            seen = lines()
            raise
    assert caught.value is error
    assert [line["driftline"] for line in seen] == ["start", "failed"]
    assert seen[1] == {
        "driftline": "failed",
        "step": "finish",
        "task": 0,
        "tasks": 1,
        "error": str(error),
        "kind": type(error).__name__,
        "seconds": 1.0,
    }
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert "\n" not in caplog.records[1].getMessage()


def test_a_defect_is_left_to_its_traceback(lines: Callable[[], list[dict[str, Any]]]):
    with pytest.raises(ZeroDivisionError), running("finish"):
        _ = 1 / 0
    assert [line["driftline"] for line in lines()] == ["start"]


def test_progress_is_said_every_two_seconds_at_most(clock: Clock, lines: Callable[[], list[dict[str, Any]]]):
    task = StepClock("embed")
    spoken = []
    for done in range(1, 101):
        clock.now += 0.25
        before = len(lines())
        task.progress(done, 100, "texts")
        if len(lines()) > before:
            spoken.append(done)
    assert spoken == list(range(8, 101, 8))


def test_progress_says_how_fast_and_how_long_yet(clock: Clock, lines: Callable[[], list[dict[str, Any]]]):
    task = StepClock("embed", 1, 3)
    clock.now += 4
    task.progress(50, 300, "texts")
    assert lines() == [
        {
            "driftline": "progress",
            "step": "embed",
            "task": 1,
            "tasks": 3,
            "done": 50,
            "of": 300,
            "unit": "texts",
            "per_second": 12.5,
            "seconds_left": 20.0,
        }
    ]


def test_progress_without_any_yet_promises_nothing(clock: Clock, lines: Callable[[], list[dict[str, Any]]]):
    task = StepClock("project")
    clock.now += 4
    task.progress(0, 300)
    (line,) = lines()
    assert (line["unit"], line["per_second"], line["seconds_left"]) == ("rows", 0.0, None)


def test_a_line_keeps_every_script_and_stays_one_line(
    lines: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
):
    StepClock("embed").log("progress", unit="текст 文\n\u2028")
    assert lines()[0]["unit"] == "текст 文\n\u2028"
    message = caplog.records[0].getMessage()
    assert "текст 文" in message
    assert "\n" not in message
