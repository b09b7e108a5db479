"""The level, measured: how often the test rejects where there is nothing to find."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

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

DRAWS = 400
"""Of each kind of samples: nine times in ten a true rate of 0.11 is told from 0.05, and of all kinds together 0.085."""
LEVEL = 0.05
# 199 permutations: 0.05 is then a p-value that can be reached exactly, so that the true rate is the level.
PERMUTATIONS = 199


Draw = Callable[[np.random.Generator, int], np.ndarray]


def accepted(draws: int) -> tuple[float, float]:
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
    low, high = accepted(len(p_values))
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


SEARCHED = [(normal, 20, 20), (heavy_tails, 20, 20), (repeated, 20, 20), (normal, 60, 35), (repeated, 60, 35)]
TESTED = [(normal, 20, 20), (heavy_tails, 60, 35), (repeated, 20, 20)]


@cache
def searches(draw: Draw, n: int, m: int) -> dict[str, list[float]]:
    """Return the p-values of every combination and every kernel on many pairs of samples."""
    rng = np.random.default_rng(17)
    found = [searched(draw(rng, n), draw(rng, m), seed) for seed in range(DRAWS)]
    return {name: [p_values[name] for p_values in found] for name in found[0]}


@cache
def p_values_of(draw: Draw, n: int, m: int, method: str) -> list[float]:
    """Return a method's p-values on many pairs of samples."""
    rng = np.random.default_rng(18)
    return [
        two_sample_test(
            draw(rng, n), draw(rng, m), method=method, kernel="rbf", permutations=PERMUTATIONS, level=LEVEL, seed=seed
        ).p_value
        for seed in range(DRAWS)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "n", "m"), SEARCHED)
def test_every_combination_and_every_kernel_rejects_equal_distributions_at_the_level(draw, n, m):
    for name, p_values in searches(draw, n, m).items():
        assert within_the_level(p_values, ties=draw is repeated), name


@pytest.mark.slow
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_so_does_every_combination_on_all_these_samples_together(combination):
    kinds = {kind: searches(*kind)[combination] for kind in SEARCHED}
    without_ties = [p for (draw, _, _), p_values in kinds.items() if draw is not repeated for p in p_values]
    assert within_the_level(without_ties, ties=False)
    assert within_the_level([p for p_values in kinds.values() for p in p_values], ties=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cross", "features"])
@pytest.mark.parametrize(("draw", "n", "m"), TESTED)
def test_every_method_rejects_equal_distributions_at_the_level(draw, n, m, method):
    # Permuted scores of ten against ten are few, so that cross's p-values are coarse, on the safe side.
    assert within_the_level(p_values_of(draw, n, m, method), ties=draw is repeated or method == "cross")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cross", "features"])
def test_so_does_every_method_on_all_these_samples_together(method):
    kinds = {kind: p_values_of(*kind, method) for kind in TESTED}
    without_ties = [p for (draw, _, _), p_values in kinds.items() if draw is not repeated for p in p_values]
    assert within_the_level(without_ties, ties=method == "cross")
    assert within_the_level([p for p_values in kinds.values() for p in p_values], ties=True)


@pytest.mark.slow
def test_level_through_the_projection_from_384_to_32_dimensions():
    rng = np.random.default_rng(23)
    scales = np.linspace(3.0, 0.1, 384)
    rejections, smallest, draws = 0, 1.0, 250  # nine times in ten a true rate of 0.13 is seen
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
