from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import PartialSums, SumAccumulator, combine, quantum, round_to


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 200))
def test_rounded_addends_add_up_to_the_same_bits_in_any_order(seed, count):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=count) * 10.0 ** rng.integers(-12, 4, size=count)
    rounded = round_to(values, quantum(float(np.abs(values).sum()) * 1.01))
    forward = np.float64(0)
    for value in rounded:
        forward += value
    shuffled = np.float64(0)
    for value in rng.permutation(rounded):
        shuffled += value
    assert forward.tobytes() == shuffled.tobytes()
    assert abs(forward - values.sum()) <= 2.0**-50 * count * np.abs(values).sum()


def test_missing_or_doubled_tiles_are_refused():
    grid = BlockGrid(300, 128)
    accumulator = SumAccumulator(grid, np.arange(3, dtype=np.int32), 2)
    accumulator.add_within(np.ones(3))
    with pytest.raises(DataError, match="expected 6 tiles in all, got 1"):
        combine(grid, [accumulator.result()])
    with pytest.raises(DataError, match="expected 6 tiles in all, got 0"):
        combine(grid, [])
    whole = PartialSums(np.arange(3, dtype=np.int32), np.ones((3, 128, 2)), np.ones(3), 6)
    with pytest.raises(DataError, match="expected 6 tiles in all, got 12"):
        combine(grid, [whole, whole])
    assert combine(grid, [whole]).rows.shape == (300, 2)
