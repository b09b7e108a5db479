from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from driftline.components.errors import DataError, UsageError
from driftline.components.mmd import effect
from driftline.components.mmd.statistic import witness


def gram(z: np.ndarray, gamma: float) -> np.ndarray:
    norms = np.einsum("ij,ij->i", z, z)
    return np.exp(-gamma * np.maximum(norms[:, None] + norms[None, :] - 2 * z @ z.T, 0))


def sums(kernel: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    kernel = kernel.copy()
    np.fill_diagonal(kernel, 0)
    rows = np.stack([kernel[:, :n].sum(axis=1), kernel[:, n:].sum(axis=1)], axis=1)
    squares = [(part**2).sum() for part in (kernel[:n, :n], kernel[:n, n:], kernel[n:, n:])]
    return rows, np.array(squares)


def mean_over_different_rows(term, x: int, y: int, n: int, m: int) -> float:
    """Mean of term(i₁ … i_x, j₁ … j_y) over all tuples of different rows of x, and of y."""
    return float(
        np.mean(
            [term(*i, *j) for i in itertools.permutations(range(n), x) for j in itertools.permutations(range(m), y)]
        )
    )


def brute_force(k: np.ndarray, n: int, m: int) -> tuple[float, float]:
    """The linear and the pairs' part of the variance, every moment by enumeration."""
    xx, xy, yy = k[:n, :n], k[:n, n:], k[n:, n:]

    def zeta(own: np.ndarray, across: np.ndarray, count: int, others: int) -> float:
        second = (
            mean_over_different_rows(lambda i, j, a: own[i, j] * own[i, a], 3, 0, count, 1)
            - 2 * mean_over_different_rows(lambda i, j, p: own[i, j] * across[i, p], 2, 1, count, others)
            + mean_over_different_rows(lambda i, p, q: across[i, p] * across[i, q], 1, 2, count, others)
        )
        squared = (
            mean_over_different_rows(lambda i, j, a, b: own[i, j] * own[a, b], 4, 0, count, 1)
            - 2 * mean_over_different_rows(lambda i, j, a, p: own[i, j] * across[a, p], 3, 1, count, others)
            + mean_over_different_rows(lambda i, j, p, q: across[i, p] * across[j, q], 2, 2, count, others)
        )
        return second - squared

    def kappa(own: np.ndarray, count: int) -> float:
        return (
            mean_over_different_rows(lambda i, j: own[i, j] ** 2, 2, 0, count, 1)
            - 2 * mean_over_different_rows(lambda i, j, a: own[i, j] * own[i, a], 3, 0, count, 1)
            + mean_over_different_rows(lambda i, j, a, b: own[i, j] * own[a, b], 4, 0, count, 1)
        )

    across = (
        mean_over_different_rows(lambda i, p: xy[i, p] ** 2, 1, 1, n, m)
        - mean_over_different_rows(lambda i, p, q: xy[i, p] * xy[i, q], 1, 2, n, m)
        - mean_over_different_rows(lambda i, j, p: xy[i, p] * xy[j, p], 2, 1, n, m)
        + mean_over_different_rows(lambda i, j, p, q: xy[i, p] * xy[j, q], 2, 2, n, m)
    )
    texts = 4 * zeta(xx, xy, n, m) / n + 4 * zeta(yy, xy.T, m, n) / m
    pairs = 2 * kappa(xx, n) / (n * (n - 1)) + 2 * kappa(yy, m) / (m * (m - 1)) + 4 * across / (n * m)
    return texts, pairs


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 7), (7, 4)])
def test_variance_is_that_of_sums_over_all_tuples(n, m):
    z = np.random.default_rng(n).normal(size=(n + m, 2))
    z[n:] += 0.7
    k = gram(z, 0.4)
    found = effect.variance(*sums(k, n), n, m)
    assert (found.texts, found.pairs) == pytest.approx(brute_force(k, n, m), rel=1e-9, abs=1e-14)


def population_mmd2(d: int, gamma: float, shift: float) -> float:
    """Of N(0, I) and N(shift·e₁, I) under the Gaussian kernel."""
    return 2 * (1 + 4 * gamma) ** (-d / 2) * (1 - np.exp(-gamma * shift**2 / (1 + 4 * gamma)))


