from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, t

from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel, family
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.mmd.feature_error import approximation_error, student_quantile
from tests.support import oracle

N, M = 80, 60


def approximation(kernel: Kernel, z: np.ndarray, frequencies: int, seed: int, delta: float) -> tuple[float, float]:
    """Return unbiased MMD² by random features, and the stated error."""
    features = RandomFeatures.draw(kernel, z.shape[1], frequencies, seed)
    mapped = features.map(z).astype(np.float64)
    gram = mapped @ mapped.T
    np.fill_diagonal(gram, 0.0)
    x, y = mapped[:N].sum(axis=0), mapped[N:].sum(axis=0)
    observed = (np.arange(len(z)) < N)[:, None]
    return float(oracle.mmd2(gram, observed)[0]), approximation_error(x, y, N, M, features.group, delta)


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
