from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.random_features import CHUNK_ROWS, RandomFeatures

EXACT = {
    "rbf": lambda u: np.exp(-u),
    "laplace-l2": lambda u: np.exp(-np.sqrt(u)),
    "laplace-l1": lambda u: np.exp(-np.sqrt(u)),
    "imq": lambda u: (1 + u) ** -0.5,
    "rq": lambda u: 1 / (1 + u),
}


def squared_distances(z: np.ndarray, metric: str = "euclidean") -> np.ndarray:
    return cdist(z, z, metric) ** 2


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("d", [1, 3, 40])
@pytest.mark.parametrize("name", EXACT)
def test_inner_products_have_the_kernel_as_their_mean(name, d, orthogonal):
    z = np.random.default_rng(1).normal(size=(8, d))
    kernel = Kernel(name, 0.7 / d)
    products = np.stack(
        [
            mapped @ mapped.T
            for mapped in (
                RandomFeatures.draw(kernel, d, 64, seed, orthogonal=orthogonal).map(z).astype(np.float64)
                for seed in range(200)
            )
        ]
    )
    metric = "cityblock" if name == "laplace-l1" else "euclidean"
    exact = EXACT[name](kernel.gamma * squared_distances(z, metric))
    error = products.std(axis=0, ddof=1) / np.sqrt(len(products))
    assert (np.abs(products.mean(axis=0) - exact) < 4.5 * error + 1e-6).all()


def test_orthogonal_features_are_orthogonal_and_the_better_for_it():
    kernel, z = Kernel("rbf", 1 / 64), np.random.default_rng(2).normal(size=(30, 32))
    features = RandomFeatures.draw(kernel, 32, 512, 0)
    assert features.group == 32
    block = features.frequencies[:, 32:64].astype(np.float64)
    cosines = block.T @ block / np.outer(*[np.linalg.norm(block, axis=0)] * 2)
    np.testing.assert_allclose(cosines, np.eye(32), atol=1e-5)

    exact = EXACT["rbf"](kernel.gamma * squared_distances(z))

    def mean_squared_error(*, orthogonal: bool) -> float:
        drawn = [RandomFeatures.draw(kernel, 32, 512, seed, orthogonal=orthogonal).map(z) for seed in range(10)]
        return float(np.mean([(mapped @ mapped.T - exact) ** 2 for mapped in drawn]))

    assert mean_squared_error(orthogonal=True) < 0.5 * mean_squared_error(orthogonal=False)


@pytest.mark.parametrize(
    ("d", "count", "group"), [(1, 64, 1), (32, 512, 32), (30, 512, 16), (384, 1024, 64), (8, 7, 1)]
)
def test_groups_are_equal_and_at_least_sixteen(d, count, group):
    assert RandomFeatures.draw(Kernel("rbf", 1.0), d, count, 0).group == group
    assert RandomFeatures.draw(Kernel("laplace-l1", 1.0), d, count, 0).group == 1  # independent in any case


def test_drawing_follows_the_seed():
    kernel = Kernel("imq", 0.5)
    first, again, other = (RandomFeatures.draw(kernel, 5, 32, seed).frequencies for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("d", [1, 32, 1024])
def test_rows_have_norm_one_in_float32(d):
    mapped = RandomFeatures.draw(Kernel("laplace-l2", 1 / d), d, 128, 0).map(
        np.random.default_rng(0).normal(size=(300, d))
    )
    assert mapped.dtype == np.float32
    assert mapped.shape == (300, 256)
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("length", [1.0, 1e8])
def test_the_same_rows_have_the_same_bits_however_long_they_are(length):
    z = np.random.default_rng(5).normal(size=(3 * CHUNK_ROWS + 7, 24)) * length
    features = RandomFeatures.draw(Kernel("laplace-l2", 0.1), 24, 96, 0)
    mapped = features.map(z)
    assert np.isfinite(mapped).all()
    np.testing.assert_array_equal(features.map(z), mapped)
    np.testing.assert_array_equal(features.map(z[CHUNK_ROWS : 2 * CHUNK_ROWS]), mapped[CHUNK_ROWS : 2 * CHUNK_ROWS])


def test_features_depend_on_the_row_alone_but_for_rounding():
    rng = np.random.default_rng(5)
    z = rng.normal(size=(3 * CHUNK_ROWS + 7, 24))
    features = RandomFeatures.draw(Kernel("rbf", 0.1), 24, 96, 0)
    mapped = features.map(z)
    order = rng.permutation(len(z))
    np.testing.assert_allclose(features.map(z[order]), mapped[order], atol=1e-6)
    np.testing.assert_allclose(features.map(z[:5]), mapped[:5], atol=1e-6)


def test_rows_with_no_features_are_nan_and_no_others():
    z = np.ones((4, 3), np.float32)
    z[1, 0], z[2, 2] = np.nan, 3e38
    mapped = RandomFeatures.draw(Kernel("rbf", 1e4), 3, 16, 0).map(z)
    assert np.isnan(mapped[1:3]).any(axis=1).all()
    assert np.isfinite(mapped[[0, 3]]).all()


@pytest.mark.parametrize("name", ["linear", "polynomial"])
def test_kernels_without_features_are_refused(name):
    with pytest.raises(
        UsageError, match=f"'{name}' has no random Fourier features.*use rbf, laplace-l2, laplace-l1, imq or rq"
    ):
        RandomFeatures.draw(Kernel(name, 1.0), 3, 16, 0)


@pytest.mark.parametrize(("d", "count"), [(0, 16), (3, 0)])
def test_nothing_to_draw_is_refused(d, count):
    with pytest.raises(UsageError, match=f"at least 1 frequency, got {d} and {count}"):
        RandomFeatures.draw(Kernel("rbf", 1.0), d, count, 0)


def test_vectors_of_another_dimension_are_refused():
    with pytest.raises(DataError, match=r"expected rows of 3 numbers, got an array of shape \(2, 4\)"):
        RandomFeatures.draw(Kernel("rbf", 1.0), 3, 16, 0).map(np.zeros((2, 4)))


def test_the_serving_process_need_not_load_jax():
    code = "import sys, driftline.components.kernel.theory.random_features; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("count", [1, 3, 7, 8, 9, 16, 33, 512])
def test_features_are_the_cosines_and_sines_of_the_phases(count):
    rng = np.random.default_rng(count)
    features = RandomFeatures(rng.standard_normal((6, count)).astype(np.float32), 1)
    z = rng.standard_normal((CHUNK_ROWS + 3, 6)).astype(np.float32)
    phases = z.astype(np.float64) @ features.frequencies.astype(np.float64)
    expected = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) / np.sqrt(count)
    np.testing.assert_allclose(features.map(z), expected, rtol=0, atol=4e-6 / np.sqrt(count))
