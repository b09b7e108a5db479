"""The benchmarks' own arithmetic, and the processes they measure in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import harness
from tests.bench.harness import Budget, Worker, WorkerError

BENCH = Path(__file__).parents[1] / "bench"
ANSWERS = """
import sys
for line in sys.stdin:
    print("a library says hello")
    print('{"rows": %d}' % int(line), flush=True)
"""


def worker(program: str) -> Worker:
    return Worker([sys.executable, "-c", program])


def test_a_worker_answers_each_request_and_what_libraries_print_is_passed_over():
    with worker(ANSWERS) as process:
        assert [process.measure(rows, 60) for rows in (3, 5, 8)] == [{"rows": 3}, {"rows": 5}, {"rows": 8}]


def test_a_workers_failure_is_its_last_line():
    with (
        worker("raise ModuleNotFoundError(\"No module named 'pykeops'\")") as process,
        pytest.raises(WorkerError, match=r"^failed: ModuleNotFoundError: No module named 'pykeops'$"),
    ):
        process.measure(1, 60)


def test_a_worker_ended_by_a_signal_says_which():
    with (
        worker("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)") as process,
        pytest.raises(WorkerError, match=r"^ended by signal 9, as when memory runs out$"),
    ):
        process.measure(1, 60)


def test_a_worker_that_says_nothing_is_stopped():
    with worker("import time; time.sleep(600)") as process, pytest.raises(WorkerError, match=r"^stopped after 0 s$"):
        process.measure(1, 0.05)


def test_a_program_that_is_not_there_is_not_available():
    with pytest.raises(WorkerError, match=r"^not available: "):
        Worker(["/nonexistent/python"])


def test_closing_a_worker_twice_is_harmless_and_ends_its_process():
    process = worker(ANSWERS)
    process.close()
    process.close()
    with pytest.raises(WorkerError, match=r"^its process has been ended$"):
        process.measure(1, 60)


@pytest.mark.parametrize(
    ("predicted_s", "repeats"),
    [(0.0, 7), (0.1, 7), (4.0, 5), (20.0, 1), (60.0, 1), (119.0, 1), (120.0, 1), (121.0, 0)],
)
def test_repeats_fit_the_budget_and_one_is_always_done_unless_it_takes_too_long(predicted_s: float, repeats: int):
    assert Budget(longest_s=120, total_s=20, repeats=7).repeats_of(predicted_s) == repeats


def test_a_prediction_is_quadratic_unless_told():
    assert harness.predicted_seconds(2.0, 1_000, 10_000) == pytest.approx(200.0)
    assert harness.predicted_seconds(2.0, 1_000, 10_000, growth=0) == pytest.approx(2.0)


@given(
    st.floats(0.5, 3.0), st.floats(1e-6, 1e3), st.lists(st.integers(100, 10**6), min_size=2, max_size=5, unique=True)
)
def test_the_exponent_of_a_power_law_is_found(power: float, constant: float, rows: list[int]):
    found = harness.growth_exponent({n: constant * n**power for n in rows})
    assert found == pytest.approx(power, abs=1e-6 + 1e-9 / np.ptp(np.log(rows)))


def test_one_size_has_no_exponent():
    assert harness.growth_exponent({1_000: 1.0}) is None


def test_medians_of_the_figures_that_all_rounds_have():
    rounds = [{"seconds": 3.0, "peak": 1.0}, {"seconds": 1.0}, {"seconds": 2.0}]
    assert harness.medians(rounds) == {"seconds": 2.0}
    with pytest.raises(ValueError, match="expected at least one"):
        harness.medians([])


def test_the_fastest_variant_of_each_part():
    figures = {"products/1000": 2.0, "products/1024": 1.0, "panels/1000": 5.0, "seconds": 9.0}
    assert harness.fastest_parts(figures) == {"products": 1.0, "panels": 5.0}


def test_a_table_sets_the_first_column_left_and_the_others_right():
    assert harness.table(("", "s"), [("a", "10.0"), ("long", "1")]).splitlines() == [
        "         s",
        "----  ----",
        "a     10.0",
        "long     1",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.001234, "0.00123"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (358.4, "358"),
        (12345.6, "12,346"),
    ],
)
def test_numbers_with_three_digits(value: float | None, text: str):
    assert harness.three_digits(value) == text


def test_a_description_of_the_machine_says_which_packages_are_missing():
    about = harness.machine(("numpy", "no-such-package"))
    assert about["versions"] == {"numpy": np.__version__, "no-such-package": "not installed"}
    assert about["cores"] >= 1


def test_json_is_written_into_a_folder_that_was_not_there(tmp_path):
    path = tmp_path / "new" / "kernel.json"
    harness.write_json(path, {"a": [1.5]})
    assert path.read_text(encoding="utf-8") == '{\n  "a": [\n    1.5\n  ]\n}\n'


def run(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script, which finds its neighbours by its own folder."""
    env = {**os.environ, "PYTHONSAFEPATH": ""}
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=env)


@pytest.mark.slow
def test_the_benchmark_of_the_kernel_runs_and_its_contenders_compute_the_same_statistic(tmp_path):
    out = tmp_path / "kernel.json"
    small = ["--rows", "100", "200", "--dimensions", "2", "--tasks", "statistic", "--peers", tmp_path / "none"]
    command = [sys.executable, BENCH / "kernel.py", *small, "--out", out]
    done = run(command, tmp_path)
    assert "not installed: run `python tests/bench/peers/install.py`" in done.stdout
    assert "not the same work" not in done.stdout
    measured = {(one["contender"], one["rows"]): one["median"] for one in json.loads(out.read_text())["results"]}
    for rows in (100, 200):
        ours, scikit = (measured[name, rows]["statistic"] for name in ("driftline", "scikit-learn"))
        assert ours == pytest.approx(scikit, abs=1e-6)
        assert 0 < measured["driftline", rows]["growth_mb"] < measured["driftline", rows]["memory_mb"]


@pytest.mark.slow
def test_the_benchmark_of_the_gpu_runs_at_a_small_size_without_one(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, BENCH / "gpu.py", "--rehearse", "400", "--out", out]
    run(command, tmp_path)
    measured = {one["contender"]: one["median"]["statistic"] for one in json.loads(out.read_text())["results"][:3:2]}
    assert measured["plain XLA tiles, statistic"] == pytest.approx(measured["driftline, statistic"], abs=1e-5)
