from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.sums import PartialSums, SumAccumulator, combine, quantum, round_to


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
    grid = BlockGrid(200, 100, 128)
    blocks = np.arange(3, dtype=np.int32)
    accumulator = SumAccumulator(grid, blocks, 2)
    accumulator.add_within(np.ones((1, 3)))
    with pytest.raises(DataError, match="expected 6 tiles in all, got 1"):
        combine(grid, [accumulator.result()])
    with pytest.raises(DataError, match="expected 6 tiles in all, got 0"):
        combine(grid, [])
    whole = PartialSums(blocks, np.ones((2, 3, 128, 2)), np.ones((2, 3)), 6)
    with pytest.raises(DataError, match="expected 6 tiles in all, got 12"):
        combine(grid, [whole, whole])
    assert combine(grid, [whole]).rows.shape == (2, 300, 2)


def test_rows_are_added_on_the_side_of_the_block_they_are_summed_over():
    grid = BlockGrid(200, 100, 128)
    accumulator = SumAccumulator(grid, np.array([1, 2], np.int32), 0, bounds=(1.0, 8.0))
    values = np.arange(256.0).reshape(2, 128)
    accumulator.add_rows(1, 2, values)
    accumulator.add_rows(2, 1, 2 * values)
    part = accumulator.result()
    np.testing.assert_array_equal(part.rows[:, 0, :, 1], values)
    np.testing.assert_array_equal(part.rows[:, 1, :, 0], 2 * values)
    assert not part.rows[:, 0, :, 0].any()
