from __future__ import annotations

import numpy as np
import pytest

from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel
from driftline.components.kernel.theory.subsample import mean_squares
from tests.support import oracle


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
