"""The level, measured: how often the test rejects where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from driftline.components.mmd import two_sample_test
from driftline.components.projection.pca import PCA, gather

DRAWS = 1000
LEVEL = 0.05
# 199 permutations: 0.05 is then a p-value that can be reached exactly, so that the true rate is the level.
PERMUTATIONS = 199


def accepted() -> tuple[float, float]:
    """Return the counts of rejections that a true rate of 0.05 stays within in 99.9% of experiments."""
    return binom.interval(0.999, DRAWS, LEVEL)


def normal(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(size=(rows, 3))


def heavy_tails(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.standard_t(2, size=(rows, 3))


def repeated(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 3, size=(rows, 2)).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [normal, heavy_tails, repeated])
@pytest.mark.parametrize(("n", "m"), [(20, 20), (60, 35)])
def test_equal_distributions_are_rejected_at_the_level(draw, n, m):
    rng = np.random.default_rng(17)
    results = [
        two_sample_test(draw(rng, n), draw(rng, m), permutations=PERMUTATIONS, level=LEVEL, seed=seed)
        for seed in range(DRAWS)
    ]
    low, high = accepted()
    rejections = sum(result.rejected for result in results)
    # Ties count against a rejection: samples full of them may be rejected less often, never more.
    assert rejections <= high
    assert rejections >= low or draw is repeated
    assert min(result.p_value for result in results) > 0


@pytest.mark.slow
def test_level_through_the_projection_from_384_to_32_dimensions():
    rng = np.random.default_rng(23)
    scales = np.linspace(3.0, 0.1, 384)
    rejections, smallest = 0, 1.0
    for seed in range(DRAWS):
        pooled = rng.normal(size=(400, 384)) * scales
        projected = PCA.fit(gather([pooled]), 32).project(pooled)
        result = two_sample_test(projected[:200], projected[200:], permutations=PERMUTATIONS, seed=seed)
        rejections += result.rejected
        smallest = min(smallest, result.p_value)
    low, high = accepted()
    assert low <= rejections <= high
    assert smallest > 0


def test_a_projection_fitted_on_the_reference_alone_would_be_too_eager():
    """Why the pipeline fits on the pooled sample: this is the mistake that it avoids, seen."""
    rng = np.random.default_rng(29)
    rejections = 0
    for seed in range(60):
        pooled = rng.normal(size=(400, 384))
        projected = PCA.fit(gather([pooled[:200]]), 32).project(pooled)
        rejections += two_sample_test(projected[:200], projected[200:], permutations=PERMUTATIONS, seed=seed).rejected
    assert rejections > 30
