from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import DataError, UsageError
from driftline.components.steps import logged_step
from driftline.pipelines import local
from driftline.pipelines.local import PipelineFailed, progress_records, run_pipeline, task_name
from tests.support.command import processes


def record(event: str, step: str = "fit", task: int = 0, tasks: int = 1, **more) -> dict:
    return {"driftline": event, "step": step, "task": task, "tasks": tasks, **more}


DONE, START = record("done", seconds=1.5), record("start", "kernel", 2, 4)
FAILED = {"error": "no row (/x)", **record("failed", "sample", kind="DataError")}
texts = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))
records = st.builds(
    record,
    st.sampled_from(["start", "progress", "done"]),
    step=texts,
    task=st.integers(0, 200),
    tasks=st.integers(1, 200),
    skipped=texts | st.just('{"driftline": "done"}') | st.just('{"error": "no"}'),
) | st.builds(
    lambda error, step: {"error": error, **record("failed", step)},
    texts | st.just('{"driftline": "done"}') | st.just('{"error": "no", "driftline": "failed"}'),
    texts,
)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", []),
        ("INFO - a line of somebody else's", []),
        (json.dumps(DONE), [DONE]),
        (f"    [KFP Executor 2026-01-01 INFO]: {json.dumps(DONE)}  ", [DONE]),
        (json.dumps(DONE) + json.dumps(START), [DONE, START]),
        (f"{json.dumps(DONE)}    [x]: {json.dumps(START)} end", [DONE, START]),
        (json.dumps(DONE)[:30] + json.dumps(START) + json.dumps(DONE)[30:], [START]),
        (json.dumps(DONE)[:-1], []),
        (json.dumps(DONE)[5:], []),
        ('{"driftline": 7} {"driftline": "done", "step": "fit"}', []),
        (json.dumps(FAILED) + json.dumps(START), [FAILED, START]),
        (json.dumps(FAILED)[:12] + json.dumps(START) + json.dumps(FAILED)[12:], [START]),
        ('{"error": "of something else", "code": 7}' + json.dumps(DONE), [DONE]),
        ('{"error": {"driftline": "failed"}} {"error": ', []),
    ],
)
def test_progress_records_of_whole_joined_and_torn_lines(line, found):
    assert list(progress_records(line)) == found


@given(st.lists(st.tuples(texts, records), max_size=5), texts)
def test_every_record_of_a_line_is_found_whatever_stands_between(pairs, last):
    between = [text for text, _ in pairs] + [last]
    line = "".join(text.replace("{", "(") + json.dumps(value) for text, value in pairs) + last.replace("{", "(")
    assert list(progress_records(line)) == [value for _, value in pairs], between


def test_task_names():
    assert task_name(record("start", "fit")) == "fit"
    assert task_name(record("start", "kernel", 0, 1)) == "kernel"
    assert task_name(record("start", "kernel", 3, 4)) == "kernel 4/4"


@pytest.fixture
def acting(tmp_path, monkeypatch):
    """Let a shell script act the process that runs the pipeline: it is given what that process would be."""

    def act(*lines: str) -> None:
        script = tmp_path / "acting"
        script.write_text("\n".join(["#!/bin/sh", f'cat > "{tmp_path}/request"', *lines]) + "\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return act


def say(*values: dict) -> str:
    return "printf '%s\\n' '" + json.dumps(values[0]) + "'" if len(values) == 1 else "\n".join(map(say, values))


def run(tmp_path: Path, listener=None) -> list[dict]:
    heard: list[dict] = []
    run_pipeline("drift", {"tasks": 3}, log=tmp_path / "run.log", listener=listener or heard.append)
    return heard


def test_records_are_handed_on_and_everything_is_logged(tmp_path, acting):
    acting(say(START), "echo 'a warning' >&2", say(DONE), 'echo "$TMPDIR $PYTHONSAFEPATH $*"', 'touch "$TMPDIR/left"')
    assert run(tmp_path) == [START, DONE]
    assert json.loads((tmp_path / "request").read_text()) == {"pipeline": "drift", "arguments": {"tasks": 3}}
    *logged, last = (tmp_path / "run.log").read_text().splitlines()
    assert logged == [json.dumps(START), "a warning", json.dumps(DONE)]
    temporary, safe, *command = last.split()
    assert (safe, command[:2]) == ("1", ["-m", "driftline.pipelines.local_run"])
    assert Path(temporary).parent == Path(command[2])  # the tasks' temporary folder goes with the run's own
    assert not Path(command[2]).exists()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("UsageError", UsageError), ("DataError", PipelineFailed), ("StorageError", PipelineFailed)],
)
def test_the_first_failure_is_raised_by_its_kind(tmp_path, acting, kind, error):
    first = {"error": "the first: do this", **record("failed", "kernel", 1, 4, kind=kind)}
    second = {"error": "the second", **record("failed", "kernel", 2, 4, kind="DataError")}
    acting(say(START, first, second), "exit 1")
    with pytest.raises(error) as raised:
        run(tmp_path)
    assert str(raised.value) == "the first: do this"
    assert isinstance(raised.value, UsageError) == (kind == "UsageError")


