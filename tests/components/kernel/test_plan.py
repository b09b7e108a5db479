from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.kernel.plan import BlockGrid


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 700), st.integers(1, 40))
def test_shares_hold_every_tile_once_and_differ_by_one_at_most(rows, block, tasks):
    grid = BlockGrid.of(rows, block)
    useful = grid.useful_tasks(tasks)
    shares = [grid.share(task, useful) for task in range(useful)]
    together = sorted(map(tuple, np.concatenate(shares).tolist()))
    assert together == [(i, j) for i in range(grid.blocks) for j in range(i, grid.blocks)]
    sizes = [len(share) for share in shares]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 10**7), st.integers(1, 5000))
def test_blocks_cover_the_rows_and_are_aligned(rows, block):
    grid = BlockGrid.of(rows, block)
    assert grid.block % 128 == 0
    assert (grid.blocks - 1) * grid.block < rows <= grid.blocks * grid.block
    assert grid.blocks <= 4096
    assert grid.span(grid.blocks - 1)[1] == rows


@pytest.mark.parametrize("tasks", [4, 7, 16, 50, 64, 100])
@pytest.mark.parametrize("rows", [100_000, 200_000, 500_000])
def test_a_task_reads_about_two_sides_of_a_square_patch(rows, tasks):
    grid = BlockGrid.of(rows, 1024)
    rows_read = [len(np.unique(grid.share(task, tasks))) * grid.block for task in range(tasks)]
    # W tasks share half of the matrix: 2N/√W rows are the two sides of a patch somewhat longer than wide.
    assert np.mean(rows_read) < 0.9 * 2 * grid.rows / np.sqrt(tasks)
    assert max(rows_read) < 1.15 * 2 * grid.rows / np.sqrt(tasks)


def test_neighbours_on_the_curve_share_a_block():
    tiles = BlockGrid.of(64 * 128, 128).tiles()
    shared = [len(set(a) & set(b)) > 0 for a, b in zip(tiles[:-1].tolist(), tiles[1:].tolist(), strict=True)]
    # The curve leaves the half matrix and comes back now and then; elsewhere each step moves in one direction.
    assert np.mean(shared) > 0.9


@pytest.mark.parametrize(
    "call", [lambda: BlockGrid.of(0), lambda: BlockGrid.of(5, 0), lambda: BlockGrid.of(5).share(3, 2)]
)
def test_impossible_grids_and_shares_are_refused(call):
    with pytest.raises(UsageError, match="expected"):
        call()
