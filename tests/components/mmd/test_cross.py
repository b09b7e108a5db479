from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ttest_ind

from driftline.components.errors import DataError, UsageError
from driftline.components.mmd import cross


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.exp(-0.3 * ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=-1))


def scores(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The oracle: the witness of the first halves at the second halves, in float64."""
    n, m = len(x) // 2, len(y) // 2
    found = (kernel(z, x[:n]).mean(axis=1) - kernel(z, y[:m]).mean(axis=1) for z in (x[n:], y[m:]))
    return next(found), next(found)


def normal(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(size=(rows, 3))


def heavy_tails(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.standard_cauchy(size=(rows, 3))


def discrete(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 2, size=(rows, 2)).astype(float)


def mostly_repeated(rng: np.random.Generator, rows: int) -> np.ndarray:
    return 5.0 * (rng.random((rows, 2)) < 0.1)


def test_statistic_is_the_cross_mmd():
    # x̄MMD² = the inner product of the two halves' differences of mean embeddings, term by term.
    rng = np.random.default_rng(0)
    x, y = normal(rng, 30), normal(rng, 41) + 0.3
    x1, x2, y1, y2 = x[:15], x[15:], y[:20], y[20:]
    expected = kernel(x2, x1).mean() - kernel(x2, y1).mean() - kernel(y2, x1).mean() + kernel(y2, y1).mean()
    found = cross.cross_test(*scores(x, y), 0.05)
    assert found.statistic == pytest.approx(expected, abs=1e-14)
    assert found.studentised == pytest.approx(ttest_ind(*scores(x, y), equal_var=False).statistic, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [normal, heavy_tails, discrete, mostly_repeated])
@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 200), (200, 20), (60, 60)])
def test_equal_distributions_are_rejected_at_the_level(draw, n, m, monkeypatch):
    monkeypatch.setattr(cross, "PERMUTATIONS", 199)
    rng, draws = np.random.default_rng(5), 1000
    found = [cross.cross_test(*scores(draw(rng, n), draw(rng, m)), 0.05, seed) for seed in range(draws)]
    low, high = binom.interval(0.999, draws, 0.05)
    rejections = sum(each.rejected for each in found)
    assert rejections <= high
    # Ties count against a rejection: scores full of them may be rejected less often.
    assert rejections >= low or draw in (discrete, mostly_repeated)
    assert min(each.p_value for each in found) > 0
    assert all(each.exact for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("skew", ["normal", "exponential"])
def test_level_of_the_normal_limit(skew):
    rng, draws = np.random.default_rng(6), 1000
    size = cross.PERMUTED_ROWS + 1
    draw = {"normal": rng.standard_normal, "exponential": rng.standard_exponential}[skew]
    found = [cross.cross_test(draw(size), draw(3 * size), 0.05) for _ in range(draws)]
    low, high = binom.interval(0.999, draws, 0.05)
    assert low <= sum(each.rejected for each in found) <= high
    assert not any(each.exact for each in found)


def test_permuted_and_limiting_p_values_agree_where_both_hold(monkeypatch):
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=800) + 0.06, rng.normal(size=900)
    monkeypatch.setattr(cross, "PERMUTATIONS", 9999)
    exact = cross.cross_test(x, y, 0.05)
    monkeypatch.setattr(cross, "PERMUTED_ROWS", 100)
    limit = cross.cross_test(x, y, 0.05)
    assert (exact.exact, limit.exact) == (True, False)
    assert exact.studentised == limit.studentised
    assert exact.p_value == pytest.approx(limit.p_value, abs=0.02)
    assert exact.threshold == pytest.approx(limit.threshold, abs=0.08)


@pytest.mark.parametrize("size", [50, cross.PERMUTED_ROWS + 1])
def test_the_p_value_is_never_zero(size):
    rng = np.random.default_rng(8)
    found = cross.cross_test(rng.normal(size=size) + 1e3, rng.normal(size=size), 0.05)
    assert 0 < found.p_value <= 1 / (cross.PERMUTATIONS + 1)
    assert found.rejected


def test_drift_the_other_way_is_no_drift():
    rng = np.random.default_rng(9)
    assert cross.cross_test(rng.normal(size=60), rng.normal(size=60) + 3, 0.05).p_value == 1.0


@pytest.mark.parametrize("size", [40, cross.PERMUTED_ROWS + 1])
def test_constant_scores(size):
    same = cross.cross_test(np.full(size, 0.1), np.full(size + 9, 0.1), 0.05)
    assert (same.statistic, same.studentised, same.rejected) == (pytest.approx(0, abs=1e-15), 0.0, False)
    apart = cross.cross_test(np.full(size, 0.3), np.full(size + 9, 0.1), 0.05)
    assert (apart.studentised, apart.rejected) == (math.inf, True)
    assert 0 < apart.p_value <= 1 / (cross.PERMUTATIONS + 1)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 30),
    m=st.integers(2, 30),
    seed=st.integers(0, 1000),
    level=st.sampled_from([0.0005, 0.01, 0.05, 0.2]),
    scale=st.sampled_from([1e-12, 1.0, 1e6]),
)
def test_decision_follows_p_value_and_threshold_and_no_unit(n, m, seed, level, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n) + 0.5, rng.normal(size=m)
    found = cross.cross_test(x * scale, y * scale, level, seed)
    assert found.rejected == (found.p_value <= level)
    # The tie rule may only make the test refuse what is within rounding of the threshold.
    assert found.rejected == (found.studentised > found.threshold + 1e-8)
    assert found.p_value == cross.cross_test(x + 3, y + 3, level, seed).p_value


@pytest.mark.parametrize(("n", "m"), [(1, 10), (10, 1)])
def test_too_few_scores_are_refused(n, m):
    with pytest.raises(DataError, match=f"at least 2 scores in each second half, got {n} and {m}"):
        cross.cross_test(np.zeros(n), np.zeros(m), 0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_numbers_are_refused(bad):
    with pytest.raises(DataError, match="expected finite scores"):
        cross.cross_test(np.array([0.0, bad]), np.zeros(3), 0.05)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1])
def test_levels_out_of_range_are_refused(level):
    with pytest.raises(UsageError, match="level: expected a number between 0 and 1"):
        cross.cross_test(np.zeros(3), np.zeros(3), level)
