"""How much of a drift run is spent waiting for embeddings, from a local folder and from an object store.

    python tests/bench/reading.py [--rows 500000] [--places local gs]

Writes two embeddings datasets (half of the rows each, as the backfill would) into a temporary folder, removed at the
end, and runs the drift pipeline's steps on them with its default settings, in this process, one after the other. Of
each step it shows its seconds and those for which whoever computes waited for the reader: every second between asking
for a batch and having it, assembling the batch included. Promised is less than a tenth of the run.

`gs` is the tests' Google Cloud Storage emulator, in a process of its own and reached over TCP: Python that shares this
machine's cores with the run, and so slower than the service it stands for. Beside it stands what it gives to a
plain client that does nothing else, and, for either place, what the reader gives to a consumer that does nothing.

Written to bench-results/reading.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import harness
import numpy as np
import pyarrow as pa

from driftline.components.embedding.backfill.cutting import ROWS_PER_SHARD
from driftline.components.kernel import step as kernel
from driftline.components.kernel.tasks import KernelPlan
from driftline.components.mmd import step as mmd
from driftline.components.projection import step as projection
from driftline.components.sampling import step as sampling
from driftline.components.storage.dataset.manifest import Manifest
from driftline.components.storage.dataset.prefetch import waited_s
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import read_value

SIDES: Final = ("reference", "current")
PROMISED_SHARE: Final = 0.1
EMULATOR: Final = """
import sys
from tests.support.gcs import gcs_emulator
with gcs_emulator() as endpoint:
    print(endpoint, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step, or all tasks of one: its seconds, and those of them in which it waited for embeddings."""

    step: str
    seconds: float
    waited_s: float


def write_dataset(folder: str, rows: int, dimension: int, seed: int) -> None:
    """Write normal vectors of length 1, which compress as little as real ones do."""
    generator = np.random.default_rng(seed)
    shards = []
    for number, first in enumerate(range(0, rows, ROWS_PER_SHARD)):
        count = min(ROWS_PER_SHARD, rows - first)

        def batches(first: int = first, count: int = count) -> Generator[pa.RecordBatch]:
            for start in range(first, first + count, 4096):
                size = min(4096, first + count - start)
                vectors = generator.standard_normal((size, dimension), np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                embeddings = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension)
                ids = pa.array([f"text-{row}" for row in range(start, start + size)])
                yield pa.record_batch({"id": ids, "embedding": embeddings})

        name = f"part-{number:05}.parquet"
        shards.append(write_shard(folder, name, batches(), dimension=dimension, dtype="float32", key=name))
    write_manifest(folder, Manifest("normal", "1", dimension, True, "float32", (), tuple(shards)))


@contextmanager
def emulator() -> Generator[str]:
    """Run the emulator in a process of its own; yields its endpoint."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", EMULATOR], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()  # the end of its input ends it


def run_steps(base: str, folder: Path) -> tuple[list[StepTime], str]:
    """Run the pipeline's steps with its default settings; return their times, and the method that `auto` chose.

    Args:
        base: where the datasets are, and the run's working files go.
        folder: an empty local one, for the steps' small artifacts.
    """
    times: list[StepTime] = []

    def measured(name: str, run: Callable[[], Any]) -> Any:
        began, waited = time.perf_counter(), waited_s()
        result = run()
        times.append(StepTime(name, time.perf_counter() - began, waited_s() - waited))
        return result

    def at(name: str) -> str:
        return str(folder / name)

    reference, current = (store.join(base, side) for side in SIDES)
    measured(
        "sample",
        lambda: sampling.run(
            reference=reference,
            current=current,
            out=store.join(base, "out"),
            sample_out=at("sample"),
        ),
    )
    measured("fit", lambda: projection.fit(sample=at("sample"), out=at("projection")))
    measured(
        "project",
        lambda: projection.project(sample=at("sample"), projection=at("projection"), out=at("projected")),
    )
    shares = measured(
        "plan",
        lambda: kernel.plan(projected=at("projected"), out=at("plan")),
    )

    def tasks() -> None:
        for share in shares:
            kernel.sums(plan=at("plan"), share=share)

    measured(f"kernel, {len(shares)} tasks", tasks)
    measured(
        "test",
        lambda: mmd.test(plan=at("plan"), out=at("outcome"), witness_out=at("witness")),
    )
    measured(
        "report",
        lambda: mmd.report(
            outcome=at("outcome"), witness=at("witness"), result_out=at("result"), report_out=at("report")
        ),
    )
    return times, read_value(at("plan"), KernelPlan).spec.choice.method


