from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.kernel.theory.bandwidth import Scale
from driftline.components.kernel.theory.collection import Collection, search_collection
from driftline.components.kernel.theory.families import Kernel

KERNEL = Kernel("rbf", 1.0)
lengths = st.floats(1e-6, 1e6)


def test_a_single_kernel_has_all_the_weight():
    assert Collection.single(KERNEL) == Collection((KERNEL,), (1.0,))


@pytest.mark.parametrize(
    ("kernels", "weights", "message"),
    [
        ((), (), "at least one kernel"),
        ((KERNEL,), (0.5, 0.5), "one for each of 1 kernels, got 2"),
        ((KERNEL, KERNEL), (1.0, 0.0), "shares above 0"),
        ((KERNEL, KERNEL), (1.5, -0.5), "shares above 0"),
        ((KERNEL, KERNEL), (0.5, 0.4), "sum to 1"),
        ((KERNEL,), (math.nan,), "shares above 0"),
    ],
)
def test_refused(kernels: tuple[Kernel, ...], weights: tuple[float, ...], message: str):
    with pytest.raises(UsageError, match=message):
        Collection(kernels, weights)


@given(st.lists(lengths, min_size=2, max_size=2), lengths, st.floats(1e-3, 1e3))
def test_search_follows_the_units_of_the_data(squared: list[float], norm: float, factor: float):
    low, median = sorted(squared)
    l1_low, l1_median = math.sqrt(low), math.sqrt(median)
    before = search_collection(Scale(low, median, norm, l1_low, l1_median))
    longer = math.sqrt(factor)
    after = search_collection(Scale(low * factor, median * factor, norm * factor, l1_low * longer, l1_median * longer))
    assert after.weights == before.weights
    assert [kernel.name for kernel in after.kernels] == [kernel.name for kernel in before.kernels]
    np.testing.assert_allclose(
        [kernel.gamma * factor for kernel in after.kernels], [kernel.gamma for kernel in before.kernels], rtol=1e-12
    )


@pytest.mark.parametrize("dimension", [1, 2, 10, 100])
def test_search_spans_the_sample_and_what_lies_within_it(dimension: int):
    z = np.random.default_rng(0).normal(size=(400, dimension))
    scale = Scale.of(z)
    collection = search_collection(scale)
    gaussian = sorted(kernel.gamma for kernel in collection.kernels if kernel.name == "rbf")
    squared = np.sum((z[:, None] - z) ** 2, axis=2)[~np.eye(len(z), dtype=bool)]
    near = [float(np.mean(np.exp(-gamma * squared))) for gamma in gaussian]
    # The widest has the sample in sight, the finest few pairs, however alike the distances are.
    assert near[0] > 0.05
    assert near[-1] < min(0.1, near[0] / 2)
    assert {kernel.name for kernel in collection.kernels} == {"rbf", "laplace-l2", "laplace-l1", "polynomial"}


def test_search_of_data_on_a_lattice_has_finite_lengths():
    z = np.repeat(np.eye(3), 40, axis=0)  # all distances are 0 or one value
    collection = search_collection(Scale.of(z))
    assert all(math.isfinite(kernel.gamma) and kernel.gamma > 0 for kernel in collection.kernels)
