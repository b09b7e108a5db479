"""The numbers of a run stay what they were before runs had windows, and are the same for any number of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from driftline.components.storage.objects.store import read_json
from tests.support.datasets import write_embeddings
from tests.support.steps import run_steps

OWN = ("run", "created", "steps", "report_uri", "as_of")
SMALL, LARGE = (640, 600, 12, 0.05), (21_000, 20_500, 4, 0.01)
"""Rows of either side, dimension, and how far the current side lies: 55 tiles, and the 253 that 200 tasks share."""


@dataclass(frozen=True)
class Recorded:
    """The values of commit e1d5adf on a processor with AVX-512.

    Attributes:
        settings: of the run.
        statistic, p_value, threshold, mmd2, auc: of its result.
        total: sum of all rows' witness.
        magnitude: sum of its absolute values.
    """

    settings: dict[str, Any]
    statistic: float
    p_value: float
    threshold: float
    mmd2: float
    auc: float
    total: float
    magnitude: float


RECORDED = {
    "exact-search": Recorded(
        {"test_method": "exact", "kernel": "search", "test_permutations": 199},
        *(2.106672466283116, 0.305, 11.174450259002182, 0.00012743185755225567, 0.5099401041666667),
        *(-1.2849293630388274, 3.1847827693300133),
    ),
    "exact-rbf": Recorded(
        {"test_method": "exact", "kernel": "rbf", "test_permutations": 199},
        *(0.0004669629715963186, 0.185, 0.001046353105261355, 0.0004669629715963186, 0.5159869791666667),
        *(-6.697709364760158, 9.200440344897288),
    ),
    "exact-sample": Recorded(
        {
            "test_method": "exact",
            "kernel": "search",
            "kernel_combination": "fuse",
            "window_max_rows": 500,
            "pca_components": 0,
        },
        *(-0.0019081381938945833, 0.89, 0.0031072785290942972, -0.0001622829457135072, 0.480868),
        *(-0.6983071008487514, 1.5956693562914097),
    ),
    "cross": Recorded(
        {"test_method": "cross", "kernel": "search"},
        *(0.9382268622409187, 0.156, 1.5352350939245176, 0.0003419778983601229, 0.52359375),
        *(-1.3345492715416185, 4.22370444612352),
    ),
    "features": Recorded(
        {"test_method": "features", "kernel": "search"},
        *(3.4685935536296117, 0.3, 11.425755211953575, 0.00024920305121873404, 0.5205494791666667),
        *(-1.7629981513914572, 4.176250863338737),
    ),
}
LARGEST = Recorded(
    {"test_method": "exact", "kernel": "rbf", "test_permutations": 99, "pca_components": 0},
    *(-1.2217432421302021e-05, 0.77, 4.0405035170776316e-05, -1.2217432421302021e-05, 0.49643989547038325),
    *(51.19691910306811, 54.00336902748445),
)


def datasets(folder: Path, rows: int, others: int, dimension: int, shift: float) -> tuple[str, str]:
    rng = np.random.default_rng(20261130)
    x = rng.normal(size=(rows, dimension)).astype(np.float32)
    y = rng.normal(shift, 1.0, size=(others, dimension)).astype(np.float32)
    texts = [f"old {row}" for row in range(rows)]
    return (
        write_embeddings(str(folder / "x"), x, rows_per_shard=300, texts=texts, prefix="x"),
        write_embeddings(str(folder / "y"), y, rows_per_shard=300, prefix="y"),
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return datasets(tmp_path_factory.mktemp("small"), *SMALL)


def check(folder: Path, sides: tuple[str, str], recorded: Recorded, made: dict[int, int]) -> None:
    """Run by several numbers of tasks, and compare the results with each other and with what was recorded.

    Args:
        folder: an empty one.
        sides: the two datasets.
        recorded: what was found before.
        made: for each number of tasks that is asked for, the number that there is work for.
    """
    results, witness = [], []
    for tasks, expected in made.items():
        place = folder / str(tasks)
        run_steps(place / "a", *sides, str(place / "out"), kernel_tasks=tasks, seed=6, **recorded.settings)
        result = read_json(str(place / "out" / "result.json"))
        assert [timing["tasks"] for timing in result["steps"] if timing["name"] == "kernel"] == [expected]
        results.append({name: value for name, value in result.items() if name not in OWN})
        witness.append((place / "out" / "witness.parquet").read_bytes())
    assert all(result == results[0] for result in results)
    assert len(set(witness)) == 1

    # On other processors sums of float32 products differ in their last bits, and a permuted value may change sides.
    found = results[0]
    scale = abs(recorded.threshold)
    assert found["statistic"] == pytest.approx(recorded.statistic, abs=1e-3 * scale)
    assert found["threshold"] == pytest.approx(recorded.threshold, abs=1e-3 * scale)
    assert found["mmd2"] == pytest.approx(recorded.mmd2, rel=1e-3, abs=1e-8)
    assert found["auc"] == pytest.approx(recorded.auc, abs=1e-3)
    assert found["p_value"] == pytest.approx(
        recorded.p_value, abs=1.5 / (found["permutations"] + 1) if found["permutations"] else 1e-3
    )
    scores = pq.read_table(folder / "1" / "out" / "witness.parquet")["witness"].to_numpy().astype(np.float64)
    assert scores.sum() == pytest.approx(recorded.total, abs=1e-4 * recorded.magnitude)
    assert np.abs(scores).sum() == pytest.approx(recorded.magnitude, rel=1e-4)


TILES = {"exact-search": 55, "exact-rbf": 55, "exact-sample": 36, "cross": 36, "features": 10}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_results_are_those_of_before_for_any_tasks(tmp_path: Path, small: tuple[str, str], name: str):
    check(tmp_path, small, RECORDED[name], {1: 1, 8: 8, 200: TILES[name]})


@pytest.mark.slow
def test_two_hundred_tasks_give_what_one_gives(tmp_path: Path):
    check(tmp_path, datasets(tmp_path / "data", *LARGE), LARGEST, {1: 1, 200: 200})