def reading_alone_mb_s(base: str) -> float:
    """Return the MB of vectors a second that a consumer gets who does nothing with them."""
    began, size = time.perf_counter(), 0
    for side in SIDES:
        for batch in EmbeddingsDataset.open(store.join(base, side)).batches():
            size += batch.embeddings.nbytes
    return size / (time.perf_counter() - began) / 1e6


def plain_mb_s(endpoint: str, base: str) -> float:
    """Return the MB a second that the emulator gives to one client that asks for whole objects, one by one."""
    began, size = time.perf_counter(), 0
    for side in SIDES:
        for shard in EmbeddingsDataset.open(store.join(base, side)).manifest.shards:
            bucket, _, name = store.join(base, side, shard.name).removeprefix("gs://").partition("/")
            quoted = name.replace("/", "%2F")
            with urllib.request.urlopen(f"{endpoint}/download/storage/v1/b/{bucket}/o/{quoted}?alt=media") as answer:
                size += len(answer.read())
    return size / (time.perf_counter() - began) / 1e6


def measure(place: str, base: str, folder: Path, endpoint: str = "") -> dict[str, Any]:
    """Run the steps in a place, print the table and return the figures for the JSON."""
    alone = reading_alone_mb_s(base)
    plain = plain_mb_s(endpoint, base) if endpoint else None
    artifacts = folder / f"artifacts-{place}"
    artifacts.mkdir()
    times, method = run_steps(base, artifacts)
    total = StepTime("together", sum(t.seconds for t in times), sum(t.waited_s for t in times))
    lines = [
        (t.step, f"{t.seconds:.2f}", f"{t.waited_s:.2f}", f"{100 * t.waited_s / t.seconds:.1f}")
        for t in (*times, total)
    ]
    share = total.waited_s / total.seconds
    print(f"{place}: method {method}; reading alone gives {alone:,.0f} MB of vectors/s", end="")
    print("" if plain is None else f", the emulator a plain client {plain:,.0f} MB/s")
    print(harness.table(("", "seconds", "waited, s", "%"), lines))
    print(
        f"promised: under {100 * PROMISED_SHARE:.0f}%; {'held' if share < PROMISED_SHARE else 'NOT held'}\n", flush=True
    )
    return {
        "place": place,
        "method": method,
        "reading_alone_mb_s": alone,
        "plain_client_mb_s": plain,
        "steps": [asdict(t) for t in times],
        "share": share,
        "promised_share": PROMISED_SHARE,
    }


def main() -> None:
    """Make the data, measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000, help="of both datasets together")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--places", nargs="+", choices=["local", "gs"], default=["local", "gs"])
    parser.add_argument("--out", type=Path, default=Path("bench-results/reading.json"))
    options = parser.parse_args()
    places: list[str] = options.places
    about = harness.machine(("driftline", "jax", "numpy", "pyarrow", "google-cloud-storage"))
    print(f"{about['processor']}, {about['cores']} cores, load {about['load_average']:.1f}")
    print(f"{options.rows:,} rows, d = {options.dimension}, float32\n", flush=True)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        folder = Path(name)
        for seed, side in enumerate(SIDES):
            write_dataset(str(folder / side), options.rows // 2, options.dimension, seed)
        if "local" in places:
            results.append(measure("local", name, folder))
        if "gs" in places:
            with emulator() as endpoint:
                os.environ["STORAGE_EMULATOR_HOST"] = endpoint
                base = "gs://driftline-tests/reading"
                for side in SIDES:
                    for path in sorted((folder / side).iterdir()):
                        with path.open("rb") as source, store.create(store.join(base, side, path.name)) as target:
                            shutil.copyfileobj(source, target)
                results.append(measure("gs", base, folder, endpoint))
    harness.write_json(
        options.out, {"machine": about, "rows": options.rows, "dimension": options.dimension, "results": results}
    )
    print(f"{options.out} written")


if __name__ == "__main__":
    main()
