"""Level and power of the tests: `python tests/bench/level_power.py`.

Level: how often each method and each combination rejects samples of one distribution, over 1,000 draws, with the 99.9%
interval of that rate (Clopper and Pearson). It must hold the level asked for, or lie above it.

Power: how often Driftline's search, MMD-FUSE, MMDAgg and the test at the median heuristic (`peer_tests.py`) find a
difference, on the same draws of every alternative (`alternatives.py`), with 95% intervals (Wilson). Alternatives among
real texts need embeddings: those of `make demo`, or others of the same layout by `--embeddings`.

Draws are shared out among processes; each is a function of the alternative's name and the draw's number alone. The
table is printed and written to bench-results/level_power.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import peer_tests
from alternatives import ALTERNATIVES, NULLS, Alternative, Array, embedded
from scipy.stats import binomtest

LEVEL: Final = 0.05
COMPONENTS: Final = 32
OURS: Final = "search"
ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""Small products gain nothing from threads, and the processes share the cores."""

Rejections = dict[str, int]


def draw_generator(name: str, draw: int, use: int) -> np.random.Generator:
    """Return the generator of one draw of one alternative, for the data (0) or for a test's own randomness."""
    return np.random.default_rng([zlib.crc32(name.encode()), draw, use])


def driftline_test(permutations: int, **settings: Any) -> peer_tests.Test:
    """Return Driftline's test with these settings."""

    def test(x: Array, y: Array, rng: np.random.Generator, level: float) -> bool:
        from driftline.components.mmd import two_sample_test  # where threads have been limited

        seed = int(rng.integers(1 << 31))
        return two_sample_test(x, y, permutations=permutations, level=level, seed=seed, **settings).rejected

    return test


def power_tests(permutations: int) -> dict[str, peer_tests.Test]:
    """Return the tests that the table compares: ours first."""
    return {OURS: driftline_test(permutations, kernel="search", method="exact"), **peer_tests.PEERS}


def level_tests(permutations: int) -> dict[str, peer_tests.Test]:
    """Return every method and every combination of Driftline's."""
    tests = {
        f"search, {combination}": driftline_test(permutations, kernel="search", method="exact", combination=combination)
        for combination in ("studentised", "fuse", "agg")
    }
    tests["rbf, exact"] = driftline_test(permutations, kernel="rbf", method="exact")
    tests["search, cross"] = driftline_test(permutations, kernel="search", method="cross")
    tests["rbf, cross"] = driftline_test(permutations, kernel="rbf", method="cross")
    tests["search, features"] = driftline_test(permutations, kernel="search", method="features")
    return tests


@cache
def text_alternatives(folder: Path) -> tuple[Alternative, ...]:
    """Read the demonstration's embeddings, from the datasets ``reference``, ``quiet``, ``rotten`` and ``mixed``."""
    import pyarrow.parquet as pq

    reviews: list[Array] = []
    plots: list[Array] = []
    rotten: list[Array] = []
    for name in ("reference", "quiet", "rotten", "mixed"):
        for shard in sorted((folder / name).glob("*.parquet")):
            table = pq.read_table(shard, columns=["embedding", "kind"])
            vectors = table["embedding"].combine_chunks().flatten().to_numpy().astype(np.float64)
            vectors = vectors.reshape(len(table), -1)
            plot = np.array(table["kind"].to_pylist()) == "plot"
            plots.append(vectors[plot])
            (rotten if name == "rotten" else reviews).append(vectors[~plot])
    return embedded(np.concatenate(reviews), np.concatenate(plots), np.concatenate(rotten))


def projected(x: Array, y: Array) -> tuple[Array, Array]:
    """Project both samples as the drift pipeline does: on principal components of the pooled sample."""
    from driftline.components.projection.pca import PCA, gather

    pooled = np.concatenate([x, y])
    z = PCA.fit(gather([pooled]), COMPONENTS).project(pooled)
    return z[: len(x)], z[len(x) :]