@pytest.mark.slow
@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5, 1.5])
@pytest.mark.parametrize(("n", "m", "draws"), [(50, 50, 500), (50, 200, 500), (300, 300, 100)])
def test_interval_holds_the_population_value(n, m, draws, shift, d):
    rng, gamma = np.random.default_rng(7), 1 / (4 * d)
    true, held = population_mmd2(d, gamma, shift), 0
    for _ in range(draws):
        z = rng.normal(size=(n + m, d))
        z[n:, 0] += shift
        found = effect.interval(*sums(gram(z, gamma), n), n, m)
        held += found.low <= true <= found.high
    # At a true coverage of 0.95 fewer would be seen in 1 of 1,000 experiments.
    assert held >= binom.ppf(0.001, draws, 0.95)


def test_variance_is_that_of_the_estimate():
    n, m, d, gamma = 40, 60, 5, 0.05
    for shift in (0.0, 1.0):
        rng, estimates, variances = np.random.default_rng(11), [], []
        for _ in range(400):
            z = rng.normal(size=(n + m, d))
            z[n:, 0] += shift
            rows, squares = sums(gram(z, gamma), n)
            found = effect.variance(rows, squares, n, m)
            variances.append(found.texts + found.pairs)
            within_x, across, within_y = rows[:n, 0].sum(), rows[:n, 1].sum(), rows[n:, 1].sum()
            estimates.append(within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m))
        assert np.mean(variances) == pytest.approx(np.var(estimates), rel=0.25)


def test_interval_narrows_with_rows_and_widens_with_confidence():
    rng = np.random.default_rng(3)

    def found(n: int, confidence: float) -> effect.Interval:
        z = rng.normal(size=(2 * n, 4))
        z[n:] += 0.5
        return effect.interval(*sums(gram(z, 0.1), n), n, n, confidence)

    narrow, wide, wider = found(800, 0.95), found(100, 0.95), found(100, 0.999)
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
    assert wider.high - wider.low > wide.high - wide.low
    assert narrow.standard_error < wide.standard_error


def test_an_interval_is_never_below_zero():
    for seed in range(50):
        z = np.random.default_rng(seed).normal(size=(12, 2))
        found = effect.interval(*sums(gram(z, 0.3), 6), 6, 6)
        assert 0 <= found.low <= found.high
        assert np.isfinite([found.low, found.high, found.standard_error]).all()


def test_samples_without_any_spread():
    rows, squares = sums(np.ones((10, 10)), 5)
    assert effect.interval(rows, squares, 5, 5) == effect.Interval(0.0, 0.0, 0.0)
    scores = witness(rows, 5)
    assert effect.witness_auc(scores[:5], scores[5:]) == 0.5


def test_discrimination_is_the_share_of_pairs_told_apart():
    rng = np.random.default_rng(4)
    z = np.concatenate([rng.integers(0, 3, size=(30, 1)), rng.integers(1, 4, size=(20, 1))]).astype(float)
    kernel = gram(z, 0.5)
    np.fill_diagonal(kernel, 0)
    scores_x = kernel[:30, :30].sum(axis=1) / 29 - kernel[:30, 30:].mean(axis=1)
    scores_y = kernel[30:, :30].mean(axis=1) - kernel[30:, 30:].sum(axis=1) / 19
    expected = np.mean([(a > b) + 0.5 * (a == b) for a in scores_x for b in scores_y])
    scores = witness(sums(kernel, 30)[0], 30)
    assert effect.witness_auc(scores[:30], scores[30:]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("shift", "lowest", "highest"), [(0.0, 0.45, 0.5), (1.5, 0.8, 0.86), (20.0, 1.0, 1.0)])
def test_discrimination_is_honest(shift, lowest, highest):
    # Of N(0, I) and N(1.5·e₁, I) no rule tells more than Φ(1.5/√2) = 0.856 of pairs.
    rng, found = np.random.default_rng(6), []
    for _ in range(100):
        z = rng.normal(size=(130, 5))
        z[50:, 0] += shift
        scores = witness(sums(gram(z, 0.05), 50)[0], 50)
        found.append(effect.witness_auc(scores[:50], scores[50:]))
    assert lowest <= np.mean(found) <= highest


@pytest.mark.parametrize(("n", "m"), [(3, 10), (10, 3)])
def test_too_few_rows_for_an_interval(n, m):
    with pytest.raises(DataError, match=f"at least 4 rows in each sample for an interval, got {n} and {m}"):
        effect.interval(*sums(np.ones((13, 13)), n), n, m)


def test_sums_of_another_shape_are_refused():
    rows, squares = sums(np.ones((10, 10)), 5)
    with pytest.raises(DataError, match=r"expected row sums of shape \(10, 2\)"):
        effect.interval(rows[:9], squares, 5, 5)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_confidence_is_a_share(confidence):
    with pytest.raises(UsageError, match="between 0 and 1"):
        effect.interval(*sums(np.ones((10, 10)), 5), 5, 5, confidence)
