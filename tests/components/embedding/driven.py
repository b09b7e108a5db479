"""Backfills whose tasks run in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("task_driver.py")


class Driver:
    """The program that runs tasks; see `task_driver`."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._process = process
        self._errors = errors

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.errors
        return json.loads(answer)

    @property
    def errors(self) -> str:
        """All that the tasks wrote to their standard error."""
        return self._errors.read_text()


@contextmanager
def task_driver(folder: Path) -> Iterator[Driver]:
    """Run the program."""
    errors = folder / "driver-errors.txt"
    temporary = folder / "tmp"  # of processes that are killed, who leave it behind
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(DRIVER.parents[3]), "TMPDIR": str(temporary)}
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            yield Driver(process, errors)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


@dataclass(frozen=True, slots=True)
class DrivenBackfill:
    """A backfill by one task, with its artifacts in a folder."""

    driver: Driver
    folder: Path
    inputs: list[str]
    model: Path
    out: str
    settings: dict[str, Any] = field(default_factory=dict)

    def steps(self, *names: str) -> list[tuple[str, dict[str, Any]]]:
        """Return steps with their arguments."""
        planned = str(self.folder / "plan.json")
        arguments: dict[str, dict[str, Any]] = {
            "plan": {
                "texts": self.inputs,
                "model": str(self.model),
                "out": self.out,
                "embed_tasks": 1,
                "plan_out": planned,
            }
            | {key: value for key, value in self.settings.items() if key not in ("chunk_texts", "chunk_s")},
            "embed": {"planned": planned, "share": {"task": 0, "tasks": 1}},
            "finish": {"planned": planned, "dataset_out": str(self.folder / "out.json")},
        }
        return [(name, arguments[name]) for name in names]

    def start(self, *names: str, **request: Any) -> dict[str, Any]:
        """Run some steps, all by default, in one process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {key: self.settings[key] for key in ("chunk_texts", "chunk_s") if key in self.settings}
        steps = self.steps(*(names or ("plan", "embed", "finish")))
        return self.driver.ask(do="start", steps=steps, log=str(self.log), **(settings | request))

    @property
    def log(self) -> Path:
        """A line for each chunk whose encoding began."""
        return self.folder / "chunks.log"

    def begun(self) -> Counter[str]:
        """Return how many times the encoding of each chunk began."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(line.split()[1] for line in lines)