Work = tuple[str, Path | None, int | None, range]

PERMUTATIONS: Final = {"power": peer_tests.PERMUTATIONS, "level": 500}


def rejections(kind: str, work: Work) -> tuple[str, Rejections, float]:
    """Draw one alternative so many times, try every test on each draw, and count."""
    name, folder, given, draws = work
    permutations = given or PERMUTATIONS[kind]
    known = [*ALTERNATIVES, *NULLS, *(text_alternatives(folder) if folder else ())]
    alternative = next(one for one in known if one.name == name)
    tests = power_tests(permutations) if kind == "power" else level_tests(permutations)
    counts = dict.fromkeys(tests, 0)
    began = time.perf_counter()
    for draw in draws:
        x, y = alternative.draw(draw_generator(name, draw, 0))
        if alternative.group == "texts":
            x, y = projected(x, y)
        for place, (label, test) in enumerate(tests.items()):
            counts[label] += test(x, y, draw_generator(name, draw, 1 + place), LEVEL)
    return name, counts, time.perf_counter() - began


def power_rejections(work: Work) -> tuple[str, Rejections, float]:
    """Count the rejections of the tests that are compared."""
    return rejections("power", work)


def level_rejections(work: Work) -> tuple[str, Rejections, float]:
    """Count the rejections of every method."""
    return rejections("level", work)


