from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import KernelSums
from driftline.components.mmd.statistic import decide, mmd2_unbiased, statistics, witness
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
    z = np.concatenate([rng.normal(size=(n, 2)), rng.normal(1.0, 1.0, size=(m, 2))])
    gram = oracle.rbf_gram(z, 0.3)
    labels = np.zeros((n + m, 4), np.int8)
    labels[:n, 0] = 1
    for column in range(1, 4):
        labels[rng.choice(n + m, n, replace=False), column] = 1
    grid = BlockGrid.of(n + m, 128)
    sums = KernelSums(
        np.stack([gram.sum(axis=1), gram[:, :n].sum(axis=1)], axis=1),
        np.einsum("ib,ij,jb->b", labels.astype(float), gram, labels.astype(float)),
    )

    def panel(index: int) -> np.ndarray:
        start, stop = grid.span(index)
        padded = np.zeros((grid.block, 5), np.int8)
        padded[: stop - start, 0] = 1
        padded[: stop - start, 1:] = labels[start:stop]
        return padded

    np.testing.assert_allclose(statistics(sums, n, grid, panel), oracle.mmd2(gram, labels), rtol=1e-10)
    np.testing.assert_allclose(witness(sums, n), oracle.witness(gram, n), rtol=1e-10, atol=1e-14)


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
