"""Who is measured in the speed benchmark, and one cell of it: the contenders of a task in turn, round after round."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import harness
from harness import Budget, Figures, Worker, WorkerError

PEERS = Path(__file__).resolve().parent / "peers"
PEERS_ENVIRONMENT = PEERS.parents[2] / ".venv-peers"
PERMUTATIONS = 500
ALIBI_PERMUTATIONS = 100
# The cell that the promised ratios are about: rows, dimensions.
PROMISED = (10_000, 32)
PROMISED_LONGEST_S = 900.0  # alibi-detect takes six minutes there
START_S = 180.0  # imports, and the compilers of KeOps and JAX
# Compiling takes JAX up to some seconds a size: a longer single measurement may as well hold it.
COMPILING_COUNTS_S = 60.0
TIME_OVER = "left out: the run's time is over"
# Not what KeOps compiles with unless it is told, but two to three times as fast.
NATIVE, KEOPS_NATIVE = "-march=native -ffast-math", "KeOps, compiled for this processor"
OURS, FLOOR = "driftline", "floor"


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured.

    Attributes:
        name: the table's word for it.
        module: its file in peers/, without the suffix.
        permutations: B, or 0.
        apart: it lives in the peers' environment.
        flags: the C++ compiler's, for KeOps.
        matrices: how many whole (2n)² float32 matrices it holds at its peak; it is left out where they do not fit.
        growth: its time grows as rows to this power.
    """

    name: str
    module: str
    permutations: int = 0
    search: bool = False
    apart: bool = False
    flags: str = ""
    matrices: float = 0.0
    growth: float = 2.0


TASKS: Mapping[str, tuple[Contender, ...]] = {
    "statistic": (
        Contender(OURS, "ours"),
        Contender(FLOOR, "floor", growth=0.0),
        Contender("scikit-learn", "scikit"),
        Contender("KeOps", "keops", apart=True),
        Contender(KEOPS_NATIVE, "keops", apart=True, flags=NATIVE),
    ),
    "test": (
        Contender(OURS, "ours", PERMUTATIONS),
        Contender(FLOOR, "floor", PERMUTATIONS, growth=0.0),
        Contender(KEOPS_NATIVE, "keops", PERMUTATIONS, apart=True, flags=NATIVE),
        Contender("alibi-detect, B = 100", "alibi_mmd", ALIBI_PERMUTATIONS, apart=True, matrices=3.5),
    ),
    "search": (
        Contender(OURS, "ours", PERMUTATIONS, search=True),
        Contender("MMD-FUSE's way, whole matrices", "fuse", PERMUTATIONS, search=True, matrices=4.0),
    ),
}


@dataclass(slots=True)
class Outcome:
    """What was measured of one contender in one cell; ``why_not`` where it was not measured."""

    contender: Contender
    rounds: list[Figures] = field(default_factory=list[Figures])
    predicted_s: float | None = None
    why_not: str = ""

    def figures(self) -> dict[str, float]:
        """Medians; of the floor, the sum of its stages as its seconds. Empty where nothing was measured.

        The panels count in float32 or bfloat16, whichever is faster; int8, in which kernel values are no longer close
        to themselves, stands beside.
        """
        if not self.rounds:
            return {}
        middle = harness.medians(self.rounds)
        parts = harness.fastest_parts(middle)
        if not parts:
            return middle
        panels = [parts[name] for name in ("panels float32", "panels bfloat16") if name in parts]
        return {**middle, **parts, "seconds": parts["products"] + parts["exponentials"] + min(panels, default=0.0)}

    def seconds(self) -> float | None:
        """Median seconds; None where nothing was measured."""
        return self.figures().get("seconds")


