from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import laplacian_kernel, polynomial_kernel, rbf_kernel

from driftline.components.kernel.theory.bandwidth import heuristic_kernel
from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel, family

Z = np.random.default_rng(0).normal(size=(60, 4))


def value(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u = {
        "product": x @ y.T,
        "distance": ((x[:, None] - y[None]) ** 2).sum(axis=2),
        "manhattan": np.abs(x[:, None] - y[None]).sum(axis=2),
    }[kernel.family.argument]
    return np.asarray(kernel.family.function(kernel.family.factor(kernel.gamma) * u), np.float64)


def test_kernels_are_scikit_learns():
    np.testing.assert_allclose(value(Kernel("rbf", 0.3), Z, Z), rbf_kernel(Z, Z, 0.3), rtol=1e-5)
    np.testing.assert_allclose(
        value(Kernel("polynomial", 0.3), Z, Z), polynomial_kernel(Z, Z, 3, 0.3, 1), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(value(Kernel("laplace-l1", 0.25), Z, Z), laplacian_kernel(Z, Z, 0.5), rtol=1e-5)
    line = Z[:, :1]  # of one dimension: there scikit-learn's sum of differences is the Euclidean distance
    np.testing.assert_allclose(
        value(Kernel("laplace-l2", 0.25), line, line), laplacian_kernel(line, line, 0.5), rtol=1e-5
    )


@pytest.mark.parametrize("name", KERNEL_NAMES)
def test_kernel_matrices_are_positive_semidefinite_and_bounded(name):
    z = Z - Z.mean(axis=0)
    kernel = heuristic_kernel(name, z)
    gram = value(kernel, z, z)
    assert np.linalg.eigvalsh(gram).min() > -1e-5 * np.abs(gram).max()
    assert np.abs(gram).max() <= kernel.bound(np.sqrt((z * z).sum(axis=1).max())) * (1 + 1e-5)


@pytest.mark.parametrize("name", [name for name in KERNEL_NAMES if family(name).mixture is not None])
def test_mixtures_have_the_family_s_function_as_their_transform(name):
    chosen = family(name)
    assert chosen.mixture is not None
    scales = chosen.mixture(np.random.default_rng(1), (2, 200_000))
    assert scales.shape == (2, 200_000)
    for u in (0.01, 0.3, 1.0, 4.0):  # γ times the square of a distance, of a difference of coordinates where it is L1
        expected = float(chosen.function(np.float64(chosen.factor(u))))
        assert np.exp(-scales * u).mean() == pytest.approx(expected, abs=0.004)
