from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel
from driftline.components.kernel.theory.manhattan import manhattan_matrix
from driftline.components.kernel.theory.subsample import mean_squares
from tests.support import oracle


@pytest.mark.parametrize(("rows", "d"), [(1, 1), (2, 3), (33, 1), (200, 40), (257, 600)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_distances_are_those_of_the_definition(rows, d, dtype):
    z = np.random.default_rng(rows).normal(size=(rows, d)).astype(dtype)
    found = manhattan_matrix(z)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, cdist(z, z, "cityblock"), rtol=1e-13)
    np.testing.assert_array_equal(found, found.T)


def test_mean_squares_are_those_of_the_kernel_matrices():
    n, m = 70, 41
    z = np.random.default_rng(0).normal(size=(n + m, 5))
    kernels = [Kernel(name, 0.1) for name in KERNEL_NAMES]
    squares = mean_squares(z, n, kernels)
    for place, kernel in enumerate(kernels):
        squared = oracle.gram(z, kernel) ** 2
        total = squared.sum() / ((n + m) * (n + m - 1))
        assert squares.pooled[place] == pytest.approx(total, rel=1e-5)
        within = squared[:n, :n].sum() / (n * (n - 1)), squared[n:, n:].sum() / (m * (m - 1))
        assert squares.within_reference[place] == pytest.approx(within[0], rel=1e-5)
        assert squares.within_current[place] == pytest.approx(within[1], rel=1e-5)
        assert squares.across[place] == pytest.approx(squared[:n, n:].mean(), rel=1e-5)
