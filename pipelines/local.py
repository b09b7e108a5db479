"""Run a pipeline on this machine with KFP's own local runner, and follow its tasks.

The pipeline runs in a process of its own, because KFP's local runner prints everything it does and keeps state in its
process. Its output goes to a log file; the lines in which steps report their progress
(:mod:`driftline.components.steps`) are handed on as they appear.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from driftline.components.errors import DriftlineError, UsageError

Listener = Callable[[dict[str, Any]], None]

MARK: Final = '{"driftline": '
_STOP_GRACE_S: Final = 10.0  # a task that is told to stop gets this long to remove its temporary files


class PipelineFailed(DriftlineError):  # noqa: N818  it names what happened, not a class of mistakes
    """A task failed."""


def run_pipeline(name: str, arguments: Mapping[str, Any], *, log: Path, listener: Listener) -> None:
    """Run a pipeline and wait for its end.

    Args:
        name: name of the pipeline.
        arguments: its parameters.
        log: file for everything that the tasks print.
        listener: called with each progress record, as :mod:`driftline.components.steps` describes it.

    Raises:
        UsageError: a task refused a setting.
        PipelineFailed: a task failed otherwise; the message is that of its error.
    """
    with tempfile.TemporaryDirectory(prefix="driftline-run-") as root, log.open("wb") as file:
        command = [sys.executable, "-m", "driftline.pipelines.local_run", root]
        # Tasks import the installed package, whatever folder the user stands in.
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # so that the tasks, its children, can be stopped with it
        )
        try:
            failed, last = _follow(process, {"pipeline": name, "arguments": dict(arguments)}, file, listener)
        finally:
            _stop(process)
    if failed is not None:
        error = UsageError if failed["kind"] == UsageError.__name__ else PipelineFailed
        raise error(str(failed["error"]))
    if process.returncode != 0:
        raise PipelineFailed(f"a task ended without a clear error; the last line it printed is: {last}")


def _follow(
    process: subprocess.Popen[bytes], request: Mapping[str, Any], log: BinaryIO, listener: Listener
) -> tuple[dict[str, Any] | None, str]:
    """Hand on progress until the process ends; return the first record of a failure, and the last line printed."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the pipeline's process has no pipes")
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    failed: dict[str, Any] | None = None
    last = "it printed nothing"
    for raw in process.stdout:
        log.write(raw)
        line = raw.decode(errors="replace").strip()
        records = list(progress_records(line))
        for record in records:
            if record["driftline"] == "failed":
                failed = failed or record
            listener(record)
        if line and not records:
            last = line
    process.wait()
    return failed, last


def progress_records(line: str) -> Iterator[dict[str, Any]]:
    """Yield the progress records in a line of output; tasks that print at once may leave several in one line."""
    start = line.find(MARK)
    while start >= 0:
        try:
            record, end = json.JSONDecoder().raw_decode(line, start)
        except ValueError:
            end = start + len(MARK)  # torn in two by another task's line; the log has it as it came
        else:
            yield record
        start = line.find(MARK, end)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its tasks, if they still run: on Ctrl-C, or when the listener failed."""
    if process.poll() is None:
        _signal_group(process.pid, 15)
        try:
            process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal_group(process.pid, 9)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _signal_group(group: int, signal: int) -> None:
    try:
        os.killpg(group, signal)
    except ProcessLookupError:
        return  # it ended by itself