def count(
    task: Callable[[Work], tuple[str, Rejections, float]],
    cases: Sequence[Alternative],
    folder: Path | None,
    options: argparse.Namespace,
    draws: int,
) -> dict[str, Rejections]:
    """Share the work out among processes and add up what they count.

    An alternative goes to one process, which compiles the tests for its sizes once; few are split by their draws.
    """
    parts = -(-2 * options.processes // len(cases))
    step = -(-draws // parts)
    ranges = [range(begin, min(begin + step, draws)) for begin in range(0, draws, step)]
    work: Iterable[Work] = [(case.name, folder, options.permutations, part) for case in cases for part in ranges]
    totals: dict[str, Rejections] = {case.name: {} for case in cases}
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for name, counts, seconds in pool.map(task, work):
            total = totals[name]
            for label, number in counts.items():
                total[label] = total.get(label, 0) + number
            if options.verbose:
                print(f"# {name}: {counts} in {seconds:.0f} s", flush=True)
    return totals


def rates(counts: Rejections, draws: int, confidence: float, method: str) -> dict[str, dict[str, float]]:
    """Return each test's rate of rejections and its interval."""
    found: dict[str, dict[str, float]] = {}
    for label, number in counts.items():
        interval = binomtest(number, draws).proportion_ci(confidence, method=method)
        found[label] = {"rate": number / draws, "low": float(interval.low), "high": float(interval.high)}
    return found


def print_levels(table: dict[str, dict[str, dict[str, float]]]) -> bool:
    """Print the levels; return whether all hold."""
    print(f"\nlevel {LEVEL}: rate of rejections, 99.9% interval; a * marks an interval that lies above the level")
    held = True
    for case, tests in table.items():
        print(f"  {case}")
        for label, rate in tests.items():
            above = rate["low"] > LEVEL
            held &= not above
            print(f"    {label:24} {rate['rate']:.3f}  {rate['low']:.3f}-{rate['high']:.3f} {'*' if above else ''}")
    return held


def print_powers(table: dict[str, dict[str, dict[str, float]]], cases: Sequence[Alternative]) -> dict[str, float]:
    """Print the powers; return the averages, and how far ours is from the others."""
    labels = list(next(iter(table.values())))
    print(f"\npower at level {LEVEL}, and ours less MMD-FUSE's, less the best of the three; its 95% interval last")
    print(" " * 36 + "".join(f"{label:>18}" for label in labels) + "   - FUSE   - best")
    matrix = np.array([[table[case.name][label]["rate"] for label in labels] for case in cases])
    to_fuse = matrix[:, 0] - matrix[:, labels.index("MMD-FUSE")]
    to_best = matrix[:, 0] - matrix[:, 1:].max(axis=1)
    for case, row, fuse, best in zip(cases, matrix, to_fuse, to_best, strict=True):
        own = table[case.name][OURS]
        numbers = "".join(f"{rate:18.3f}" for rate in row)
        print(f"  {case.name:34}{numbers}   {fuse:+.3f}   {best:+.3f}   {own['low']:.3f}-{own['high']:.3f}")
    print(f"  {'mean':34}" + "".join(f"{rate:18.3f}" for rate in matrix.mean(axis=0)))
    summary = {f"mean, {label}": float(rate) for label, rate in zip(labels, matrix.mean(axis=0), strict=True)}
    return summary | {
        "least difference to MMD-FUSE": float(to_fuse.min()),
        "least difference to the best": float(to_best.min()),
        "alternatives more than 0.03 below MMD-FUSE": int((to_fuse < -0.03).sum()),
        "alternatives more than 0.05 below the best": int((to_best < -0.05).sum()),
    }


def main() -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description="Level and power of the tests.")
    parser.add_argument("--draws", type=int, default=200, help="draws of each alternative; 0 leaves the powers out")
    parser.add_argument("--level-draws", type=int, default=1000, help="draws of each null; 0 leaves the levels out")
    parser.add_argument(
        "--permutations",
        type=int,
        help="of Driftline's tests; by default as many as the peers take for powers, and its own default for levels",
    )
    parser.add_argument(
        "--quick", action="store_true", help="40 draws and 100 for the level: a look, not a measurement"
    )
    parser.add_argument("--only", default="", help="alternatives whose name contains this")
    parser.add_argument(
        "--embeddings", type=Path, default=Path(".demo/embeddings"), help="the demonstration's datasets"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--verbose", action="store_true", help="say when each part is done")
    parser.add_argument("--out", type=Path, default=Path("bench-results/level_power.json"))
    options = parser.parse_args()
    draws, level_draws = (
        (min(40, options.draws), min(100, options.level_draws))
        if options.quick
        else (options.draws, options.level_draws)
    )
    os.environ.update(ONE_THREAD)  # read by the processes when they start
    folder = options.embeddings if (options.embeddings / "reference").is_dir() else None
    if folder is None:
        print(f"{options.embeddings}: no embeddings there, so none of real texts; `make demo` makes them")
    cases = [*ALTERNATIVES, *(text_alternatives(folder) if folder else ())]
    cases = [case for case in cases if options.only in case.name]
    if draws and not cases:
        parser.error(f"--only {options.only!r}: no alternative has that in its name")
    began = time.perf_counter()
    powers: dict[str, dict[str, dict[str, float]]] = {}
    summary: dict[str, float] = {}
    if draws:
        counted = count(power_rejections, cases, folder, options, draws)
        powers = {name: rates(counts, draws, 0.95, "wilson") for name, counts in counted.items()}
        summary = print_powers(powers, cases)
        for name, value in summary.items():
            print(f"  {name:44} {value:.3f}")
    levels: dict[str, dict[str, dict[str, float]]] = {}
    if level_draws:
        nulls = [case for case in NULLS if options.only in case.name] or list(NULLS)
        counted = count(level_rejections, nulls, None, options, level_draws)
        levels = {name: rates(counts, level_draws, 0.999, "exact") for name, counts in counted.items()}
        print("\nevery level holds" if print_levels(levels) else "\na level does not hold")
    seconds = time.perf_counter() - began
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "draws": draws,
        "level_draws": level_draws,
        "permutations": options.permutations or PERMUTATIONS,
        "seconds": seconds,
        "summary": summary,
        "power": powers,
        "level": levels,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{seconds:.0f} s; {options.out}")


if __name__ == "__main__":
    main()
