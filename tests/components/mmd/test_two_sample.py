from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.labellings import labels, permutation_cuts
from driftline.components.mmd import two_sample_test
from tests.support import oracle


def samples(n: int, m: int, d: int, seed: int = 0, shift: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(shift / np.sqrt(d), 1.1, size=(m, d))


@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(2, 2, 1), (2, 9, 3), (40, 33, 1), (129, 255, 2), (700, 411, 32), (1025, 1500, 16), (200, 150, 1024)],
)
def test_statistic_and_permutation_counts_are_those_of_the_definition(n, m, d):
    x, y = samples(n, m, d, seed=n + d)
    result = two_sample_test(x, y, permutations=200, level=0.05, seed=3)
    gram = oracle.rbf_gram(np.concatenate([x, y]), result.gamma)
    panel = labels(3, permutation_cuts(3, 200, n, n + m), n, 0, n + m)
    expected = oracle.mmd2(gram, panel)
    assert result.statistic == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(result.permuted, expected[1:], rtol=1e-6, atol=1e-12)
    # Among few rows many relabellings are alike but for rounding: counts are compared where no two are.
    if n + m > 20:
        assert round(result.p_value * 201) == 1 + int((expected[1:] >= expected[0]).sum())
    np.testing.assert_allclose(
        np.concatenate([result.witness_x, result.witness_y]), oracle.witness(gram, n), rtol=1e-6, atol=1e-9
    )


def test_statistic_agrees_with_scikit_learns_kernel_sums():
    x, y = samples(300, 420, 24)
    result = two_sample_test(x, y, bandwidth=0.05)
    xx, yy, xy = rbf_kernel(x, x, 0.05), rbf_kernel(y, y, 0.05), rbf_kernel(x, y, 0.05)
    n, m = len(x), len(y)
    expected = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * xy.mean()
    assert result.statistic == pytest.approx(expected, rel=1e-9)


def test_statistic_of_a_large_sample_in_float32_tiles():
    n, m, d = 5000, 4000, 32
    x, y = samples(n, m, d, shift=0.5)
    result = two_sample_test(x, y, permutations=50)
    sums = {"xx": 0.0, "yy": 0.0, "xy": 0.0}
    for a, b, name in ((x, x, "xx"), (y, y, "yy"), (x, y, "xy")):
        for start in range(0, len(a), 1000):
            sums[name] += rbf_kernel(a[start : start + 1000], b, result.gamma).sum()
    expected = (sums["xx"] - n) / (n * (n - 1)) + (sums["yy"] - m) / (m * (m - 1)) - 2 * sums["xy"] / (n * m)
    assert result.statistic == pytest.approx(expected, rel=1e-6)


def test_same_seed_same_bits_other_seed_other_relabellings():
    x, y = samples(80, 90, 5)
    first, again, other = (two_sample_test(x, y, seed=seed) for seed in (1, 1, 2))
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
    near, far = two_sample_test(x, y), two_sample_test(x + 1e6, y + 1e6)
    assert far.statistic == pytest.approx(near.statistic, rel=1e-6)
    assert far.p_value == near.p_value


def test_swapping_the_samples_keeps_the_statistic():
    x, y = samples(60, 200, 6)
    assert two_sample_test(x, y).statistic == pytest.approx(two_sample_test(y, x).statistic, rel=1e-12)


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
        (GOOD, GOOD, {"kernel": "cosine"}, UsageError, "kernel: unknown 'cosine'; choose one of: rbf"),
        (GOOD, GOOD, {"bandwidth": "mean"}, UsageError, "gamma: expected 'median' or a number above 0"),
        (GOOD, GOOD, {"bandwidth": 0}, UsageError, "gamma: expected 'median' or a finite number above 0"),
        (GOOD, GOOD, {"bandwidth": float("inf")}, UsageError, "gamma: expected 'median' or a finite number"),
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
