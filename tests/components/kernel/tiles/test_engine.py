from __future__ import annotations

import math

import numpy as np
import pytest

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel
from driftline.components.kernel.theory.permutations import Bins
from driftline.components.kernel.tiles.engine import (
    FLOAT64_ROWS,
    accumulator,
    array_blocks,
    choose_precision,
    sum_tiles,
)
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.label_panels import LabelPanels
from driftline.components.kernel.tiles.sums import KernelSums, combine
from tests.support import oracle


def run(
    z, n, kernels, *, permutations=20, block=256, tasks=1, precision="float64", seed=4, halves=False, native=True,
    blocks=None,
) -> KernelSums:  # fmt: skip
    grid = BlockGrid.of(n, len(z) - n, block, halves=halves)
    bins = Bins.of(n, len(z) - n)
    panels = LabelPanels(seed, bins.cuts(seed, permutations), bins, grid)
    longest = math.sqrt(float((z * z).sum(axis=1).max())) or 1.0
    parts = [
        sum_tiles(
            blocks or array_blocks(z, grid), tiles, grid, kernels, panels, precision=precision,
            sums=accumulator(tiles, grid, kernels, permutations, longest), native=native,
        )
        for tiles in (grid.share(task, tasks) for task in range(tasks))
    ]  # fmt: skip
    return combine(grid, parts)


def centred(n: int, m: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(n + d)
    z = np.concatenate([rng.normal(size=(n, d)), rng.normal(0.3, 1.2, size=(m, d))])
    return z - z.mean(axis=0)


def same_bits(a: KernelSums, b: KernelSums) -> bool:
    return a.rows.tobytes() == b.rows.tobytes() and a.within.tobytes() == b.within.tobytes()


@pytest.mark.parametrize(
    ("n", "m", "d"), [(2, 2, 1), (60, 41, 3), (300, 129, 32), (257, 510, 384), (100, 90, 1024), (1025, 1100, 4)]
)
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_sums_are_those_of_the_dense_matrices(n, m, d, precision, tolerance):
    """All kernels in one pass; the last sizes have bins of two rows, and one row left over."""
    z = centred(n, m, d)
    # L1 distances grow with d, Euclidean ones with its root: no kernel is near 0, where the sums' own rounding counts.
    kernels = [Kernel(name, 0.7 / (d * d if name == "laplace-l1" else d)) for name in KERNEL_NAMES]
    sums = run(z, n, kernels, precision=precision)
    panel = oracle.row_labels(4, 20, n, m).astype(np.float64)
    for place, kernel in enumerate(kernels):
        gram = oracle.gram(z, kernel)
        error = tolerance * np.abs(gram).sum(axis=1).max()  # kernels of inner products have sums that cancel
        np.testing.assert_allclose(sums.rows[place, :, 0], gram[:, :n].sum(axis=1), rtol=tolerance, atol=error)
        np.testing.assert_allclose(sums.rows[place, :, 1], gram[:, n:].sum(axis=1), rtol=tolerance, atol=error)
        within = np.einsum("ib,ij,jb->b", panel, gram, panel, optimize=True)
        np.testing.assert_allclose(sums.within[place], within, rtol=tolerance, atol=10 * tolerance * np.abs(gram).sum())


def test_many_kernels_in_one_pass_are_each_alone():
    z = centred(300, 400, 5)
    kernels = [Kernel("rbf", 0.1), Kernel("laplace-l1", 0.2), Kernel("laplace-l2", 0.1), Kernel("linear", 0.1)]
    together = run(z, 300, kernels)
    for place, kernel in enumerate(kernels):
        alone = run(z, 300, [kernel])
        np.testing.assert_allclose(together.within[place], alone.within[0], rtol=1e-12)
        np.testing.assert_allclose(together.rows[place], alone.rows[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("halves", [False, True])
def test_same_bits_for_any_number_of_tasks(precision, halves):
    z = np.random.default_rng(0).normal(size=(1900, 8))
    kernels = [Kernel("rbf", 0.05), Kernel("polynomial", 0.05)]
    one = run(z, 800, kernels, block=128, precision=precision, halves=halves)
    for tasks in (3, 8, 17, 50):
        assert same_bits(one, run(z, 800, kernels, block=128, tasks=tasks, precision=precision, halves=halves))


def test_halves_hold_the_sums_over_the_other_half():
    z = centred(301, 220, 3)
    kernel = Kernel("imq", 0.2)
    sums = run(z, 301, [kernel], block=128, halves=True)
    gram = oracle.gram(z, kernel)
    second = np.zeros(521, bool)
    second[151:301] = second[301 + 110 :] = True
    for own in (second, ~second):
        for side, rows in enumerate((np.arange(521) < 301, np.arange(521) >= 301)):
            np.testing.assert_allclose(sums.rows[0, own, side], gram[np.ix_(own, rows & ~own)].sum(axis=1), rtol=1e-12)


def test_large_kernels_stay_within_float32s_mean_error():
    """Past the size where tiles are float32, their errors average out over the pairs."""
    rng = np.random.default_rng(1)
    n, m, d = 4300, 4200, 8
    kernel = Kernel("rbf", 0.05)
    assert choose_precision(n + m, [kernel], 5.0) == "float32"
    z = np.concatenate([rng.normal(size=(n, d)), rng.normal(0.2, 1.0, size=(m, d))])
    z -= z.mean(axis=0)
    single = run(z, n, [kernel], block=1024, precision="float32")
    double = run(z, n, [kernel], block=1024, precision="float64")
    np.testing.assert_allclose(single.within, double.within, rtol=2e-8)
    np.testing.assert_allclose(single.rows, double.rows, rtol=1e-5)


def test_precision_is_double_for_small_samples_and_far_vectors():
    kernels = [Kernel("rbf", 1.0), Kernel("rbf", 0.01)]
    assert choose_precision(FLOAT64_ROWS, kernels, 1.0) == "float64"
    assert choose_precision(FLOAT64_ROWS + 1, kernels, 1.0) == "float32"
    assert choose_precision(FLOAT64_ROWS + 1, kernels, 1000.0) == "float64"
    assert choose_precision(FLOAT64_ROWS + 1, [Kernel("laplace-l1", 1.0)], 999.0) == "float32"
    assert choose_precision(FLOAT64_ROWS + 1, [Kernel("laplace-l1", 1.0)], 1001.0) == "float64"


def test_vectors_that_overflow_are_refused():
    with pytest.raises(DataError, match="values too large for float32"):
        run(np.full((300, 2), 1e30) * np.array([1, -1]), 10, [Kernel("rbf", 1.0)], precision="float32")


def test_progress_counts_the_tiles():
    grid = BlockGrid.of(300, 300, 256)
    bins = Bins.of(300, 300)
    panels = LabelPanels(0, bins.cuts(0, 3), bins, grid)
    seen: list[tuple[int, int]] = []
    sum_tiles(
        array_blocks(np.zeros((600, 2)), grid), grid.tiles(), grid, [Kernel("rbf", 1.0)], panels,
        precision="float64", sums=accumulator(grid.tiles(), grid, [Kernel("rbf", 1.0)], 3, 1.0),
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen == [(k, grid.tile_count) for k in range(1, grid.tile_count + 1)]


def test_kernels_that_are_none():
    with pytest.raises(UsageError, match="kernel: unknown 'cosine'; choose search or one of: rbf, laplace-l2"):
        Kernel("cosine", 0.5)
    for gamma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="gamma: expected a finite number above 0"):
            Kernel("rbf", gamma)
