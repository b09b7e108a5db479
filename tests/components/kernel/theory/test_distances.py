from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from driftline.components.kernel.theory.distances import manhattan_matrix


@pytest.mark.parametrize(("rows", "d"), [(1, 1), (2, 3), (33, 1), (200, 40), (257, 600)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_distances_are_those_of_the_definition(rows, d, dtype):
    z = np.random.default_rng(rows).normal(size=(rows, d)).astype(dtype)
    found = manhattan_matrix(z)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, cdist(z, z, "cityblock"), rtol=1e-13)
    np.testing.assert_array_equal(found, found.T)
