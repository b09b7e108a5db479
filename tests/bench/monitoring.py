"""The online monitor: records a second of each of its stages, beside the detector alone, and how long a save takes.

    python tests/bench/monitoring.py [--records 20000] [--rounds 5]

The records are embeddings of 384 dimensions with 300 characters of text, as the stream worker writes them, compared by
32 components, a window of 200 and 512 frequencies. Stages are measured in turn, round after round; the monitor is one
process on one core (`OPENBLAS_NUM_THREADS=1` is set).

- read: a topic's record to vector, by how vectors are written;
- project: to what the detector sees, each row to the same bits whatever the batch;
- detector: `OnlineDetector.update` in batches of 500, the floor of what watching costs;
- observe: all that the monitor does with records that are read, its state kept but not written;
- save: the state to a local file, in milliseconds.

Written to bench-results/monitoring.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import harness
import numpy as np
from prometheus_client import CollectorRegistry

from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.mmd.online import Calibration, OnlineDetector, OnlineSettings
from driftline.components.sampling.identity import SampleIdentity
from driftline.serving.monitor.baseline import Baseline, FixedProjection
from driftline.serving.monitor.metrics import MonitorMetrics
from driftline.serving.monitor.monitor import Monitor, read_record
from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings
from driftline.serving.monitor.state import MonitorState, StateFile
from driftline.serving.records.embeddings import EmbeddedText, VectorEncoding, write_embedding
from driftline.serving.records.record import Coordinates, Record

D, COMPONENTS, BATCH = 384, 32, 500
TEXT = "A film that says what it has to say, and then says it again. " * 5


def baseline() -> Baseline:
    """A baseline whose threshold is never reached: what is measured is the quiet stream."""
    rng = np.random.default_rng(0)
    settings = OnlineSettings(ert=100_000)
    features = RandomFeatures.draw(Kernel("rbf", 0.02), COMPONENTS, settings.features, 0)
    rows = rng.normal(size=(5000, COMPONENTS))
    centre = rows.mean(axis=0)
    mean = features.map(rows - centre).mean(axis=0, dtype=np.float64)
    axes = np.linalg.qr(rng.normal(size=(D, COMPONENTS)))[0].T
    return Baseline(
        "key",
        SampleIdentity("reference", "digest", "model", "revision", D, len(rows), len(rows)),
        FixedProjection(np.zeros(D), np.ascontiguousarray(axes)),
        Calibration(settings, features, centre, mean, len(rows), 10.0, 0.1),
    )


def records(count: int, encoding: VectorEncoding) -> list[Record]:
    """Records of the topic of embeddings."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(count):
        vector = rng.normal(size=D).astype(np.float32)
        value = write_embedding(EmbeddedText(f"id-{number}", "model", "revision", vector, TEXT), encoding)
        found.append(Record(b"key", value, (), Coordinates("embeddings", number % 4, number // 4, 1000 * number)))
    return found


def rate(count: int, work: Callable[[], Any]) -> float:
    """Records a second of some work on so many."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def batches(items: Sequence[Any]) -> list[Sequence[Any]]:
    """Cut in batches as they are polled."""
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def measure(count: int, rounds: int, folder: str) -> list[dict[str, float]]:
    """Measure all stages in turn."""
    made = baseline()
    numbers, base64 = records(count, "numbers"), records(count, "base64")
    read = [read_record(record) for record in base64]
    vectors = np.stack([found.embedded.vector for found in read if found.embedded is not None])
    seen = made.project(vectors).astype(np.float32)
    settings = MonitorSettings("embeddings", ReferenceSettings("reference", online=made.calibration.settings), folder)
    results = []
    for number in range(rounds + 1):
        file = StateFile(f"{folder}/{number}")
        state = MonitorState.new(made, {})
        monitor = Monitor(settings, made, state, file, {}, MonitorMetrics(CollectorRegistry()), clock=lambda: 0.0)
        detector = OnlineDetector(made.calibration)
        figures = {
            "read, numbers": rate(count, lambda: [read_record(record) for record in numbers]),
            "read, base64": rate(count, lambda: [read_record(record) for record in base64]),
            "project": rate(count, lambda: [made.project(batch) for batch in batches(vectors)]),
            "detector": rate(count, lambda found=detector: [found.update(batch) for batch in batches(seen)]),
            "observe": rate(count, lambda found=monitor: [found.observe(batch) for batch in batches(read)]),
        }
        began = time.perf_counter()
        monitor.save()
        figures["save_ms"] = (time.perf_counter() - began) * 1e3
        results.append(figures)
    return results[1:]  # the first one warms up


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-results/monitoring.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = measure(arguments.records, arguments.rounds, folder)
    middle = harness.medians(rounds)
    save_ms = middle.pop("save_ms")
    for encoding in ("numbers", "base64"):
        middle[f"read and observe, {encoding}"] = 1 / (1 / middle[f"read, {encoding}"] + 1 / middle["observe"])
    rows = [[name, harness.three_digits(found), f"{found / middle['detector']:.2f}"] for name, found in middle.items()]
    print(harness.table(["stage", "records/s", "of the detector's"], rows))
    print(f"save: {save_ms:.1f} ms")
    content = {"machine": harness.machine(["numpy", "orjson"]), "medians": middle, "save_ms": save_ms, "rounds": rounds}
    harness.write_json(arguments.out, content)


if __name__ == "__main__":
    main()
