"""Speed and memory of the two-sample test: `make bench`.

In one run, interleaved and repeated, medians: Driftline's statistic and its test with 500 permutations, scikit-learn's
three kernel matrices and their sums, and the floor: the same tiles' matrix products and exponentials alone, measured
apart. Printed as a table and written to bench-results/kernel.json with a description of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

from driftline.components.kernel.engine import array_blocks, sum_tiles
from driftline.components.kernel.functions import RBF
from driftline.components.kernel.labellings import LabelPanels, permutation_cuts
from driftline.components.kernel.plan import BlockGrid
from driftline.components.mmd import two_sample_test

PERMUTATIONS = 500
BLOCK = 1024
MEMORY = """
import sys
from pathlib import Path
import numpy as np
from driftline.components.mmd import two_sample_test
rows, d = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
x, y = (rng.normal(size=(rows, d)).astype(np.float32) for _ in "xy")
two_sample_test(x, y, permutations=500, bandwidth=0.5 / d)
# Not ru_maxrss: a process starts with its parent's.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""

Case = Callable[[], Any]


def cases(rows: int, d: int) -> dict[str, Case]:
    """Return what is timed for two samples of ``rows`` rows of ``d`` dimensions, by name."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(rows, d)).astype(np.float32) for _ in "xy")
    gamma = 0.5 / d
    z = np.concatenate([x, y])
    z -= z.mean(axis=0)
    grid = BlockGrid.of(2 * rows, BLOCK)
    no_cuts = permutation_cuts(0, 0, rows, 2 * rows)

    def statistic() -> Any:
        panels = LabelPanels(0, no_cuts, rows, 2 * rows, grid.block)
        return sum_tiles(array_blocks(z, grid), grid.tiles(), grid, RBF(gamma), panels, 0, precision="float32")

    def scikit_learn() -> float:
        return (
            float(rbf_kernel(x, x, gamma).sum())
            + float(rbf_kernel(y, y, gamma).sum())
            - 2 * float(rbf_kernel(x, y, gamma).sum())
        )

    tile = jnp.asarray(z[:BLOCK])
    values = jnp.asarray(-np.abs(rng.normal(size=(BLOCK, BLOCK)).astype(np.float32)))
    panel = jnp.asarray(rng.integers(0, 2, size=(BLOCK, PERMUTATIONS + 2)).astype(np.float32))
    product = jax.jit(lambda a: a @ a.T)
    exponential = jax.jit(jnp.exp)
    times_panel = jax.jit(lambda a, b: a @ b)
    tiles = len(grid.tiles())

    def floor(*stages: Callable[[], jax.Array]) -> Case:
        def run() -> None:
            for stage in stages:
                for _ in range(tiles):
                    stage().block_until_ready()

        return run

    products = (lambda: product(tile), lambda: exponential(values))
    return {
        "driftline, statistic": statistic,
        "floor, statistic: products + exponentials": floor(*products),
        "scikit-learn, three rbf_kernel and sums": scikit_learn,
        f"driftline, test with {PERMUTATIONS} permutations": lambda: two_sample_test(
            x, y, bandwidth=gamma, permutations=PERMUTATIONS
        ),
        "floor, test: and panel products": floor(*products, lambda: times_panel(values, panel)),
    }


def measure(rows: int, d: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of each case, the cases interleaved, after one untimed round."""
    timed = cases(rows, d)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(repeats + 1):
        for name, case in timed.items():
            began = time.perf_counter()
            case()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory_mb(rows: int, d: int) -> float:
    """Return the peak resident memory of one test in a process of its own, imports included."""
    command = [sys.executable, "-c", MEMORY, str(rows), str(d)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def machine() -> dict[str, Any]:
    """Describe the machine and the versions."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    packages = ("driftline", "jax", "numpy", "scikit-learn")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": {name: version(name) for name in packages},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 10_000], help="rows of each sample")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[32, 384])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-results/kernel.json"))
    options = parser.parse_args()
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores; median of {options.repeats}\n")
    results = []
    for rows in options.rows:
        for d in options.dimensions:
            seconds = measure(rows, d, options.repeats)
            memory = peak_memory_mb(rows, d)
            results.append({"rows": rows, "dimensions": d, "seconds": seconds, "peak_memory_mb": memory})
            print(f"{rows} against {rows} rows, d = {d}; peak memory of the test {memory:.0f} MB")
            for name, value in seconds.items():
                print(f"  {name:44} {value:9.3f} s")
            print()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": about, "results": results}, indent=2) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
