from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftline.components.drift_settings import DriftSettings
from driftline.components.errors import DataError
from driftline.components.kernel import step
from driftline.components.kernel.tasks import KernelPlan, finished_sums, read_task_sums
from driftline.components.kernel.tiles.feature_sums import combine_features
from driftline.components.kernel.tiles.sums import combine
from driftline.components.projection.projected import ProjectedSample
from driftline.components.sampling.identity import Run, SampleIdentity
from driftline.components.sampling.pooled import PooledSample
from driftline.components.storage.dataset.manifest import Manifest
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects.values import read_value, write_value
from tests.support import oracle

SETTINGS: dict[str, Any] = {"kernel": "rbf", "test_permutations": 30, "seed": 1, "kernel_tasks": 1}
NOON = "2026-01-01T12:00:00+00:00"


def write_projected(folder: Path, z: np.ndarray, n: int, rows_per_shard: int = 10_000, **settings: Any) -> str:
    """Write vectors as a projected sample, with the settings of its run, and return the path of its description."""
    z = np.ascontiguousarray(z, np.float32)
    shards = []
    for start in range(0, len(z), rows_per_shard):
        part = z[start : start + rows_per_shard]
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), z.shape[1])
        batch = pa.record_batch({"id": pa.array([str(start + k) for k in range(len(part))]), "embedding": embeddings})
        name = f"part-{start:06d}.parquet"
        shards.append(write_shard(str(folder / "z"), name, [batch], dimension=z.shape[1], dtype="float32", key=name))
    write_manifest(
        str(folder / "z"),
        Manifest("m", "r", z.shape[1], normalized=False, dtype="float32", columns=(), shards=tuple(shards)),
    )
    norm = float(np.sqrt((z.astype(np.float64) ** 2).sum(axis=1).max()))
    sides = (
        SampleIdentity(f"/{name}", f"sha256:{name}", "m", "r", z.shape[1], rows, rows)
        for name, rows in (("x", n), ("y", len(z) - n))
    )
    run = Run("0" * 32, "job", NOON, NOON, str(folder), str(folder), str(folder / "history"))
    pooled = PooledSample(run, DriftSettings.of(**SETTINGS | settings), *sides, "", (), 0.0)
    points = ((0.0, 0.0),)
    sample = ProjectedSample(
        pooled, str(folder / "z"), norm, z.shape[1], (0.5,), (0.5, 0.2), points, points, fit_seconds=0.0, seconds=0.0
    )
    write_value(str(folder / "projected.json"), sample)
    return str(folder / "projected.json")


def plan(folder: Path, projected: str, **changes: Any) -> tuple[str, list[dict[str, int]]]:
    """Plan a pass over a projected sample, some settings of its run changed; return the plan's path and the items."""
    sample = read_value(projected, ProjectedSample)
    asked = replace(sample.pooled.settings, **changes)
    write_value(projected, replace(sample, pooled=replace(sample.pooled, settings=asked)))
    out = str(folder / f"spec-{asked.kernel_tasks}.json")
    return out, step.plan(projected=projected, out=out)


def parts_of(spec: str, items: list[dict[str, int]]):
    parts = []
    for item in items:
        step.sums(plan=spec, share={name: float(value) for name, value in item.items()})  # KFP hands on floats
        parts.append(finished_sums(read_value(spec, KernelPlan), item["task"]).sums)
    return parts


def summed(spec: str, items: list[dict[str, int]]):
    return combine(read_value(spec, KernelPlan).spec.grid, parts_of(spec, items))


def test_same_bits_for_any_tasks_and_any_shards(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9000, 6))
    seen = set()
    for place, (tasks, rows_per_shard) in enumerate([(1, 9000), (3, 1000), (8, 4096), (17, 123)]):
        folder = tmp_path / str(place)
        spec, items = plan(folder, write_projected(folder, z, 4000, rows_per_shard), kernel_tasks=tasks)
        assert len(items) == tasks
        sums = summed(spec, items)
        seen.add((sums.rows.tobytes(), sums.within.tobytes(), read_value(spec, KernelPlan).spec.collection))
    assert len(seen) == 1


def test_a_task_gives_the_dense_sums(tmp_path):
    z = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
    spec, items = plan(tmp_path, write_projected(tmp_path, z, 200), kernel_tasks=5, kernel_gamma="0.4")
    sums = summed(spec, items)
    gram = oracle.rbf_gram(z, 0.4)
    np.testing.assert_allclose(sums.rows[0].sum(axis=1), gram.sum(axis=1), rtol=1e-12)
    assert sums.within[0, 0] == pytest.approx(gram[:200, :200].sum(), rel=1e-12)


def test_features_have_the_same_bits_for_any_tasks_and_any_shards(tmp_path):
    z = np.random.default_rng(3).normal(size=(5000, 6))
    seen = set()
    for place, (tasks, rows_per_shard) in enumerate([(1, 9000), (3, 1000), (8, 123)]):
        folder = tmp_path / str(place)
        spec, items = plan(
            folder,
            write_projected(folder, z, 2100, rows_per_shard),
            kernel_tasks=tasks,
            kernel="search",
            test_method="features",
        )
        sums = combine_features(read_value(spec, KernelPlan).spec.grid, parts_of(spec, items))
        seen.add((sums.labelled.tobytes(), sums.total.tobytes()))
    assert len(seen) == 1


def test_the_plan_says_how_much_a_task_reads(tmp_path):
    z = np.random.default_rng(3).normal(size=(9000, 2))
    read = {}
    for tasks in (1, 9):
        spec, _ = plan(tmp_path, write_projected(tmp_path / str(tasks), z, 4000), kernel_tasks=tasks)
        read[tasks] = read_value(spec, KernelPlan).rows_read
    assert read[1] == 9000
    assert read[9] < 7000


def test_no_more_tasks_than_tiles(tmp_path):
    spec, items = plan(
        tmp_path, write_projected(tmp_path, np.random.default_rng(2).normal(size=(60, 2)), 30), kernel_tasks=9
    )
    assert items == [{"task": task, "tasks": 3} for task in range(3)]
    assert json.loads(Path(spec).read_text())["tasks"] == 3


def test_identical_vectors_are_refused(tmp_path):
    with pytest.raises(DataError, match="identical"):
        plan(tmp_path, write_projected(tmp_path, np.ones((60, 2)), 30))


MEMORY = """
import sys
from pathlib import Path
from driftline.components.kernel import step
folder = sys.argv[1]
items = step.plan(projected=f"{folder}/projected.json", out=f"{folder}/spec.json")
step.sums(plan=f"{folder}/spec.json", share=items[0])
# Not ru_maxrss: a process starts with its parent's.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_of_a_hundred_thousand_rows_with_five_hundred_permutations(tmp_path):
    """50,000 against 50,000 rows of 32 dimensions: planned and summed in one process, under 1.5 GB resident."""
    write_projected(
        tmp_path,
        np.random.default_rng(0).normal(size=(100_000, 32)),
        50_000,
        rows_per_shard=65_536,
        test_permutations=500,
        test_method="exact",
        seed=0,
    )
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [sums] = (tmp_path / "z" / "sums").iterdir()
    with sums.open("rb") as file:
        assert read_task_sums(file).sums.within.shape == (1, 501)
    assert float(done.stdout) < 1500
