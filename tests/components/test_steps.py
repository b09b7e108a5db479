from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components import steps
from driftline.components.errors import DataError, StorageError
from driftline.components.settings import MAX_TASKS
from driftline.components.steps import (
    LOGGER,
    Skipped,
    StepClock,
    check_not_skipped,
    logged_step,
    shares,
    write_skipped,
)


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
    with logged_step("embed", 2, 5) as task:
        assert lines() == [{"driftline": "start", "step": "embed", "task": 2, "tasks": 5}]
        clock.now += 3.25
        assert task.seconds == 3.25
    assert lines()[1:] == [{"driftline": "done", "step": "embed", "task": 2, "tasks": 5, "seconds": 3.25}]


def test_a_step_of_one_task_is_task_0_of_1(lines: Callable[[], list[dict[str, Any]]]):
    with logged_step("plan"):
        pass
    assert [(line["task"], line["tasks"]) for line in lines()] == [(0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("file x: row 3 is odd"), {"error": "file x: row 3 is odd"}),
        (
            StorageError("/data: cannot write: full"),
            {"error": "cannot write: full (/data)", "message": "/data: cannot write: full"},
        ),
    ],
)
def test_an_error_is_one_line_in_the_log_before_it_is_raised(
    clock: Clock,
    lines: Callable[[], list[dict[str, Any]]],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    told: dict[str, str],
):
    seen: list[dict[str, Any]] = []
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        try:
            with logged_step("finish"):
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
        **told,
        "kind": type(error).__name__,
        "seconds": 1.0,
    }
    assert next(iter(seen[1])) == "error", "what the UI shows is the line's beginning"
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert "\n" not in caplog.records[1].getMessage()


def test_who_runs_a_step_in_his_own_process_keeps_his_excepthook(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("_KFP_RUNTIME", raising=False)
    before = sys.excepthook
    with pytest.raises(DataError), logged_step("finish"):
        raise DataError("/x: is damaged")
    assert sys.excepthook is before


def test_a_components_process_tells_an_error_in_one_line_and_a_defect_as_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("_KFP_RUNTIME", "true")
    defects: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: defects.append(error))
    with logged_step("plan"), logged_step("within"):
        pass
    capsys.readouterr()
    hook = sys.excepthook
    hook(DataError, DataError("/x/y: is damaged"), None)
    assert capsys.readouterr() == ("", "is damaged (/x/y)\n")
    hook(DataError, DataError(""), None)
    assert capsys.readouterr() == ("", "DataError\n")
    defect = ZeroDivisionError()
    hook(ZeroDivisionError, defect, None)
    assert defects == [defect]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_components_lines_are_whole_whatever_they_hold(monkeypatch: pytest.MonkeyPatch, encoding: str):
    monkeypatch.setenv("_KFP_RUNTIME", "true")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(DataError), logged_step("plan"):
        raise DataError("/x/\udce9: is da\nmaged, 文")
    _, failure = raw.getvalue().decode(encoding).splitlines()
    assert failure.startswith('{"error": "is da maged, ')
    assert "\\udce9" in failure


def test_a_log_that_cannot_be_written_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_KFP_RUNTIME", "true")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("no space left on device")

    for stream in (None, closed, Full()):
        monkeypatch.setattr(sys, "stdout", stream)
        with logged_step("plan"):
            pass


def test_a_defect_is_left_to_its_traceback(lines: Callable[[], list[dict[str, Any]]]):
    with pytest.raises(ZeroDivisionError), logged_step("finish"):
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


# Skipped runs and fan-outs ----------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.dictionaries(st.sampled_from("abc"), plain))
def test_who_reads_a_skipped_run_s_artifact_learns_why(tmp_path_factory: Any, why: str, told: dict[str, Any]):
    place = tmp_path_factory.mktemp("skipped") / "new" / "artifact"
    write_skipped(str(place), Skipped(why, told))
    with pytest.raises(Skipped) as caught:
        check_not_skipped(place.read_bytes())
    assert (caught.value.why, caught.value.fields) == (why, told)


@given(st.binary() | plain.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_no_skipped_run_s(content: bytes):
    check_not_skipped(content)


def test_a_skipped_step_hands_it_on_and_ends_well(tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]):
    places = [str(tmp_path / name) for name in ("plan.json", "deep/witness.npy")]
    with logged_step("plan", outputs=places):
        raise Skipped("current /x: the window is empty", {"run": {"id": "1"}})
    assert [(line["driftline"], line.get("skipped")) for line in lines()] == [
        ("start", None),
        ("done", "current /x: the window is empty"),
    ]
    for place in places:
        with pytest.raises(Skipped) as caught:
            check_not_skipped(Path(place).read_bytes())
        assert caught.value.fields == {"run": {"id": "1"}}


def test_a_step_that_goes_well_hands_no_mark_on(tmp_path: Path):
    place = tmp_path / "plan.json"
    with logged_step("plan", outputs=[str(place)]):
        pass
    with pytest.raises(DataError), logged_step("plan", outputs=[str(place)]):
        raise DataError("/x: is damaged")
    assert not place.exists()


@given(st.integers(1, MAX_TASKS))
def test_each_task_of_a_fan_out_is_an_item(tasks: int):
    assert shares(tasks) == [{"task": task, "tasks": tasks} for task in range(tasks)]
