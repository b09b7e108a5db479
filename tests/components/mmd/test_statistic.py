from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom, t

from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel, family
from driftline.components.kernel.theory.permutations import Bins, labels
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.label_panels import LabelPanels
from driftline.components.kernel.tiles.sums import KernelSums
from driftline.components.mmd.statistic import (
    decide,
    feature_error_bound,
    feature_statistics,
    mmd2_unbiased,
    statistics,
    student_quantile,
    witness,
)
from tests.support import oracle


def test_formula_from_sums_is_the_definition():
    rng = np.random.default_rng(0)
    n, m = 7, 12
    z = rng.normal(size=(n + m, 3))
    gram = oracle.rbf_gram(z, 0.4)
    labels = np.zeros((n + m, 5))
    for column in range(5):
        labels[rng.choice(n + m, n, replace=False), column] = 1
    a = np.einsum("ib,ij,jb->b", labels, gram, labels)
    b = labels.T @ gram.sum(axis=1)
    np.testing.assert_allclose(mmd2_unbiased(a, b, gram.sum(), n, m), oracle.mmd2(gram, labels), rtol=1e-12)


def test_statistics_and_witness_from_sums():
    rng = np.random.default_rng(1)
    n, m = 150, 201
    bins, grid = Bins(n // 2, m // 2, 2), BlockGrid(n, m, 128)
    panels = LabelPanels(5, bins.cuts(5, 9), bins, grid)
    z = np.concatenate([rng.normal(size=(n, 2)), rng.normal(1.0, 1.0, size=(m, 2))])
    whole = labels(5, bins.cuts(5, 9), bins.reference, 0, bins.reference + bins.current)
    rows = np.repeat(whole, 2, axis=0).astype(float)
    rows = np.concatenate([rows, np.zeros((1, 10))])  # the current sample's odd row stays where it is
    grams = [oracle.rbf_gram(z, gamma) for gamma in (0.3, 2.0)]
    sums = KernelSums(
        np.stack([np.stack([gram[:, :n].sum(axis=1), gram[:, n:].sum(axis=1)], axis=1) for gram in grams]),
        np.stack([np.einsum("ib,ij,jb->b", rows, gram, rows) for gram in grams]),
    )
    expected = np.stack([oracle.mmd2(gram, rows) for gram in grams])
    np.testing.assert_allclose(statistics(sums, grid, panels), expected, rtol=1e-9, atol=1e-15)
    for gram, sums_of_rows in zip(grams, sums.rows, strict=True):
        np.testing.assert_allclose(witness(sums_of_rows, n), oracle.witness(gram, n), rtol=1e-10, atol=1e-14)


def test_feature_statistics_are_those_of_the_kernel_that_the_features_make():
    rng = np.random.default_rng(2)
    n, m = 60, 41
    features = RandomFeatures.draw(Kernel("rbf", 0.3), 3, 32, seed=1)
    mapped = features.map(rng.normal(size=(n + m, 3))).astype(np.float64)
    gram = mapped @ mapped.T
    np.fill_diagonal(gram, 0.0)
    rows = oracle.row_labels(4, 20, n, m)
    sums = FeatureSums((rows.T.astype(float) @ mapped)[None], mapped.sum(axis=0)[None], 2)
    np.testing.assert_allclose(feature_statistics(sums, n, m)[0], oracle.mmd2(gram, rows), atol=1e-8)


@given(
    hnp.arrays(np.float64, st.integers(19, 200), elements=st.integers(-4, 4).map(float)),
    st.integers(-4, 4).map(float),
    st.floats(0.05, 0.95),
)
def test_decision_by_threshold_and_by_p_value_agree_with_ties(permuted, observed, level):
    decision = decide(observed, permuted, level)
    assert decision.p_value == (1 + sum(value >= observed for value in permuted)) / (len(permuted) + 1)
    assert 0 < decision.p_value <= 1
    assert decision.rejected == (decision.p_value <= level) == (observed > decision.threshold)


def test_the_smallest_p_value_is_not_0():
    assert decide(10.0, np.zeros(99), 0.05).p_value == pytest.approx(0.01)


N, M = 80, 60


def approximation(kernel: Kernel, z: np.ndarray, frequencies: int, seed: int, delta: float) -> tuple[float, float]:
    """Return unbiased MMD² by random features, and the stated error."""
    features = RandomFeatures.draw(kernel, z.shape[1], frequencies, seed)
    mapped = features.map(z).astype(np.float64)
    gram = mapped @ mapped.T
    np.fill_diagonal(gram, 0.0)
    x, y = mapped[:N].sum(axis=0), mapped[N:].sum(axis=0)
    observed = (np.arange(len(z)) < N)[:, None]
    return float(oracle.mmd2(gram, observed)[0]), feature_error_bound(x, y, N, M, features.group, delta)


@pytest.mark.parametrize("name", [name for name in KERNEL_NAMES if family(name).mixture is not None])
def test_stated_errors_hold_against_the_exact_kernel(name):
    rng, draws = np.random.default_rng(5), 150
    z = np.concatenate([rng.normal(size=(N, 6)), rng.normal(0.3, 1.0, size=(M, 6))])
    kernel = Kernel(name, 1 / 12)
    exact = float(oracle.mmd2(oracle.gram(z, kernel), (np.arange(N + M) < N)[:, None])[0])
    found = [approximation(kernel, z, 512, seed, 0.05) for seed in range(draws)]
    errors = np.array([abs(value - exact) for value, _ in found])
    stated = np.array([bound for _, bound in found])
    # At a true coverage of 0.95 fewer, or with independent groups much more than are needed, are rarely seen.
    assert (errors <= stated).sum() >= binom.ppf(0.001, draws, 0.95)
    assert errors.mean() >= stated.mean() / 10


def test_the_stated_error_falls_with_the_number_of_frequencies():
    rng = np.random.default_rng(6)
    z = np.concatenate([rng.normal(size=(N, 2)), rng.normal(0.5, 1.0, size=(M, 2))])
    few, many = (approximation(Kernel("rbf", 0.2), z, count, 0, 0.01)[1] for count in (128, 2048))
    assert many == pytest.approx(few / 4, rel=0.5)


def test_too_few_groups_state_no_more_than_they_know():
    rng = np.random.default_rng(6)
    assert approximation(Kernel("rbf", 0.2), rng.normal(size=(N + M, 2)), 4, 0, 0.01)[1] == 4.0


@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995, 0.999])
@pytest.mark.parametrize("degrees", [7, 15, 1023])
def test_student_quantiles(probability, degrees):
    assert student_quantile(probability, degrees) == pytest.approx(t.ppf(probability, degrees), rel=1e-3)
