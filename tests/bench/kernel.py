"""Speed and memory of the two-sample test, beside its peers and the hardware's floor: `make bench`.

For each size, each dimension and each of three tasks (the statistic alone; the test with 500 permutations; the search
over kernels), the contenders are measured in turn, round after round, each in a process of its own; the table shows
medians. Written to bench-results/kernel.json with a description of the machine. What is compared with what, and why it
is fair, is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from contenders import FLOOR, KEOPS_NATIVE, OURS, PEERS_ENVIRONMENT, PERMUTATIONS, PROMISED, TASKS, Bench, Outcome
from harness import Budget

TITLES: Mapping[str, str] = {
    "statistic": "the statistic alone",
    "test": f"the test with {PERMUTATIONS} permutations",
    "search": f"the search over kernels with {PERMUTATIONS} permutations",
}
FLOOR_PARTS = ("products", "exponentials", "panels float32", "panels bfloat16", "panels int8")


def cell_table(outcomes: list[Outcome]) -> str:
    """Return a cell's table: seconds, how many times ours, memory, repeats."""
    ours = next(outcome for outcome in outcomes if outcome.contender.name == OURS).seconds()
    lines: list[tuple[str, ...]] = []
    for outcome in outcomes:
        name, figures, seconds = outcome.contender.name, outcome.figures(), outcome.seconds()
        if seconds is None:
            lines.append((name, *[""] * 7, outcome.why_not))
            continue
        ratio = harness.three_digits(seconds / ours if ours else None)
        if name == FLOOR:  # its processes' own time and memory are not what it stands for
            rest = ("", "", ratio, "", "")
        else:
            fastest, processor = min(one["seconds"] for one in outcome.rounds), figures["cpu_seconds"]
            memory = (f"{figures['growth_mb']:,.0f}", f"{figures['memory_mb']:,.0f}")
            rest = (harness.three_digits(fastest), harness.three_digits(processor), ratio, *memory)
        lines.append((name, harness.three_digits(seconds), *rest, str(len(outcome.rounds)), outcome.why_not))
        lines.extend(
            (f"  {part}", harness.three_digits(figures[part]), *[""] * 7) for part in FLOOR_PARTS if part in figures
        )
    head = ("", "seconds", "fastest", "CPU, s", "over ours", "growth, MB", "peak, MB", "repeats", "")
    return harness.table(head, lines)


@dataclass(frozen=True, slots=True)
class Promise:
    """A ratio that must hold: what of whom over ours, at least ``least``."""

    text: str
    task: str
    peer: str
    figure: str
    least: float


PROMISES = (
    Promise("statistic: scikit-learn's time over ours", "statistic", "scikit-learn", "seconds", 10),
    Promise("statistic: KeOps' time over ours", "statistic", "KeOps", "seconds", 15),
    Promise("statistic: the same, compiled for this processor", "statistic", KEOPS_NATIVE, "seconds", 15),
    Promise("test: alibi-detect's time (B = 100) over ours (B = 500)", "test", "alibi-detect, B = 100", "seconds", 200),
    Promise("test: alibi-detect's memory over ours, growth", "test", "alibi-detect, B = 100", "growth_mb", 10),
    Promise("test: alibi-detect's memory over ours, whole process", "test", "alibi-detect, B = 100", "memory_mb", 10),
    Promise("statistic: the floor's time over ours", "statistic", FLOOR, "seconds", 1),
    Promise("test: the floor's time over ours", "test", FLOOR, "seconds", 1),
)


def promises(cells: Mapping[str, list[Outcome]]) -> list[dict[str, Any]]:
    """Return each promised ratio at the promised size, None where one of the two was not measured.

    Of a peer that was left out for the time it would take, the ratio by that prediction stands beside.
    """
    found: list[dict[str, Any]] = []
    for promise in PROMISES:
        outcomes = {outcome.contender.name: outcome for outcome in cells.get(promise.task, [])}
        ratio = predicted = None
        if OURS in outcomes and promise.peer in outcomes:
            ours, peers = outcomes[OURS].figures(), outcomes[promise.peer].figures()
            if promise.figure in ours and promise.figure in peers:
                ratio = peers[promise.figure] / ours[promise.figure]
            elif promise.figure == "seconds" and "seconds" in ours:
                prediction = outcomes[promise.peer].predicted_s
                predicted = prediction / ours["seconds"] if prediction else None
        found.append({"ratio": promise.text, "at_least": promise.least, "measured": ratio, "predicted": predicted})
    return found


