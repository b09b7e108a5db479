from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from driftline.components.drift_settings import COMBINATIONS
from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel
from driftline.components.mmd import two_sample_test
from driftline.components.mmd.cross import cross_test
from driftline.components.mmd.search import combine
from driftline.components.random_bits import shuffled_order
from tests.support import oracle


def samples(n: int, m: int, d: int, seed: int = 0, shift: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(shift / np.sqrt(d), 1.1, size=(m, d))


def mixed(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled rows in the order that the permutations see, and that order."""
    order = np.concatenate([shuffled_order(seed, 0, len(x)), shuffled_order(seed, len(x), len(x) + len(y))])
    return np.concatenate([x, y])[order], order


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(2, 2, 1), (2, 9, 3), (40, 33, 1), (129, 255, 2), (700, 411, 32), (1025, 1100, 4), (200, 150, 1024)],
)
def test_statistic_and_permutation_counts_are_those_of_the_definition(kernel, n, m, d):
    x, y = samples(n, m, d, seed=n + d)
    result = two_sample_test(x, y, kernel=kernel, permutations=200, level=0.05, seed=3)
    z, order = mixed(x, y, 3)
    gram = oracle.gram(z - z.mean(axis=0), Kernel(kernel, result.gamma))
    expected = oracle.mmd2(gram, oracle.row_labels(3, 200, n, m))
    scale = np.abs(gram).max() * 1e-12
    assert result.statistic == result.mmd2 == pytest.approx(expected[0], rel=1e-6, abs=scale)
    np.testing.assert_allclose(result.permuted, expected[1:], rtol=1e-6, atol=scale)
    # Among few rows many permutations are alike but for rounding: counts are compared where no two are.
    if n + m > 20:
        assert round(result.p_value * 201) == 1 + int((expected[1:] >= expected[0]).sum())
        assert result.kernels[0].p_value == result.p_value
    scores = np.empty(n + m)
    scores[order] = oracle.witness(gram, n)
    np.testing.assert_allclose(
        np.concatenate([result.witness_x, result.witness_y]), scores, rtol=1e-6, atol=1e3 * scale
    )


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_search_combines_what_each_kernel_finds_alone(combination):
    x, y = samples(150, 120, 3)
    result = two_sample_test(x, y, combination=combination, permutations=200, seed=3)
    z, _ = mixed(x, y, 3)
    rows = oracle.row_labels(3, 200, 150, 120)
    centred = z - z.mean(axis=0)
    grams = [oracle.gram(centred, Kernel(kernel.name, kernel.gamma)) for kernel in result.kernels]
    values = np.stack([oracle.mmd2(gram, rows) for gram in grams])
    squares = np.array([(gram**2).sum() / (270 * 269) for gram in grams])
    weights = [kernel.weight for kernel in result.kernels]
    expected = combine(values, squares, weights, 150, 120, combination)
    np.testing.assert_allclose(result.permuted, expected[1:], rtol=1e-6, atol=1e-9)
    assert result.p_value == np.mean(expected >= expected[0])
    np.testing.assert_allclose([kernel.mmd2 for kernel in result.kernels], values[:, 0], rtol=1e-8)
    assert sum(kernel.share for kernel in result.kernels) == pytest.approx(1.0)
    assert result.mmd2 == result.kernels[result.leading_kernel].mmd2
    assert result.kernels[result.leading_kernel].share == max(kernel.share for kernel in result.kernels)


@pytest.mark.parametrize("kernel", ["rbf", "laplace-l2", "laplace-l1", "linear", "polynomial"])
def test_the_cross_method_judges_the_second_halves_by_the_first(kernel):
    x, y = samples(301, 222, 3)
    result = two_sample_test(x, y, kernel=kernel, method="cross", seed=3)
    z, order = mixed(x, y, 3)
    gram = oracle.gram(z - z.mean(axis=0), Kernel(kernel, result.gamma))
    first_x, second_x, first_y, second_y = np.split(np.arange(523), [151, 301, 412])
    scores = gram[:, first_x].mean(axis=1) - gram[:, first_y].mean(axis=1)
    expected = cross_test(scores[second_x], scores[second_y], 0.05, 3)
    assert result.mmd2 == pytest.approx(expected.statistic, rel=1e-6)
    assert result.statistic == pytest.approx(expected.studentised, rel=1e-6)
    assert result.p_value == expected.p_value
    assert result.permutations == 0
    found = np.concatenate([result.witness_x, result.witness_y])[order]
    np.testing.assert_allclose(found[second_x], scores[second_x], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("kernel", "correlation"), [("rbf", 0.99), ("laplace-l1", 0.98)])  # heavy tails are harder
def test_features_come_near_the_exact_statistic_and_say_how_near(kernel, correlation):
    x, y = samples(900, 800, 6)
    exact = two_sample_test(x, y, kernel=kernel, method="exact")
    near = two_sample_test(x, y, kernel=kernel, method="features")
    assert near.method == "features"
    assert near.gamma == exact.gamma
    assert 0 < near.feature_error_bound < 0.3 * exact.mmd2
    assert abs(near.mmd2 - exact.mmd2) <= near.feature_error_bound
    assert near.p_value == exact.p_value == 1 / 501
    assert np.corrcoef(near.witness_y, exact.witness_y)[0, 1] > correlation
    assert near.auc == pytest.approx(exact.auc, abs=0.01)
    assert near.interval is not None
    assert exact.interval is not None
    assert near.interval.high == pytest.approx(exact.interval.high, rel=0.1)


def test_auto_says_what_it_took_and_what_that_trades(monkeypatch):
    x, y = samples(300, 200, 2)
    small = two_sample_test(x, y)
    assert small.method == "exact"
    assert small.why.startswith("chosen by size (500 rows are within the 200,000 of the exact method): every pair")
    monkeypatch.setattr("driftline.components.drift_settings.EXACT_ROWS", 400)
    large = two_sample_test(x, y)
    assert large.method == "features"
    assert large.why.startswith("chosen by size (500 rows are past the 400 of the exact method): the kernel is approx")
    assert {kernel.name for kernel in large.kernels} <= {"rbf", "laplace-l2", "laplace-l1", "imq", "rq"}


def test_statistic_agrees_with_scikit_learns_kernel_sums():
    x, y = samples(300, 420, 24)
    result = two_sample_test(x, y, kernel="rbf", gamma=0.05)
    xx, yy, xy = rbf_kernel(x, x, 0.05), rbf_kernel(y, y, 0.05), rbf_kernel(x, y, 0.05)
    n, m = len(x), len(y)
    expected = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * xy.mean()
    assert result.statistic == pytest.approx(expected, rel=1e-9)


def test_statistic_of_a_large_sample_in_float32_tiles():
    n, m, d = 5000, 4000, 32
    x, y = samples(n, m, d, shift=0.5)
    result = two_sample_test(x, y, kernel="rbf", permutations=50)
    sums = {"xx": 0.0, "yy": 0.0, "xy": 0.0}
    for a, b, name in ((x, x, "xx"), (y, y, "yy"), (x, y, "xy")):
        for start in range(0, len(a), 1000):
            sums[name] += rbf_kernel(a[start : start + 1000], b, result.gamma).sum()
    expected = (sums["xx"] - n) / (n * (n - 1)) + (sums["yy"] - m) / (m * (m - 1)) - 2 * sums["xy"] / (n * m)
    assert result.statistic == pytest.approx(expected, rel=1e-6)


def test_same_seed_same_bits_other_seed_other_permutations():
    x, y = samples(80, 90, 5)
    first, again, other = (two_sample_test(x, y, kernel="laplace-l2", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.permuted.tobytes() == again.permuted.tobytes()
    assert other.statistic == pytest.approx(first.statistic, rel=1e-12)
    assert not np.array_equal(other.permuted, first.permuted)


def test_integers_booleans_single_floats_and_vectors_are_taken():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, size=(40, 3)), rng.integers(0, 9, size=(50, 3))
    expected = two_sample_test(x.astype(float), y.astype(float))
    assert two_sample_test(x, y) == expected
    assert two_sample_test(x.astype(np.float32), y.astype(np.float16)) == expected
    assert two_sample_test(x[:, 0], y[:, 0]) == two_sample_test(x[:, :1], y[:, :1])
    assert two_sample_test((x > 4).tolist(), (y > 4).tolist()).n == 40


def test_distance_from_the_origin_does_not_matter():
    x, y = samples(100, 120, 4)
    near, far = (two_sample_test(x + at, y + at, kernel="rbf") for at in (0.0, 1e6))
    assert far.statistic == pytest.approx(near.statistic, rel=1e-6)
    assert far.p_value == near.p_value


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_the_unit_of_the_data_does_not_matter(kernel):
    x, y = samples(100, 120, 4)
    metres, miles = (two_sample_test(x * unit, y * unit, kernel=kernel) for unit in (1609.344, 1.0))
    assert metres.gamma == pytest.approx(miles.gamma / 1609.344**2, rel=1e-12)
    assert metres.statistic == pytest.approx(miles.statistic, rel=1e-9)
    assert metres.p_value == miles.p_value


def test_swapping_the_samples_keeps_the_statistic():
    x, y = samples(60, 200, 6)
    there, back = two_sample_test(x, y, kernel="rbf"), two_sample_test(y, x, kernel="rbf")
    assert there.statistic == pytest.approx(back.statistic, rel=1e-12)


def test_new_rows_have_the_lowest_witness():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 4))
    y = np.concatenate([rng.normal(size=(180, 4)), rng.normal(4.0, 0.3, size=(20, 4))])
    result = two_sample_test(x, y)
    assert result.rejected
    assert set(np.argsort(result.witness_y)[:20]) == set(range(180, 200))


def test_the_callers_jax_settings_are_left_alone():
    before = jax.config.jax_enable_x64
    two_sample_test(*samples(20, 20, 2))
    assert jax.config.jax_enable_x64 == before


GOOD = np.random.default_rng(0).normal(size=(30, 4))
NAN = np.where(np.arange(30)[:, None] == 7, np.nan, GOOD)
INFINITE = np.where(np.arange(30)[:, None] == 7, -np.inf, GOOD)


@pytest.mark.parametrize(
    ("x", "y", "settings", "kind", "message"),
    [
        (GOOD, GOOD[:, :3], {}, DataError, "x and y: expected vectors of the same dimension, got 4 and 3"),
        (GOOD[:1], GOOD, {}, DataError, "x: expected at least 2 rows, got 1"),
        (GOOD, GOOD[:0], {}, DataError, "y: expected at least 2 rows, got 0"),
        (GOOD, NAN, {}, DataError, "y: row 7 holds a NaN or an infinite value"),
        (INFINITE, GOOD, {}, DataError, "x: row 7 holds a NaN or an infinite value"),
        (np.ones((9, 2)), np.ones((9, 2)), {}, DataError, "all 18 vectors looked at are identical"),
        (GOOD[None], GOOD, {}, DataError, r"x: expected an array of shape .*, got shape \(1, 30, 4\)"),
        (GOOD[:, :0], GOOD[:, :0], {}, DataError, r"x: expected an array of shape \(rows, dimensions\)"),
        (np.array([["a"], ["b"]]), GOOD, {}, DataError, "x: expected real numbers, got dtype <U1"),
        (GOOD + 1j, GOOD, {}, DataError, "x: expected real numbers, got dtype complex128"),
        (GOOD * 1e300, GOOD, {}, DataError, "overflow float64; rescale"),
        (GOOD, GOOD, {"kernel": "cosine"}, UsageError, "kernel: unknown 'cosine'; choose search or one of: rbf"),
        (GOOD[:3], GOOD[:3], {"method": "cross"}, DataError, "give at least 4 rows in each sample"),
        (GOOD, GOOD, {"method": "features", "kernel": "linear"}, UsageError, "features need a kernel of a distance"),
        (GOOD, GOOD, {"method": "fast"}, UsageError, "method: unknown 'fast'; choose one of: auto, exact, cross, feat"),
        (GOOD, GOOD, {"combination": "min"}, UsageError, "combination: unknown 'min'; choose one of: studentised"),
        (GOOD, GOOD, {"gamma": 0.5}, UsageError, "gamma: 0.5 was given with the kernel search"),
        (GOOD, GOOD, {"gamma": "mean"}, UsageError, "gamma: expected 'median' or a number above 0"),
        (GOOD, GOOD, {"gamma": 0}, UsageError, "gamma: expected 'median' or a finite number above 0"),
        (GOOD, GOOD, {"gamma": float("inf")}, UsageError, "gamma: expected 'median' or a finite number"),
        (GOOD, GOOD, {"level": 0.0}, UsageError, "level: expected a number between 0 and 1"),
        (GOOD, GOOD, {"level": 1.0}, UsageError, "level: expected a number between 0 and 1"),
        (GOOD, GOOD, {"permutations": 10}, UsageError, "permutations: 10 are too few for level 0.05.*at least 19"),
        (GOOD, GOOD, {"permutations": 2_000_000}, UsageError, "permutations: expected at most 1000000"),
        (GOOD, GOOD, {"permutations": 99.5}, UsageError, "permutations: expected a whole number, got 99.5"),
        (GOOD, GOOD, {"seed": -1}, UsageError, "seed: expected a whole number from 0"),
        (GOOD, GOOD, {"seed": True}, UsageError, "seed: expected a whole number, got True"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(x, y, settings, kind, message):
    with pytest.raises(kind, match=message) as raised:
        two_sample_test(x, y, **settings)
    assert isinstance(raised.value, ValueError)
    assert "\n" not in str(raised.value)
