from __future__ import annotations

import numpy as np
import pytest

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.engine import FLOAT64_ROWS, array_blocks, choose_precision, sum_tiles
from driftline.components.kernel.functions import RBF, make_kernel
from driftline.components.kernel.labellings import LabelPanels, labels, permutation_cuts
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import KernelSums, combine
from tests.support.oracle import rbf_gram


def run(z: np.ndarray, n: int, gamma: float, *, permutations=20, block=256, tasks=1, precision="float64", seed=4):
    grid = BlockGrid.of(len(z), block)
    panels = LabelPanels(seed, permutation_cuts(seed, permutations, n, len(z)), n, len(z), grid.block)
    parts = [
        sum_tiles(
            array_blocks(z, grid), grid.share(task, tasks), grid, RBF(gamma), panels, permutations, precision=precision
        )
        for task in range(tasks)
    ]
    return combine(grid, parts)


def same_bits(a: KernelSums, b: KernelSums) -> bool:
    return a.rows.tobytes() == b.rows.tobytes() and a.within.tobytes() == b.within.tobytes()


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (60, 41, 3), (300, 129, 32), (257, 510, 384), (100, 90, 1024)])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_sums_are_those_of_the_dense_matrix(n, m, d, precision, tolerance):
    rng = np.random.default_rng(n + d)
    z = np.concatenate([rng.normal(size=(n, d)), rng.normal(0.3, 1.2, size=(m, d))])
    z -= z.mean(axis=0)
    gamma = 0.7 / d
    sums = run(z, n, gamma, precision=precision)
    gram = rbf_gram(z, gamma)
    panel = labels(4, permutation_cuts(4, 20, n, n + m), n, 0, n + m).astype(np.float64)
    np.testing.assert_allclose(sums.rows[:, 0], gram.sum(axis=1), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(sums.rows[:, 1], gram @ panel[:, 0], rtol=tolerance, atol=tolerance)
    within = np.einsum("ib,ij,jb->b", panel, gram, panel, optimize=True)
    np.testing.assert_allclose(sums.within, within, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_same_bits_for_any_number_of_tasks(precision):
    z = np.random.default_rng(0).normal(size=(1900, 8))
    one = run(z, 800, 0.05, block=128, precision=precision)
    for tasks in (3, 8, 17, 100):
        assert same_bits(one, run(z, 800, 0.05, block=128, tasks=tasks, precision=precision))


def test_large_kernels_stay_within_float32s_mean_error():
    """Past the size where tiles are float32, their errors average out over the pairs."""
    rng = np.random.default_rng(1)
    n, m, d = 4300, 4200, 8
    assert choose_precision(n + m, RBF(0.1), 5.0) == "float32"
    z = np.concatenate([rng.normal(size=(n, d)), rng.normal(0.2, 1.0, size=(m, d))])
    z -= z.mean(axis=0)
    single = run(z, n, 0.05, block=1024, precision="float32")
    double = run(z, n, 0.05, block=1024, precision="float64")
    np.testing.assert_allclose(single.within, double.within, rtol=2e-8)
    np.testing.assert_allclose(single.rows, double.rows, rtol=1e-5)


def test_precision_is_double_for_small_samples_and_far_vectors():
    assert choose_precision(FLOAT64_ROWS, RBF(1.0), 1.0) == "float64"
    assert choose_precision(FLOAT64_ROWS + 1, RBF(1.0), 1.0) == "float32"
    assert choose_precision(FLOAT64_ROWS + 1, RBF(1.0), 1000.0) == "float64"


def test_vectors_that_overflow_are_refused():
    with pytest.raises(DataError, match="values too large for float32"):
        run(np.full((300, 2), 1e30) * np.array([1, -1]), 10, 1.0, precision="float32")


def test_progress_counts_the_tiles():
    z = np.zeros((600, 2))
    grid = BlockGrid.of(600, 256)
    panels = LabelPanels(0, permutation_cuts(0, 3, 300, 600), 300, 600, grid.block)
    seen: list[tuple[int, int]] = []
    sum_tiles(
        array_blocks(z, grid), grid.tiles(), grid, RBF(1.0), panels, 3, precision="float64",
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen == [(k, 6) for k in range(1, 7)]


def test_kernels_by_name():
    assert make_kernel("rbf", 0.5) == RBF(0.5)
    with pytest.raises(UsageError, match="kernel: unknown 'cosine'; choose one of: rbf"):
        make_kernel("cosine", 0.5)
    for gamma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="gamma: expected a finite number above 0"):
            make_kernel("rbf", gamma)
