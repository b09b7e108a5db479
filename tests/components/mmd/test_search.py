from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

from driftline.components.drift_settings import COMBINATIONS
from driftline.components.errors import UsageError
from driftline.components.mmd.search import combine, own_p_values, rank_p_values, shares

Array = NDArray[np.float64]

whole = st.integers(-40, 40).map(float)
"""Whole numbers, so that ties are common and rounding is none."""
tables = st.tuples(st.integers(1, 4), st.integers(2, 9)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=whole)
)
LEAST = {"studentised": lambda kernels: 1, "fuse": lambda kernels: 1, "agg": lambda kernels: kernels}
"""Most permutations that can be as extreme as the most extreme one: each kernel's first rank stands in one place."""

combinations = pytest.mark.parametrize("combination", COMBINATIONS)


def equal(kernels: int) -> list[float]:
    return [1 / kernels] * kernels


def p_value(statistics: Array) -> float:
    return float(np.mean(statistics >= statistics[0]))


def random_values(seed: int, kernels: int = 5, permutations: int = 40) -> tuple[Array, Array, list[float]]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(kernels, permutations)) * 10.0 ** rng.uniform(-3, 1, size=(kernels, 1))
    weights = rng.dirichlet(np.ones(kernels))
    return values, rng.uniform(0.1, 1.0, size=kernels), weights.tolist()


# The formulas, written anew.


def test_fuse_is_the_published_formula():
    values, squares, weights = random_values(0)
    n, m = 12, 30
    pairs_of_smaller = n * (n - 1)
    sum_of_squares = squares * (n + m) * (n + m - 1)
    temperature = math.sqrt(pairs_of_smaller)
    expected = [
        math.log(
            sum(
                weight * math.exp(temperature * value / math.sqrt(total / pairs_of_smaller))
                for weight, value, total in zip(weights, column, sum_of_squares, strict=True)
            )
        )
        / temperature
        for column in values.T
    ]
    np.testing.assert_allclose(combine(values, squares, weights, n, m, "fuse"), expected, rtol=1e-12)
    np.testing.assert_allclose(combine(values, squares, weights, m, n, "fuse"), expected, rtol=1e-12)


def test_agg_is_the_smallest_weighted_rank_p_value():
    values, squares, weights = random_values(1)
    permutations = values.shape[1]
    p = np.stack([rankdata(-row, method="max") / permutations for row in values])
    expected = [-min(p[q, b] / weights[q] for q in range(len(weights))) for b in range(permutations)]
    np.testing.assert_allclose(combine(values, squares, weights, 20, 20, "agg"), expected, rtol=1e-12)
    np.testing.assert_allclose(rank_p_values(values), p, rtol=1e-15)


def test_studentised_is_a_soft_maximum_of_standard_scores():
    values, squares, weights = random_values(2)
    scores = [[(value - np.mean(row)) / np.std(row) for value in row] for row in values]
    expected = [
        math.log(sum((weight * math.exp(3 * scores[q][b])) ** 2 for q, weight in enumerate(weights)))
        for b in range(values.shape[1])
    ]
    np.testing.assert_allclose(combine(values, squares, weights, 20, 20, "studentised"), expected, rtol=1e-12)


# Level.


def toy_level(combination: str, draws: int, permutations: int) -> int:
    """Count rejections of the truth: six numbers against nine, heavy-tailed, with three kernels of unlike tails."""
    rng = np.random.default_rng(8)
    n, m, rejected = 6, 9, 0
    for _ in range(draws):
        z = rng.standard_t(1, size=n + m)
        apart = np.abs(z[:, None] - z)
        grams = [np.exp(-apart), np.exp(-((apart / 0.05) ** 2)), np.outer(z, z)]
        for gram in grams:
            np.fill_diagonal(gram, 0)
        labels = np.zeros((n + m, 1 + permutations))
        labels[:n] = 1
        labels[:, 1:] = rng.permuted(labels[:, 1:], axis=0)
        others = 1 - labels
        values = np.stack(
            [
                np.sum(labels * (gram @ labels), 0) / (n * (n - 1))
                + np.sum(others * (gram @ others), 0) / (m * (m - 1))
                - 2 * np.sum(labels * (gram @ others), 0) / (n * m)
                for gram in grams
            ]
        )
        squares = [np.sum(gram**2) / ((n + m) * (n + m - 1)) for gram in grams]
        rejected += p_value(combine(values, squares, [0.5, 0.25, 0.25], n, m, combination)) <= 0.1
    return rejected


@combinations
def test_level_is_exact_at_small_sizes(combination: str):
    draws = 1500
    interval = binomtest(toy_level(combination, draws, 19), draws).proportion_ci(0.9999, method="exact")
    assert interval.low <= 0.1
    # Ties in ranks make it shy, never idle.
    assert interval.high >= 0.04


# What each rule must and must not notice.


@combinations
@given(tables, st.randoms(use_true_random=False))
def test_permutations_are_treated_alike(combination: str, values: Array, random: Random):
    order = list(range(values.shape[1]))
    random.shuffle(order)
    kernels = len(values)
    before = combine(values, np.ones(kernels), equal(kernels), 9, 7, combination)
    after = combine(values[:, order], np.ones(kernels), equal(kernels), 9, 7, combination)
    np.testing.assert_allclose(after, before[order], rtol=1e-9, atol=1e-9)


