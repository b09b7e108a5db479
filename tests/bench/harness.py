"""What the benchmarks share: processes to measure in, rounds that interleave them, and what is made of the figures.

Contenders are compared on a machine that others may use too, so each is measured in turn, round after round, and the
medians are compared: a slow minute then falls on all alike. Each has a process of its own (`peers/worker.py` is the
other side), whose peak memory is therefore its own.
"""

from __future__ import annotations

import json
import math
import os
import platform
import select
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, cast

Figures = Mapping[str, float]


class WorkerError(Exception):
    """A contender could not be measured; the message is one line that says why."""


class Worker:
    """A contender's process.

    Args:
        command: the program and its arguments.
        environment: variables set besides this process's own.

    Use it as a context manager, so that no process stays behind.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **(environment or {})},
                bufsize=0,
            )
        except OSError as error:
            self._errors.close()
            raise WorkerError(f"not available: {error}") from error
        self._requests = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        self._unread = b""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, rows: int, timeout_s: float) -> Figures:
        """Ask for one measurement and return what the process answers.

        Raises:
            WorkerError: it ended, said nothing for ``timeout_s`` seconds, or answered something else.
        """
        if self._requests.closed:
            raise WorkerError("its process has been ended")
        try:
            self._requests.write(f"{rows}\n".encode())
        except BrokenPipeError:
            raise WorkerError(self._why()) from None
        deadline = time.monotonic() + timeout_s
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                if line.startswith(b"{"):  # libraries print, too
                    return json.loads(line)
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                self._process.kill()
                raise WorkerError(f"stopped after {timeout_s:.0f} s")
            read = os.read(self._answers.fileno(), 65536)
            if not read:
                raise WorkerError(self._why())
            self._unread += read

    def _why(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        if code < 0:
            return f"ended by signal {-code}" + (", as when memory runs out" if code == -9 else "")
        return f"failed: {lines[-1]}" if lines else f"ended with status {code}"

    def close(self) -> None:
        """End the process."""
        self._requests.close()
        self._answers.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a contender may take.

    Attributes:
        longest_s: one measurement predicted to take longer is left out.
        total_s: repeats are as many as fit into this, one at least.
        repeats: and no more than these.
    """

    longest_s: float
    total_s: float
    repeats: int

    def repeats_of(self, predicted_s: float) -> int:
        """Return how often to measure what should take ``predicted_s``; 0 to leave it out."""
        if predicted_s > self.longest_s:
            return 0
        return max(1, min(self.repeats, int(self.total_s / max(predicted_s, 1e-9))))


def predicted_seconds(seconds: float, rows: int, wanted: int, growth: float = 2.0) -> float:
    """Return the time at ``wanted`` rows of what took ``seconds`` at ``rows``, if it grows as rows^growth."""
    return seconds * (wanted / rows) ** growth


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    """Return each figure's median over the rounds; a figure that some round lacks is left out.

    Raises:
        ValueError: there are no rounds.
    """
    if not rounds:
        raise ValueError("rounds: expected at least one, got none")
    names = [name for name in rounds[0] if all(name in figures for figures in rounds)]
    return {name: statistics.median(figures[name] for figures in rounds) for name in names}


def growth_exponent(seconds: Mapping[int, float]) -> float | None:
    """Return the p of seconds ≈ c·rowsᵖ by least squares on logarithms; None of fewer than two sizes."""
    if len(seconds) < 2:
        return None
    logs = [(math.log(rows), math.log(value)) for rows, value in seconds.items()]
    middle_x, middle_y = (statistics.fmean(column) for column in zip(*logs, strict=True))
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / sum((x - middle_x) ** 2 for x, _ in logs)


def fastest_parts(figures: Figures) -> dict[str, float]:
    """Return, of figures named ``part/variant``, each part's smallest: {"products/1000": 2, "products/1024": 1} → 1."""
    parts: dict[str, float] = {}
    for name, value in figures.items():
        part, slash, _ = name.partition("/")
        if slash:
            parts[part] = min(value, parts.get(part, math.inf))
    return parts


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of columns, the first set left and the others right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join((cells[0].ljust(widths[0]), *padded[1:])).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def three_digits(value: float | None) -> str:
    """Return a number with three significant digits and no exponent; "-" for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def memory_available_mb() -> float:
    """Return the memory that can be had without swapping, in MB; infinity where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return math.inf
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) / 1024


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the machine, how busy it was, and the versions of packages, for the JSON."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), processor)
    versions: dict[str, str] = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_available_mb": round(memory_available_mb()),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
