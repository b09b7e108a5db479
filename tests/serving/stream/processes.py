"""Stream workers as processes of their own, which can be killed and started again under the same name."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from driftline.serving.stream.settings import StreamSettings
from tests.serving.stream.workers import Topics

_END_TIMEOUT_S = 60
_ROOT = str(Path(__file__).parents[3])


class WorkerProcess:
    """A worker that runs a command."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _ROOT, "PYTHONSAFEPATH": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it without a word."""
        self.end(signal.SIGKILL)

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the status with which the process ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def light_command(topics: Topics, name: str, **changes: object) -> list[str]:
    """Return the command of a worker with the tests' encoder; it starts in a second."""
    settings: StreamSettings = topics.settings(instance_id=name, **changes)
    script = str(Path(__file__).with_name("light_worker.py"))
    return [sys.executable, script, json.dumps(dataclasses.asdict(settings)), topics.bootstrap]


def real_command(topics: Topics, name: str, model: Path, *options: str) -> list[str]:
    """Return the command that users run; it takes several seconds to load."""
    return [
        sys.executable, "-m", "driftline.serving", "stream",
        f"--bootstrap-servers={topics.bootstrap}", f"--input-topic={topics.source}",
        f"--output-topic={topics.output}", f"--model={model}", f"--group={topics.group}",
        f"--instance-id={name}", "--health-port=-1", *options,
    ]  # fmt: skip


@contextmanager
def worker_processes(commands: Sequence[Sequence[str]], folder: Path) -> Generator[list[WorkerProcess]]:
    """Run workers; those that still run at the end are killed."""
    workers = [WorkerProcess(command, folder / f"worker-{number}.log") for number, command in enumerate(commands)]
    try:
        for worker in workers:
            worker.start()
        yield workers
    finally:
        for worker in workers:
            worker.kill()