@combinations
@given(hnp.arrays(np.float64, st.integers(2, 12), elements=whole))
def test_one_kernel_alone_keeps_its_ranks(combination: str, values: Array):
    combined = combine(values[None], [1.0], [1.0], 5, 8, combination)
    assert p_value(combined) == p_value(values) == own_p_values(values[None])[0]
    # The order is the same, ties included.
    assert np.array_equal(rankdata(combined.round(9), method="dense"), rankdata(values, method="dense"))


@combinations
def test_the_unit_of_a_kernel_does_not_matter(combination: str):
    values, squares, weights = random_values(3)
    units = np.array([1e-6, 1.0, 3.0, 1e4, 0.5])
    before = combine(values, squares, weights, 15, 40, combination)
    after = combine(values * units[:, None], squares * units**2, weights, 15, 40, combination)
    np.testing.assert_allclose(after, before, rtol=1e-9)


def test_studentised_and_agg_do_not_notice_a_constant_added_to_a_kernels_statistics():
    values, squares, weights = random_values(4)
    moved = values + np.arange(len(values))[:, None]
    for combination in ("studentised", "agg"):
        np.testing.assert_allclose(
            combine(moved, squares, weights, 15, 40, combination),
            combine(values, squares, weights, 15, 40, combination),
            rtol=1e-9,
        )


@combinations
def test_a_kernel_that_sees_the_difference_leads(combination: str):
    values = np.random.default_rng(5).normal(size=(4, 200)) * 0.01
    values[2, 0] = 0.1
    squares = np.ones(4)
    assert p_value(combine(values, squares, equal(4), 100, 100, combination)) <= LEAST[combination](4) / 200
    parts = shares(values, squares, equal(4), 100, 100, combination)
    assert int(np.argmax(parts)) == 2
    assert own_p_values(values)[2] == 1 / 200


@combinations
@given(tables)
def test_shares_sum_to_one(combination: str, values: Array):
    kernels = len(values)
    parts = shares(values, np.full(kernels, 0.3), equal(kernels), 9, 7, combination)
    assert parts.shape == (kernels,)
    assert np.all(parts >= 0)
    assert math.isclose(parts.sum(), 1.0, rel_tol=1e-12)


@combinations
def test_weights_say_what_counts(combination: str):
    rng = np.random.default_rng(6)
    same = rng.normal(size=30)
    values = np.stack([same, same])
    parts = shares(values, [1.0, 1.0], [0.8, 0.2], 10, 10, combination)
    expected = {"agg": [1.0, 0.0], "fuse": [0.8, 0.2], "studentised": [16 / 17, 1 / 17]}[combination]
    np.testing.assert_allclose(parts, expected, rtol=1e-12)


# Degenerate input.


@combinations
@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_a_kernel_that_is_constant_over_the_pairs_says_nothing(combination: str, constant: float):
    values, squares, _ = random_values(7, kernels=2)
    values[1] = 0.0
    squares[1] = constant**2
    combined = combine(values, squares, equal(2), 12, 30, combination)
    alone = combine(values[:1], squares[:1], [1.0], 12, 30, combination)
    assert np.all(np.isfinite(combined))
    assert p_value(combined) == p_value(alone)
    assert own_p_values(values)[1] == 1.0


def test_rounding_of_a_constant_kernel_is_not_taken_for_a_difference():
    values, squares, weights = random_values(9, kernels=2)
    values[1] = 1e-16 * np.random.default_rng(1).normal(size=values.shape[1])
    values[1, 0] = 1e-15
    rounded = combine(values, squares, weights, 12, 30, "studentised")
    values[1] = 0.0
    np.testing.assert_array_equal(rounded, combine(values, squares, weights, 12, 30, "studentised"))


@combinations
def test_all_alike_has_p_value_one(combination: str):
    values = np.full((3, 20), 0.125)
    combined = combine(values, np.ones(3), equal(3), 10, 10, combination)
    assert p_value(combined) == 1.0
    np.testing.assert_allclose(shares(values, np.ones(3), equal(3), 10, 10, combination), 1 / 3, rtol=1e-12)


@combinations
def test_a_difference_beyond_all_measure_does_not_overflow(combination: str):
    values = np.random.default_rng(2).normal(size=(2, 1000)) * 1e-9
    values[0, 0] = 1.0
    combined = combine(values, [1e-12, 1.0], equal(2), 500_000, 500_000, combination)
    assert np.all(np.isfinite(combined))
    assert p_value(combined) <= LEAST[combination](2) / 1000


# Refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"combination": "smallest"}, "unknown 'smallest'; choose one of: .*fuse, agg"),
        ({"values": np.zeros((0, 5)), "squares": [], "weights": []}, "one row a kernel"),
        ({"values": np.zeros((2, 1))}, "B at least 1"),
        ({"values": np.zeros(5)}, "one row a kernel"),
        ({"squares": [1.0]}, "one for each of 2 kernels"),
        ({"weights": [1.0]}, "one for each of 2 kernels"),
        ({"n": 1}, "at least 2 rows, got 1 and 8"),
    ],
)
def test_refused(change: dict[str, Any], message: str):
    arguments: dict[str, Any] = {
        "values": np.ones((2, 5)),
        "squares": [1.0, 1.0],
        "weights": [0.5, 0.5],
        "n": 9,
        "m": 8,
        "combination": "fuse",
    } | change
    with pytest.raises(UsageError, match=message):
        combine(**arguments)
    with pytest.raises(UsageError, match=message):
        shares(**arguments)