@dataclass(slots=True)
class Bench:
    """One run of the benchmark.

    Attributes:
        budget: how long a contender may take in one cell.
        peers_python: the interpreter of the peers' environment.
        until: the monotonic time after which no further cell is begun.
        seen: (task, contender, d) → rows and seconds last measured, which the next size is predicted from.
    """

    budget: Budget
    peers_python: Path
    until: float
    seen: dict[tuple[str, str, int], tuple[int, float]] = field(
        default_factory=dict[tuple[str, str, int], tuple[int, float]]
    )

    def cell(self, task: str, rows: int, d: int) -> list[Outcome]:
        """Measure all contenders of a task for two samples of ``rows`` rows of ``d`` dimensions."""
        outcomes = [Outcome(contender) for contender in TASKS[task]]
        if time.monotonic() > self.until:
            for outcome in outcomes:
                outcome.why_not = TIME_OVER
            return outcomes
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            repeats: dict[str, int] = {}
            for outcome in outcomes:
                name = outcome.contender.name
                try:
                    worker = stack.enter_context(self._start(outcome.contender, rows, d))
                    repeats[name] = self._prepare(worker, outcome, task, rows, d)
                    workers[name] = worker
                except WorkerError as error:
                    outcome.why_not = str(error)
            for turn in range(max(repeats.values(), default=0)):
                for outcome in outcomes:
                    name = outcome.contender.name
                    if turn >= repeats.get(name, 0) or outcome.why_not:
                        continue
                    try:
                        outcome.rounds.append(workers[name].measure(rows, _patience(outcome.predicted_s)))
                    except WorkerError as error:
                        outcome.why_not = str(error)
                    if turn + 1 == repeats[name]:
                        workers[name].close()
        for outcome in outcomes:
            if outcome.rounds:
                wall = harness.medians(outcome.rounds)["seconds"]
                self.seen[task, outcome.contender.name, d] = (rows, wall)
        return outcomes

    def _start(self, contender: Contender, rows: int, d: int) -> Worker:
        needed = contender.matrices * 4 * (2 * rows) ** 2 / 2**20
        if needed > 0.8 * harness.memory_available_mb():
            raise WorkerError(f"needs about {needed / 1024:.0f} GB of memory")
        python = self.peers_python if contender.apart else Path(sys.executable)
        if not python.exists():
            raise WorkerError("not installed: run `python tests/bench/peers/install.py`")
        command = [python, PEERS / f"{contender.module}.py", "--dimensions", str(d)]
        command += ["--permutations", str(contender.permutations), *(["--search"] if contender.search else [])]
        if not contender.apart:
            return Worker(command)
        # What KeOps compiles stays in the environment's folder, apart by flags, which it does not tell apart.
        cache = python.parents[1] / ("keops-native" if contender.flags else "keops")
        cache.mkdir(exist_ok=True)
        return Worker(command, {"KEOPS_CACHE_FOLDER": str(cache), "CXXFLAGS": contender.flags})

    def _prepare(self, worker: Worker, outcome: Outcome, task: str, rows: int, d: int) -> int:
        """Compile, predict, warm up; return the number of repeats."""
        if time.monotonic() > self.until:
            raise WorkerError(TIME_OVER)
        contender = outcome.contender
        known = self.seen.get((task, contender.name, d))
        if known is None:
            probe = max(200, rows // 5)
            worker.measure(probe, START_S)
            known = (probe, worker.measure(probe, START_S)["seconds"])
        predicted = harness.predicted_seconds(known[1], known[0], rows, contender.growth)
        outcome.predicted_s = predicted
        longest_s = self.budget.longest_s
        if (rows, d) == PROMISED and self.budget.longest_s >= 60:
            longest_s = PROMISED_LONGEST_S
        repeats = Budget(longest_s, self.budget.total_s, self.budget.repeats).repeats_of(predicted)
        if not repeats:
            raise WorkerError(f"left out: about {predicted:,.0f} s")
        if time.monotonic() + predicted > self.until:
            raise WorkerError(TIME_OVER)
        if repeats > 1 or predicted < COMPILING_COUNTS_S:
            worker.measure(rows, _patience(predicted))
        return repeats


def _patience(predicted_s: float | None) -> float:
    return START_S + 5 * (predicted_s or 0)
