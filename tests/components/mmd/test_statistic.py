from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.permutations import Bins, LabelPanels, labels
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.sums import KernelSums
from driftline.components.mmd.statistic import decide, feature_statistics, mmd2_unbiased, statistics, witness
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
