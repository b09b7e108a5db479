"""Speed and memory of the two-sample test on an NVIDIA GPU: `python tests/bench/gpu.py --out bench-results/gpu.json`.

One command. Measures the device's own rates of matrix products and exponentials, and the time that these allow for two
samples of a million rows of 64 dimensions; Driftline's time and device memory for the statistic and for the test with
500 permutations; and the same statistic by plain XLA tiles, PyTorch tiles and KeOps, each where it is installed. Each
runs in a process of its own, one after another, since a GPU is measured undisturbed. Where there is no GPU it says so
and ends well.

Install first, in one environment: `pip install -e '.[gpu]'`; and for the peers, in the same or in `.venv-peers`,
`pip install torch pykeops` with CUDA.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
from contenders import PEERS, PEERS_ENVIRONMENT
from harness import Figures, Worker, WorkerError

ROWS, DIMENSIONS, PERMUTATIONS = 1_000_000, 64, 500
START_S = 300.0  # imports, and compiling for the device
PROBE_ROWS = 50_000

# name → module in peers/, permutations, whether it may live in the peers' environment
CONTENDERS: Mapping[str, tuple[str, int, bool]] = {
    "driftline, statistic": ("ours", 0, False),
    f"driftline, test with {PERMUTATIONS} permutations": ("ours", PERMUTATIONS, False),
    "plain XLA tiles, statistic": ("gpu_xla", 0, False),
    "PyTorch tiles, statistic": ("gpu_torch", 0, True),
    "KeOps, statistic": ("keops", 0, True),
}


def gpu_name() -> str | None:
    """Return the first GPU's name and memory as the driver gives them; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None


def roofline(rates: Figures, rows: int, d: int, permutations: int) -> dict[str, float]:
    """Return the seconds that measured rates allow for half of the (2·rows)² pairs.

    Products of rows in TF32 and products with the panel in bf16 share the tensor cores; exponentials run beside them:
    ``roofline_s`` is the longer of the two, ``sum_s`` what it takes if nothing is done at once.

    Args:
        rates: ``tf32`` and ``bf16`` in floating-point operations a second, ``exponentials`` a second.
        rows: rows of each sample.
        d: dimensions.
        permutations: B; 0 for the statistic, whose row sums need no product.
    """
    pairs = rows * (2 * rows + 1)
    panel = 2 * (permutations + 1) * pairs / rates["bf16"] if permutations else 0.0
    products = 2 * d * pairs / rates["tf32"]
    exponentials = pairs / rates["exponentials"]
    return {
        "products_s": products,
        "panel_s": panel,
        "exponentials_s": exponentials,
        "roofline_s": max(products + panel, exponentials),
        "sum_s": products + panel + exponentials,
    }


def python_with(packages: tuple[str, ...]) -> Path | None:
    """Return this interpreter, or the peers', where it has all of these packages."""
    code = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(n) is None for n in {packages!r}))"
    for python in (Path(sys.executable), PEERS_ENVIRONMENT / "bin" / "python"):
        if python.exists() and subprocess.run([python, "-c", code], check=False).returncode == 0:
            return python
    return None


