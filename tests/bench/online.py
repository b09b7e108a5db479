"""The online detector: run lengths, delays and cost, beside alibi-detect's MMDDriftOnline where that is installed.

    python tests/bench/online.py [--peer /path/to/python] [--embeddings FOLDER …]

1. Measured run length against the ERT asked for: on normal rows, and on real embeddings where datasets are given or
   the demonstration's are there. Streams are drawn from the population that the reference was drawn from. For each
   reference, some hundred alarms; over references, the mean, and the spread beside the calibration's own estimate.
2. Delay from a change to the alarm, for the same streams, window and ERT: a mean shift of normal rows, and 5%, 10% and
   25% of a novel topic mixed into real embeddings.
3. Milliseconds for an update with 1,000 vectors, d = 32.

The peer needs an environment of its own, since its requirements exclude ours: `--peer` is the interpreter of one in
which `alibi-detect[torch]` is installed. Its calibration takes long for a large reference and ERT; two minutes in all:

    python tests/bench/online.py --erts --streams 10 --window 100 --rows 2000 --delay-ert 1000 --peer-bootstraps 1500 \\
        --peer /path/to/python

Written to bench-results/online.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.components.mmd.calibration import calibrate
from driftline.components.mmd.online import Calibration, OnlineDetector, OnlineSettings
from driftline.components.projection.pca import PCA, gather
from driftline.components.storage.dataset.reader import EmbeddingsDataset

D = 32
KINDS = ("ewma", "sliding")
Rows = NDArray[np.float32]
Draw = Callable[[np.random.Generator, int], Rows]

PEER = """
import json, os, sys, time
os.environ["TQDM_DISABLE"] = "1"
import numpy as np
import torch
from alibi_detect.cd import MMDDriftOnline
torch.set_num_threads(1)
torch.manual_seed(0)
np.random.seed(0)
folder, ert, window, bootstraps = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
data = np.load(folder + "/streams.npz")
names = [name for name in data.files if not name.endswith(":reference")]
results = {}
detectors = {}
for name in names:
    reference = data[name.rsplit(":", 1)[0] + ":reference"]
    key = reference.tobytes()
    if key not in detectors:
        began = time.perf_counter()
        detectors[key] = MMDDriftOnline(
            reference, ert=ert, window_size=window, backend="pytorch", n_bootstraps=bootstraps, verbose=False
        )
        results["calibration_s"] = time.perf_counter() - began
    detector = detectors[key]
    alarms = []
    steps, began = 0, time.perf_counter()
    for stream in data[name]:
        detector.reset_state()
        alarm = None
        for row in stream:
            steps += 1
            if detector.predict(row)["data"]["is_drift"]:
                alarm = detector.t
                break
        alarms.append(alarm)
    results[name] = alarms
    results["ms_per_1000"] = (time.perf_counter() - began) / steps * 1e6
