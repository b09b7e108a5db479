"""The level, measured: how often the test rejects where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from driftline.components.drift_settings import COMBINATIONS
from driftline.components.kernel.spec import settle
from driftline.components.kernel.tiles.engine import array_blocks, sum_tiles
from driftline.components.kernel.tiles.sums import combine as combine_sums
from driftline.components.mmd import two_sample_test
from driftline.components.mmd.search import combine, own_p_values
from driftline.components.mmd.statistic import statistics
from driftline.components.projection.pca import PCA, gather

DRAWS = 1000
LEVEL = 0.05
# 199 permutations: 0.05 is then a p-value that can be reached exactly, so that the true rate is the level.
PERMUTATIONS = 199


def accepted(draws: int = DRAWS) -> tuple[float, float]:
    """Return the counts of rejections that a true rate of 0.05 stays within in 99.9% of experiments."""
    return binom.interval(0.999, draws, LEVEL)


def normal(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(size=(rows, 3))


def heavy_tails(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.standard_t(2, size=(rows, 3))


def repeated(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 3, size=(rows, 2)).astype(float)


def within_the_level(p_values: list[float], *, ties: bool) -> bool:
    """Return whether so many p-values at or below the level are what a test at its level gives."""
    low, high = accepted()
    rejections = sum(p <= LEVEL for p in p_values)
    # Ties count against a rejection: samples full of them may be rejected less often, never more.
    return (rejections >= low or ties) and rejections <= high and min(p_values) > 0


def searched(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    """Return the p-value of every combination, and of each kernel alone, from one pass."""
    n, m = len(x), len(y)
    z = np.concatenate([x, y])
    z = z - z.mean(axis=0)
    longest = float(np.sqrt((z * z).sum(axis=1).max()))
    spec = settle(
        z, n, n=n, m=m, largest_norm=longest, kernel="search", gamma="median", method="exact",
        permutations=PERMUTATIONS, seed=seed,
    )  # fmt: skip
    grid, kernels = spec.grid, spec.collection.kernels
    tiles = grid.tiles()
    part = sum_tiles(
        array_blocks(z, grid), tiles, grid, kernels, spec.panels, precision="float64", sums=spec.accumulator(tiles)
    )
    values = statistics(combine_sums(grid, [part]), grid, spec.panels)
    found = {
        f"{kernel.name} {place}": float(p)
        for place, (kernel, p) in enumerate(zip(kernels, own_p_values(values), strict=True))
    }
    for combination in COMBINATIONS:
        statistic = combine(values, spec.squares.pooled, spec.collection.weights, n, m, combination)
        found[combination] = float(np.mean(statistic >= statistic[0]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "n", "m"),
    [(normal, 20, 20), (heavy_tails, 20, 20), (repeated, 20, 20), (normal, 60, 35), (repeated, 60, 35)],
)
def test_every_combination_and_every_kernel_rejects_equal_distributions_at_the_level(draw, n, m):
    rng = np.random.default_rng(17)
    found = [searched(draw(rng, n), draw(rng, m), seed) for seed in range(DRAWS)]
    for name in found[0]:
        assert within_the_level([p_values[name] for p_values in found], ties=draw is repeated), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cross", "features"])
@pytest.mark.parametrize(("draw", "n", "m"), [(normal, 20, 20), (heavy_tails, 60, 35), (repeated, 20, 20)])
def test_every_method_rejects_equal_distributions_at_the_level(draw, n, m, method):
    rng = np.random.default_rng(18)
    p_values = [
        two_sample_test(
            draw(rng, n), draw(rng, m), method=method, kernel="rbf", permutations=PERMUTATIONS, level=LEVEL, seed=seed
        ).p_value
        for seed in range(DRAWS)
    ]
    # Permuted scores of ten against ten are few, so that cross's p-values are coarse, on the safe side.
    assert within_the_level(p_values, ties=draw is repeated or method == "cross")


@pytest.mark.slow
def test_level_through_the_projection_from_384_to_32_dimensions():
    rng = np.random.default_rng(23)
    scales = np.linspace(3.0, 0.1, 384)
    rejections, smallest, draws = 0, 1.0, 400
    for seed in range(draws):
        pooled = rng.normal(size=(400, 384)) * scales
        projected = PCA.fit(gather([pooled]), 32).project(pooled)
        result = two_sample_test(projected[:200], projected[200:], kernel="rbf", permutations=PERMUTATIONS, seed=seed)
        rejections += result.rejected
        smallest = min(smallest, result.p_value)
    low, high = accepted(draws)
    assert low <= rejections <= high
    assert smallest > 0


def test_a_projection_fitted_on_the_reference_alone_would_be_too_eager():
    """Why the pipeline fits on the pooled sample: this is the mistake that it avoids, seen."""
    rng = np.random.default_rng(29)
    rejections = 0
    for seed in range(20):
        pooled = rng.normal(size=(400, 384))
        projected = PCA.fit(gather([pooled[:200]]), 32).project(pooled)
        rejections += two_sample_test(
            projected[:200], projected[200:], kernel="rbf", permutations=PERMUTATIONS, seed=seed
        ).rejected
    assert rejections > 10
