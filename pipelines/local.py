"""Run a pipeline on this machine with KFP's own local runner, and follow its tasks.

The pipeline runs in a process of its own, because KFP's local runner prints everything it does and keeps state in its
process. Its output goes to a log file; the lines in which steps report their progress
(:mod:`driftline.components.steps`) are handed on as they appear.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from driftline.components.errors import DriftlineError, UsageError

Listener = Callable[[dict[str, Any]], None]

MARK: Final = re.compile(r'{"(?:driftline|error)": ')  # how a progress record begins, and a failure's
_FIELDS: Final = {"driftline", "step", "task", "tasks"}  # what every record has
_STOP_S: Final = 0.5  # killed processes are gone within milliseconds; those that nobody reaps keep their names longer


class PipelineFailed(DriftlineError):  # noqa: N818  it names what happened, not a class of mistakes
    """A task failed."""


def run_pipeline(name: str, arguments: Mapping[str, Any], *, log: Path, listener: Listener) -> None:
    """Run a pipeline and wait for its end.

    Args:
        name: name of the pipeline.
        arguments: its parameters.
        log: file for everything that the tasks print; messages refer to it by its name.
        listener: called with each progress record, as :mod:`driftline.components.steps` describes it.

    Raises:
        UsageError: a task refused a setting.
        PipelineFailed: a task failed otherwise; the message is that of its error.
    """
    with tempfile.TemporaryDirectory(prefix="driftline-run-") as root, log.open("wb") as file:
        command = [sys.executable, "-m", "driftline.pipelines.local_run", root]
        # KFP's tasks leave files in the temporary folder, and those that are killed leave more: they get one of their
        # own, which goes with the run.
        temporary = Path(root) / "tmp"
        temporary.mkdir()
        # Tasks import the installed package, whatever folder the user stands in.
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # so that the tasks, its children, can be stopped with it
        )
        try:
            failed, unfinished = _follow(process, {"pipeline": name, "arguments": dict(arguments)}, file, listener)
        finally:
            _stop(process)
    if failed is not None:
        error = UsageError if failed["kind"] == UsageError.__name__ else PipelineFailed
        raise error(str(failed.get("message", failed["error"])))
    if process.returncode != 0:
        raise PipelineFailed(
            f"{unfinished}: ended without saying why, as a task does that is killed when memory runs out; "
            f"{log.name} has all that it printed"
        )


def _follow(
    process: subprocess.Popen[bytes], request: Mapping[str, Any], log: BinaryIO, listener: Listener
) -> tuple[dict[str, Any] | None, str]:
    """Hand on progress until the process ends.

    Returns:
        The first record of a failure, and the names of the tasks that began and said nothing of their end.
    """
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the pipeline's process has no pipes")
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    failed: dict[str, Any] | None = None
    running: dict[str, None] = {}
    for raw in process.stdout:
        log.write(raw)
        log.flush()  # to be read while the run goes on
        for record in progress_records(raw.decode(errors="replace")):
            task = task_name(record)
            if record["driftline"] == "start":
                running[task] = None
            elif record["driftline"] in ("done", "failed"):
                running.pop(task, None)
            if record["driftline"] == "failed":
                failed = failed or record
            listener(record)
    process.wait()
    return failed, ", ".join(running) or "a task"


def task_name(record: Mapping[str, Any]) -> str:
    """Return the name of the task that a progress record is of, such as ``kernel 2/4``."""
    name = str(record["step"])
    return f"{name} {int(record['task']) + 1}/{record['tasks']}" if int(record["tasks"]) > 1 else name


def progress_records(line: str) -> Iterator[dict[str, Any]]:
    """Yield the progress records in a line of output; tasks that print at once may leave several in one line."""
    place = 0
    while (mark := MARK.search(line, place)) is not None:
        try:
            record, place = json.JSONDecoder().raw_decode(line, mark.start())
        except ValueError:
            place = mark.end()  # torn in two by another task's line; the log has it as it came
        else:
            if record.keys() >= _FIELDS:
                yield record


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its tasks, if they still run: on Ctrl-C, or when the listener failed.

    They are killed outright: asked politely, KFP's runner would first start the tasks that still wait. Nothing is lost,
    as what they write becomes visible whole or not at all, and their temporary folder goes with the run.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + _STOP_S
        while _group_exists(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
    if process.stdout is not None:
        process.stdout.close()


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS names the latter where only the dead are left
        return False
    return True
