from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import decomposition

from driftline.components.errors import UsageError
from driftline.components.projection.pca import PCA, Moments, gather


def data(rows: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d) * 10


@pytest.mark.parametrize(("rows", "d", "k"), [(50, 5, 3), (300, 64, 64), (40, 384, 39), (500, 1, 1)])
def test_components_variance_and_coordinates_are_scikit_learns(rows, d, k):
    x = data(rows, d)
    ours, theirs = PCA.fit(gather([x]), k), decomposition.PCA(k, svd_solver="full").fit(x)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ours.explained_variance_ratio, theirs.explained_variance_ratio_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.abs(ours.project(x)), np.abs(theirs.transform(x)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.components @ ours.components.T, np.eye(k), atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 1000), st.floats(-1e6, 1e6))
def test_moments_merge_to_those_of_the_whole(sizes, seed, shift):
    x = np.random.default_rng(seed).normal(size=(sum(sizes), 4)) + shift
    whole = Moments.of(x)
    merged = gather(np.split(x, np.cumsum(sizes)[:-1]))
    assert merged.count == whole.count
    scale = 1e-16 * max(1.0, abs(shift))
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=10 * scale)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-9, atol=1e4 * scale * len(x))
    np.testing.assert_allclose(whole.scatter, np.cov(x.T, bias=True) * len(x), rtol=1e-6, atol=1e4 * scale * len(x))


def test_signs_are_determined():
    x = data(60, 6)
    pca = PCA.fit(gather([x]), 6)
    again = PCA.fit(gather([x[::-1]]), 6)
    largest = np.abs(pca.components).argmax(axis=1)
    assert (pca.components[np.arange(6), largest] > 0).all()
    np.testing.assert_allclose(again.components, pca.components, atol=1e-9)


def test_single_precision_input_is_summed_in_double():
    x = data(4000, 3).astype(np.float32) + np.float32(1000)
    np.testing.assert_allclose(
        PCA.fit(gather([x]), 3).explained_variance,
        decomposition.PCA(3, svd_solver="full").fit(x.astype(np.float64)).explained_variance_,
        rtol=1e-9,
    )


def test_constant_vectors_have_no_variance():
    pca = PCA.fit(gather([np.full((9, 3), 2.5)]), 2)
    assert pca.explained_variance.tolist() == [0.0, 0.0]
    assert pca.explained_variance_ratio.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("rows", "d", "k"), [(10, 5, 6), (4, 9, 4), (10, 5, 0), (10, 5, -1)])
def test_more_components_than_dimensions_or_rows_are_refused(rows, d, k):
    with pytest.raises(UsageError, match=rf"components: expected from 1 to {min(d, rows - 1)} for {rows} vectors"):
        PCA.fit(gather([data(rows, d)]), k)


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        gather([])
