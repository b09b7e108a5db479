from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from driftline.components.errors import DataError
from driftline.components.kernel.theory.bandwidth import SCALE_ROWS, Scale, heuristic_kernel, scale_rows
from driftline.components.kernel.theory.families import KERNEL_NAMES


def test_scale_is_measured_between_distinct_vectors():
    z = np.random.default_rng(0).normal(size=(200, 5)) + 1e3
    squared = pdist(z, "sqeuclidean")
    scale = Scale.of(z)
    np.testing.assert_allclose([scale.low, scale.median], np.quantile(squared, [0.05, 0.5]), rtol=1e-6)
    assert scale.norm == pytest.approx(((z - z.mean(axis=0)) ** 2).sum(axis=1).mean())
    l1 = np.quantile(pdist(z, "cityblock"), [0.05, 0.5])
    np.testing.assert_allclose([scale.l1_low, scale.l1_median], l1, rtol=1e-9)


def test_repeated_vectors_do_not_count():
    z = np.random.default_rng(1).normal(size=(30, 3))
    repeated = np.repeat(z, 10, axis=0)
    scale = Scale.of(repeated)
    assert scale.median == pytest.approx(np.median(pdist(z, "sqeuclidean")), rel=1e-9)
    assert scale.l1_median == pytest.approx(np.median(pdist(z, "cityblock")), rel=1e-9)


def test_heuristics():
    z = np.random.default_rng(2).normal(size=(50, 3))
    squared, norm = np.median(pdist(z, "sqeuclidean")), ((z - z.mean(axis=0)) ** 2).sum(axis=1).mean()
    l1 = np.median(pdist(z, "cityblock"))
    expected = {
        "rbf": 1 / (2 * squared), "laplace-l2": 1 / squared, "laplace-l1": 1 / l1**2, "imq": 1 / squared,
        "rq": 1 / (2 * squared), "linear": 1 / norm, "polynomial": 1 / norm,
    }  # fmt: skip
    assert {name: heuristic_kernel(name, z).gamma for name in KERNEL_NAMES} == pytest.approx(expected)


def test_identical_vectors_are_refused():
    with pytest.raises(DataError, match="all 40 vectors looked at are identical"):
        Scale.of(np.full((40, 3), 0.1))
    for name in KERNEL_NAMES:
        with pytest.raises(DataError, match="all 40 vectors looked at are identical"):
            heuristic_kernel(name, np.full((40, 3), 0.1))


def test_rows_looked_at_are_few_and_from_all_over():
    assert len(scale_rows(0, 10)) == 10
    rows = scale_rows(0, 10 * SCALE_ROWS)
    assert len(rows) == SCALE_ROWS
    assert rows.max() > 9 * SCALE_ROWS  # from all over the sample, not its start
    assert rows.min() < SCALE_ROWS