def measure(module: str, rows: int, d: int, permutations: int, apart: bool, longest_s: float) -> list[Figures]:
    """Return up to three measurements of a contender at full size, after one at a twentieth that it is predicted from.

    Raises:
        WorkerError: it is not installed, failed, or would take longer than ``longest_s``.
    """
    needs = {"keops": ("torch", "pykeops"), "gpu_torch": ("torch",)}.get(module, ("jax",))
    python = python_with(needs) if apart else Path(sys.executable)
    if python is None:
        raise WorkerError(f"not installed: {', '.join(needs)}")
    command = [python, PEERS / f"{module}.py", "--dimensions", str(d), "--permutations", str(permutations)]
    with Worker(command, {"KEOPS_CACHE_FOLDER": str(python.parents[1])} if module == "keops" else None) as worker:
        probe = max(200, min(PROBE_ROWS, rows // 2))
        worker.measure(probe, START_S)
        predicted = harness.predicted_seconds(worker.measure(probe, START_S)["seconds"], probe, rows)
        if predicted > longest_s:
            raise WorkerError(f"left out: about {predicted:,.0f} s")
        worker.measure(rows, START_S + 5 * predicted)  # compiles what depends on the size
        repeats = harness.Budget(longest_s, longest_s, 3).repeats_of(predicted)
        return [worker.measure(rows, START_S + 5 * predicted) for _ in range(repeats)]


def main() -> int:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-results/gpu.json"))
    parser.add_argument("--longest", type=float, default=120, help="seconds a contender may take at full size")
    # A small size runs everything without a GPU, to see that it runs; what it prints then says nothing.
    parser.add_argument("--rehearse", type=int, metavar="ROWS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    name = gpu_name()
    if name is None and options.rehearse is None:
        print("No NVIDIA GPU here: nothing measured.")
        return 0
    rows: int = options.rehearse or ROWS
    about = {**harness.machine(("driftline", "jax", "jaxlib", "torch", "pykeops")), "gpu": name}
    print(f"{name or 'no GPU: a rehearsal'}; {rows:,} against {rows:,} rows, d = {DIMENSIONS}\n", flush=True)
    results: list[dict[str, Any]] = []
    try:
        with Worker([sys.executable, PEERS / "gpu_rates.py", "--dimensions", str(DIMENSIONS)]) as worker:
            rates = worker.measure(rows, START_S)
    except WorkerError as error:
        print(f"The device's rates could not be measured: {error}\nInstall JAX for the GPU: pip install -e '.[gpu]'")
        return 1
    if not rates["on_gpu"] and options.rehearse is None:
        print("JAX does not see the GPU; install it with CUDA: pip install -e '.[gpu]'")
        return 1
    units = (("float32", "highest"), ("tf32", "default, TF32"), ("bf16", "bf16"))
    lines = [(f"matrix products, {text}", f"{rates[key] / 1e12:,.1f} TFLOP/s") for key, text in units]
    lines.append(("exponentials", f"{rates['exponentials'] / 1e12:,.3f} T/s"))
    print(harness.table(("the device's rates", ""), lines) + "\n")
    roofs = {permutations: roofline(rates, rows, DIMENSIONS, permutations) for permutations in (0, PERMUTATIONS)}
    lines = [
        (f"B = {b}", *(harness.three_digits(roof[f"{part}_s"]) for part in ("products", "panel", "exponentials")),
         harness.three_digits(roof["roofline_s"]), harness.three_digits(roof["sum_s"]))
        for b, roof in roofs.items()
    ]  # fmt: skip
    print(
        harness.table(("seconds by these rates", "products", "panel", "exponentials", "roofline", "sum"), lines) + "\n"
    )
    cells: list[tuple[str, ...]] = []
    for contender, (module, permutations, apart) in CONTENDERS.items():
        try:
            rounds = measure(module, rows, DIMENSIONS, permutations, apart, options.longest)
        except WorkerError as error:
            cells.append((contender, "", "", "", "", str(error)))
            results.append({"contender": contender, "not_measured": str(error)})
            continue
        median = harness.medians(rounds)
        share = roofs[permutations]["roofline_s"] / median["seconds"]
        device = median.get("device_memory_mb")
        host = harness.three_digits(median["growth_mb"])
        cells.append(
            (contender, harness.three_digits(median["seconds"]), f"{share:.0%}", harness.three_digits(device), host, "")
        )
        results.append({"contender": contender, "median": median, "rounds": rounds, "roofline_share": share})
    print(harness.table(("", "seconds", "of the roofline", "device, MB", "host growth, MB", ""), cells))
    content = {"machine": about, "rows": rows, "dimensions": DIMENSIONS, "rates": rates, "roofline": roofs}
    harness.write_json(options.out, {**content, "results": results})
    print(f"\n{options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