def test_a_terminal_gets_the_message_as_it_was_put(tmp_path, acting):
    acting(say({**FAILED, "message": "/x: no row"}), "exit 1")
    with pytest.raises(PipelineFailed, match=r"\A/x: no row\Z"):
        run(tmp_path)


def test_tasks_that_end_without_a_word_are_named(tmp_path, acting):
    begun = [record("start", "fit"), record("done", "fit"), *(record("start", "kernel", task, 3) for task in range(3))]
    acting(say(*begun, record("done", "kernel", 1, 3)), "echo 'RuntimeError: it broke'", "exit 1")
    with pytest.raises(PipelineFailed, match=r"^kernel 1/3, kernel 3/3: ended without saying why.*; run\.log has all"):
        run(tmp_path)
    assert "RuntimeError: it broke" in (tmp_path / "run.log").read_text()


def test_an_end_before_any_task_is_a_failure_too(tmp_path, acting):
    acting("exit 3")
    with pytest.raises(PipelineFailed, match=r"^a task: ended without saying why"):
        run(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_when_the_listener_fails_the_process_and_its_children_are_stopped(tmp_path, acting):
    name = f"{os.getpid()}.125"  # seconds to sleep, and how the sleeper is found
    acting(f"sh -c 'sleep {name}; :' &", f"sleep {name} &", say(START), "wait")

    def fail(_: dict) -> None:
        deadline = time.monotonic() + 30
        while len(processes(f"sleep {name}")) < 3:  # the two sleepers, and the shell around the first
            assert time.monotonic() < deadline
            time.sleep(0.02)
        raise ValueError("the listener failed")

    with pytest.raises(ValueError, match="the listener failed"):
        run(tmp_path, fail)
    assert processes(f"sleep {name}") == []


def test_ctrl_c_stops_the_process(tmp_path, acting):
    acting(say(START), "sleep 1000")
    # As where the tests run in a terminal, whatever they run in.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, lambda _: threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start())
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads((tmp_path / "run.log").read_text()) == START


def test_a_line_that_is_not_utf8_is_logged_as_it_is(tmp_path, acting):
    acting("printf '\\377\\n'", say(DONE))
    assert run(tmp_path) == [DONE]
    assert (tmp_path / "run.log").read_bytes().startswith(b"\xff\n")


def test_marks_are_what_steps_write(caplog):
    caplog.set_level("INFO", logger="driftline")
    with pytest.raises(DataError), logged_step("fit", 1, 3) as clock:  # noqa: PT012
        clock.log("progress", note="{}")
        raise DataError("/x: no {}")
    assert all(local.MARK.match(line) for line in caplog.messages)
    found = [one for line in caplog.messages for one in progress_records(line)]
    assert found[:2] == [record("start", "fit", 1, 3), record("progress", "fit", 1, 3, note="{}")]
    assert found[2].items() >= {"error": "no {} (/x)", "message": "/x: no {}", "kind": "DataError"}.items()
