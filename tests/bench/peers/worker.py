"""What every contender of the speed benchmark runs in: a process of its own, which measures when it is asked to.

A contender is a module that imports what it needs, defines ``run(case, x, y)`` and calls :func:`serve`. The benchmark
starts it with the case's dimensions and permutations, and asks for one measurement by writing a number of rows on a
line to its standard input; the answer is one line of JSON. By hand::

    echo 2000 | python tests/bench/peers/scikit.py --dimensions 32 --permutations 500

Only the standard library and NumPy: some contenders live in an environment without Driftline.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        rows: rows of each sample, n = m.
        dimensions: d.
        permutations: B; 0 asks for the statistic alone.
        search: many kernels and bandwidths rather than one.
    """

    rows: int
    dimensions: int
    permutations: int
    search: bool = False

    @property
    def gamma(self) -> float:
        """γ of exp(−γ‖x − y‖²), the same for all contenders: near the median heuristic's for standard normal rows."""
        return 0.25 / self.dimensions

    def samples(self) -> tuple[Array, Array]:
        """Return x and y, (rows, d) float32 each, the same in every process: standard normal, y a little shifted."""
        rng = np.random.default_rng([self.rows, self.dimensions])
        x, y = (rng.standard_normal((self.rows, self.dimensions), dtype=np.float32) for _ in "xy")
        y += 0.2
        return x, y


# Returns named figures: "statistic", MMD²_u by the case's kernel, where the contender has it; and whatever else is to
# be kept.
Run = Callable[[Case, Array, Array], Mapping[str, float]]


def memory_mb(field: str) -> float:
    """Return a field of this process's /proc/self/status in MB: ``VmRSS``, resident now, or ``VmHWM``, at its peak.

    Not ru_maxrss: a process starts with its parent's.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise LookupError(field)


def serve(run: Run) -> None:
    """Answer each number of rows on standard input with a line of JSON about one call of ``run``.

    The line holds ``seconds``, by the clock; ``cpu_seconds``, of all threads; ``memory_mb``, the peak so far of the
    whole process; ``growth_mb``, how far that is above what it held after its imports; and what ``run`` returned.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--dimensions", type=int, required=True)
    parser.add_argument("--permutations", type=int, default=0)
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    imported = memory_mb("VmRSS")
    for line in sys.stdin:
        case = Case(int(line), options.dimensions, options.permutations, options.search)
        x, y = case.samples()
        began, began_cpu = time.perf_counter(), time.process_time()
        figures = run(case, x, y)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        peak = memory_mb("VmHWM")
        answer = {"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_mb": peak, "growth_mb": peak - imported}
        print(json.dumps({**answer, **figures}), flush=True)