print(json.dumps(results))
"""


class Source:
    """A population of real embeddings, projected to 32 dimensions, and a novel topic."""

    def __init__(self, folders: list[str], column: str, novel: str) -> None:
        vectors: dict[bool, dict[str, NDArray[Any]]] = {False: {}, True: {}}
        for folder in folders:
            for batch in EmbeddingsDataset.open(folder).batches(("id", "embedding", column)):
                topics = batch.table.column(column).to_pylist()
                for name, topic, vector in zip(batch.ids, topics, batch.embeddings, strict=True):
                    vectors[topic == novel][name] = vector
        usual, new = (np.array(list(vectors[which].values())) for which in (False, True))
        # Fitted on the population itself, so that reference and stream are alike to it.
        pca = PCA.fit(gather([usual]), D)
        self.usual, self.new = (pca.project(rows).astype(np.float32) for rows in (usual, new))

    def draw(self, rng: np.random.Generator, rows: int, share: float = 0.0) -> Rows:
        """Draw rows, a share of them of the novel topic."""
        drawn = self.usual[rng.integers(0, len(self.usual), rows)]
        novel = np.flatnonzero(rng.random(rows) < share)
        drawn[novel] = self.new[rng.integers(0, len(self.new), len(novel))]
        return drawn


def normal(rng: np.random.Generator, rows: int, shift: float = 0.0) -> Rows:
    """Draw standard normal rows, the first coordinate shifted."""
    drawn = rng.standard_normal((rows, D)).astype(np.float32)
    drawn[:, 0] += shift
    return drawn


def run_lengths(draw: Draw, rows: int, settings: OnlineSettings, references: int, alarms: int) -> dict[str, Any]:
    """Measure records per alarm, over the ERT, for several references."""
    ratios, spreads = [], []
    for seed in range(references):
        rng = np.random.default_rng([2024, seed])
        calibration = calibrate(draw(rng, rows), replace(settings, seed=seed, on_alarm="restart"))
        detector = OnlineDetector(calibration)
        found = 0
        while found < alarms and detector.position < 4 * alarms * settings.ert:
            found += int(detector.update(draw(rng, 10_000)).alarms.sum())
        ratios.append(detector.position / max(found, 1) / settings.ert)
        spreads.append(calibration.spread)
    return {
        "ratios": ratios,
        "mean": statistics.mean(ratios),
        "of_rates": statistics.harmonic_mean(ratios),
        "spread": statistics.stdev(np.log(ratios).tolist()) if references > 1 else None,
        "spread_estimated": statistics.mean(spreads),
    }


def first_alarm(calibration: Calibration, stream: Rows) -> int | None:
    """Return the record of the first alarm, or None."""
    readings = OnlineDetector(calibration).update(stream)
    return int(readings.positions[readings.alarms][0]) if readings.alarms.any() else None


def summary(alarms: list[int | None], quiet: int, seen: int) -> dict[str, Any]:
    """Return false alarms before the change, detections after it, and their mean delay."""
    early = sum(alarm is not None and alarm <= quiet for alarm in alarms)
    delays = [alarm - quiet for alarm in alarms if alarm is not None and alarm > quiet]
    return {
        "false": early,
        "found": len(delays),
        "of": len(alarms) - early,
        "within": seen - quiet,
        "mean_delay": statistics.mean(delays) if delays else None,
        "median_delay": statistics.median(delays) if delays else None,
    }


def censored_mean(alarms: list[int | None], length: int) -> float:
    """Return the mean run length from runs that end at an alarm or at ``length``."""
    return sum(length if alarm is None else alarm for alarm in alarms) / max(1, sum(a is not None for a in alarms))


def peer(python: str, streams: dict[str, Rows], settings: OnlineSettings, bootstraps: int) -> dict[str, Any] | str:
    """Run alibi-detect on the streams in an interpreter of its own."""
    found = subprocess.run([python, "-c", "import alibi_detect, torch"], capture_output=True, check=False)
    if found.returncode:
        return "not installed"
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "streams.npz", **streams)  # pyright: ignore[reportArgumentType]
        command = [python, "-c", PEER, folder, str(settings.ert), str(settings.window), str(bootstraps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"failed with status {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def update_ms(calibration: Calibration, repeats: int) -> float:
    """Return the median milliseconds of an update with 1,000 vectors."""
    detector, rows = OnlineDetector(calibration), normal(np.random.default_rng(0), 1000)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        detector.update(rows)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e3


def main() -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--embeddings", nargs="+", default=[f".demo/embeddings/{n}" for n in ("reference", "quiet", "mixed")]
    )
    parser.add_argument("--topic-column", default="kind")
    parser.add_argument("--novel-topic", default="plot")
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--rows", type=int, default=4000, help="rows of a reference")
    parser.add_argument("--erts", type=float, nargs="*", default=[2_000, 10_000])
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--alarms", type=int, default=150, help="alarms for each reference")
    parser.add_argument("--delay-ert", type=float, default=2_000)
    parser.add_argument("--streams", type=int, default=20, help="streams for each delay")
    parser.add_argument("--peer", default=sys.executable, help="interpreter with alibi-detect and torch")
    parser.add_argument("--peer-bootstraps", type=int, default=4_000, help="it asks for some ERTs")
    parser.add_argument("--out", type=Path, default=Path("bench-results/online.json"))
    options = parser.parse_args()
    base = OnlineSettings(ert=options.delay_ert, window=options.window)

    draws: dict[str, Draw] = {"normal": normal}
    real = None
    if all((Path(folder) / "manifest.json").exists() for folder in options.embeddings):
        real = Source(options.embeddings, options.topic_column, options.novel_topic)
        draws["embeddings"] = real.draw
    else:
        print("real embeddings: not there; run `make demo` or give --embeddings\n")

    print(f"window {options.window}, references of {options.rows} rows; run length / ERT:", flush=True)
    runs = []
    for name, draw in draws.items():
        for ert in options.erts:
            for kind in KINDS:
                settings = replace(base, ert=ert, kind=kind)
                measured = run_lengths(draw, options.rows, settings, options.references, options.alarms)
                runs.append({"source": name, "ert": ert, "kind": kind, **measured})
                print(
                    f"  {name:10} ERT {ert:7.0f} {kind:8} mean {measured['mean']:.2f}, of rates "
                    f"{measured['of_rates']:.2f}, spread {measured['spread'] or 0:.2f} "
                    f"(estimated {measured['spread_estimated']:.2f})",
                    flush=True,
                )

    quiet, seen, runs_to = 3 * options.window, 3 * options.window + 2_000, int(3 * options.delay_ert)
    rng = np.random.default_rng(7)
    streams: dict[str, Rows] = {"normal:reference": normal(rng, options.rows)}
    streams["normal:no drift"] = np.stack([normal(rng, runs_to) for _ in range(options.streams)])
    for shift in (0.5, 1.0):
        made = [np.concatenate([normal(rng, quiet), normal(rng, seen - quiet, shift)]) for _ in range(options.streams)]
        streams[f"normal:mean shift {shift} in one coordinate"] = np.stack(made)
    if real is not None:
        streams["embeddings:reference"] = real.draw(rng, options.rows)
        streams["embeddings:no drift"] = np.stack([real.draw(rng, runs_to) for _ in range(options.streams)])
        for share in (0.05, 0.1, 0.25):
            made = [
                np.concatenate([real.draw(rng, quiet), real.draw(rng, seen - quiet, share)])
                for _ in range(options.streams)
            ]
            streams[f"embeddings:{share:.0%} novel topic"] = np.stack(made)
    named = [name for name in streams if not name.endswith(":reference")]
    alarms: dict[str, dict[str, list[int | None]]] = {}
    calibrations: dict[str, Calibration] = {}
    calibration_s = {}
    for kind in KINDS:
        for source in draws:
            began = time.perf_counter()
            calibrations[source] = calibrate(streams[f"{source}:reference"], replace(base, kind=kind))
            calibration_s[kind] = time.perf_counter() - began
        alarms[f"driftline, {kind}"] = {
            name: [first_alarm(calibrations[name.split(":")[0]], stream) for stream in streams[name]] for name in named
        }
    theirs = peer(options.peer, streams, base, options.peer_bootstraps)
    if not isinstance(theirs, str):
        alarms["alibi-detect"] = {name: theirs[name] for name in named}

    print(f"\nERT {options.delay_ert:.0f}, change at record {quiet}; delay in records, {options.streams} streams:")
    delays = []
    for name in named:
        print(f"  {name}")
        for who, found in alarms.items():
            if name.endswith(":no drift"):
                result = {"mean_run_length": censored_mean(found[name], runs_to)}
                print(f"    {who:20} mean run length {result['mean_run_length']:.0f}")
            else:
                result = summary(found[name], quiet, seen)
                print(
                    f"    {who:20} mean {result['mean_delay'] or float('nan'):6.0f}, found {result['found']} of "
                    f"{result['of']} within {result['within']}, false alarms before {result['false']}"
                )
            delays.append({"streams": name, "detector": who, **result})
    cost = {kind: update_ms(replace_kind(calibrations["normal"], kind), 100) for kind in KINDS}
    print("\nupdate with 1,000 vectors, d = 32:")
    for kind in KINDS:
        print(f"  driftline, {kind:9} {cost[kind]:9.2f} ms; calibration {calibration_s[kind]:6.1f} s")
    if isinstance(theirs, str):
        print(f"  alibi-detect: {theirs}")
    else:
        print(f"  alibi-detect         {theirs['ms_per_1000']:9.2f} ms; calibration {theirs['calibration_s']:6.1f} s")
    about = {
        "machine": platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("driftline", "numpy")},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {
        "about": about,
        "window": options.window,
        "rows": options.rows,
        "run_lengths": runs,
        "delays": delays,
        "update_ms": cost,
        "peer": theirs if isinstance(theirs, str) else {k: theirs[k] for k in ("ms_per_1000", "calibration_s")},
    }
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(options.out)


def replace_kind(calibration: Calibration, kind: str) -> Calibration:
    """Return a calibration for the other window, to time it."""
    return replace(calibration, settings=replace(calibration.settings, kind=kind))


if __name__ == "__main__":
    main()
