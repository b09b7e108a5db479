from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.kernel.tiles.grid import BlockGrid

sizes = st.integers(1, 4000)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(1, 700), st.integers(1, 40), st.booleans())
def test_shares_hold_every_tile_once_and_differ_by_one_at_most(n, m, block, tasks, halves):
    if halves:
        n, m = n + 1, m + 1  # a sample of one row has no second half
    grid = BlockGrid.of(n, m, block, halves=halves)
    useful = grid.useful_tasks(tasks)
    shares = [grid.share(task, useful) for task in range(useful)]
    together = list(map(tuple, np.concatenate(shares).tolist()))
    assert len(set(together)) == len(together) == grid.tile_count
    if not halves:
        assert set(together) == {(i, j) for i in range(grid.blocks) for j in range(i, grid.blocks)}
    counts = [len(share) for share in shares]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(1, 700), st.booleans())
def test_every_pair_that_counts_lies_in_one_tile(n, m, block, halves):
    n, m = n + 1, m + 1
    grid = BlockGrid.of(n, m, block, halves=halves)
    second = np.zeros(n + m, bool)
    second[n - n // 2 : n] = second[n + m - m // 2 :] = True
    covered = np.zeros((2, n + m), np.int64)  # for each row, how many rows of each half it meets
    for i, j in grid.tiles().tolist():
        (a, b), (c, d) = grid.span(i), grid.span(j)
        for own, other in ((slice(a, b), slice(c, d)), (slice(c, d), slice(a, b)))[: 1 if i == j else 2]:
            covered[0, own] += np.count_nonzero(~second[other])
            covered[1, own] += np.count_nonzero(second[other])
    firsts, seconds = np.count_nonzero(~second), np.count_nonzero(second)
    if halves:
        assert (covered[:, ~second] == [[0], [seconds]]).all()
        assert (covered[:, second] == [[firsts], [0]]).all()
    else:
        assert (covered == [[firsts], [seconds]]).all()


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.integers(1, 5000))
def test_blocks_cover_the_rows_are_aligned_and_leave_no_sample(n, m, block):
    grid = BlockGrid.of(n, m, block)
    assert grid.block % 128 == 0
    assert grid.blocks == -(-n // grid.block) + -(-m // grid.block)
    assert grid.blocks <= 130
    assert grid.span(0)[0] == 0
    assert grid.span(grid.blocks - 1)[1] == n + m
    last = -(-n // grid.block) - 1
    assert grid.span(last)[1] == grid.span(last + 1)[0] == n
    assert grid.in_reference(last)
    assert not grid.in_reference(last + 1)
    assert grid.place(last + 1) == 0


@pytest.mark.parametrize("tasks", [4, 7, 16, 50, 64, 100])
@pytest.mark.parametrize("rows", [100_000, 200_000, 500_000])
def test_a_task_reads_about_two_sides_of_a_square_patch(rows, tasks):
    grid = BlockGrid.of(rows // 2, rows // 2)
    read = grid.rows_read(tasks)
    # W tasks share half of the matrix: 2N/√W rows are the two sides of a patch somewhat longer than wide.
    assert read.mean() < 0.9 * 2 * rows / np.sqrt(tasks)
    assert read.max() < 1.15 * 2 * rows / np.sqrt(tasks)


@pytest.mark.parametrize("tasks", [3, 16, 64, 200])
def test_work_is_balanced_to_a_twentieth(tasks):
    grid = BlockGrid.of(250_000, 250_000)
    counts = [len(grid.share(task, tasks)) for task in range(tasks)]
    assert max(counts) / np.mean(counts) < 1.05


def test_neighbours_on_the_curve_share_a_block():
    tiles = BlockGrid.of(32 * 128, 32 * 128, 128).tiles()
    shared = [len(set(a) & set(b)) > 0 for a, b in zip(tiles[:-1].tolist(), tiles[1:].tolist(), strict=True)]
    # The curve leaves the half matrix and comes back now and then; elsewhere each step moves in one direction.
    assert np.mean(shared) > 0.9


@pytest.mark.parametrize(
    "call", [lambda: BlockGrid.of(0, 5), lambda: BlockGrid.of(5, 5, 0), lambda: BlockGrid.of(5, 5).share(4, 3)]
)
def test_impossible_grids_and_shares_are_refused(call):
    with pytest.raises(UsageError, match="expected"):
        call()