def disagreement(outcomes: list[Outcome]) -> float:
    """Return how far apart the contenders' statistics lie, which are of one kernel and the same data."""
    values = [outcome.figures()["statistic"] for outcome in outcomes if "statistic" in outcome.figures()]
    return max(values) - min(values) if values else 0.0


def main() -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 and 10,000 rows of 32 dimensions, three minutes")
    parser.add_argument("--rows", type=int, nargs="+", help="rows of each sample")
    parser.add_argument("--dimensions", type=int, nargs="+")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--minutes", type=float, help="begin nothing that would end later")
    parser.add_argument("--peers", type=Path, default=PEERS_ENVIRONMENT, help="the peers' virtual environment")
    parser.add_argument("--out", type=Path, default=Path("bench-results/kernel.json"))
    options = parser.parse_args()
    quick: bool = options.quick
    sizes: list[int] = sorted(options.rows or ([2_000, 10_000] if quick else [2_000, 10_000, 50_000]))
    dimensions: list[int] = options.dimensions or ([32] if quick else [2, 32, 384])
    budget = Budget(15, 6, 5) if quick else Budget(120, 20, 7)
    minutes: float = options.minutes or (3 if quick else 40)
    bench = Bench(budget, options.peers / "bin" / "python", time.monotonic() + 60 * minutes)
    about = harness.machine(("driftline", "jax", "numpy", "scikit-learn"))
    print(f"{about['processor']}, {about['cores']} cores, load {about['load_average']:.1f}; medians, in turn\n")

    results: list[dict[str, Any]] = []
    promised: dict[str, list[Outcome]] = {}
    grown: dict[tuple[str, str, int], dict[int, float]] = {}
    for rows in sizes:
        for d in dimensions:
            for task in options.tasks:
                outcomes = bench.cell(task, rows, d)
                print(f"{rows:,} against {rows:,} rows, d = {d}: {TITLES[task]}", flush=True)
                print(cell_table(outcomes) + "\n", flush=True)
                if disagreement(outcomes) > 1e-5:
                    print(f"  the statistics differ by {disagreement(outcomes):.2g}: not the same work\n")
                if (rows, d) == PROMISED:
                    promised[task] = outcomes
                for outcome in outcomes:
                    seconds, name = outcome.seconds(), outcome.contender.name
                    if seconds is not None and name != FLOOR:
                        grown.setdefault((task, name, d), {})[rows] = seconds
                    results.append(record(task, rows, d, outcome))
    exponents = {key: harness.growth_exponent(seconds) for key, seconds in grown.items()}
    lines = [
        (f"{task}, d = {d}: {name}", harness.three_digits(p), ", ".join(f"{rows:,}" for rows in grown[task, name, d]))
        for (task, name, d), p in exponents.items()
        if p is not None
    ]
    if lines:
        print("How time grows: seconds ≈ c · rowsᵖ\n" + harness.table(("", "p", "rows"), lines) + "\n")
    ratios = promises(promised)
    print(f"What must hold at {PROMISED[0]:,} rows, d = {PROMISED[1]}")
    print(harness.table(("", "at least", "measured", ""), [_verdict(ratio) for ratio in ratios]))
    growth = [{"task": t, "contender": c, "dimensions": d, "exponent": p} for (t, c, d), p in exponents.items()]
    harness.write_json(options.out, {"machine": about, "results": results, "growth": growth, "ratios": ratios})
    print(f"\n{options.out}")


def record(task: str, rows: int, d: int, outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for the JSON: medians, and every round."""
    return {
        "task": task,
        "rows": rows,
        "dimensions": d,
        "contender": outcome.contender.name,
        "permutations": outcome.contender.permutations,
        "median": outcome.figures(),
        "rounds": [dict(figures) for figures in outcome.rounds],
        "predicted_s": outcome.predicted_s,
        "not_measured": outcome.why_not or None,
    }


def _verdict(ratio: dict[str, Any]) -> tuple[str, str, str, str]:
    measured, predicted = ratio["measured"], ratio["predicted"]
    if measured is not None:
        word = "holds" if measured >= ratio["at_least"] else "MISSED"
    elif predicted is not None:
        word = f"not measured; about {predicted:,.0f} by prediction"
    else:
        word = "not measured"
    return ratio["ratio"], f"{ratio['at_least']:g}", harness.three_digits(measured), word


if __name__ == "__main__":
    main()
