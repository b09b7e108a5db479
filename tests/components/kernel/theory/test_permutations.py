from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.kernel.theory.permutations import (
    LEAST_BINS,
    Bins,
    labels,
    permutation_cuts,
    rank_of_threshold,
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(2, 300), st.data())
def test_every_permutation_labels_exactly_n_rows(seed, rows, data):
    n = data.draw(st.integers(1, rows - 1))
    cuts = permutation_cuts(seed, 20, n, rows)
    panel = labels(seed, cuts, n, 0, rows)
    assert (panel.sum(axis=0) == n).all()
    np.testing.assert_array_equal(panel[:, 0], np.arange(rows) < n)


@given(st.integers(1, 10**8), st.integers(1, 10**8))
def test_bins_leave_the_smaller_sample_enough_of_them(n, m):
    bins = Bins.of(n, m)
    assert bins.rows in (1, 2, 4, 8, 16, 32)
    assert bins.rows == 1 or min(bins.reference, bins.current) >= LEAST_BINS
    assert bins.rows == 32 or min(n, m) < 2 * LEAST_BINS * bins.rows
    assert 0 <= n - bins.reference * bins.rows < bins.rows


def test_cuts_do_not_depend_on_how_many_permutations_are_asked_for():
    few, many = permutation_cuts(5, 10, 40, 100), permutation_cuts(5, 300, 40, 100)
    np.testing.assert_array_equal(few, many[:10])


def test_permutations_are_uniform_and_unrelated():
    rows, n, permutations = 40, 10, 4000
    panel = labels(11, permutation_cuts(11, permutations, n, rows), n, 0, rows)[:, 1:].astype(np.float64)
    share = n / rows
    deviation = np.sqrt(share * (1 - share) / permutations)
    assert np.abs(panel.mean(axis=1) - share).max() < 5 * deviation
    # Two rows share the label 1 in n(n−1)/(N(N−1)) of the permutations.
    together = (panel @ panel.T) / permutations
    expected = n * (n - 1) / (rows * (rows - 1))
    off_diagonal = together[~np.eye(rows, dtype=bool)]
    assert np.abs(off_diagonal - expected).max() < 6 * np.sqrt(expected * (1 - expected) / permutations)


@given(st.integers(1, 2000), st.floats(0.001, 0.999))
def test_rank_of_threshold_is_the_largest_count_within_the_level(permutations, level):
    if 1 / (permutations + 1) > level:
        with pytest.raises(UsageError, match="too few for level"):
            rank_of_threshold(permutations, level)
        return
    k = rank_of_threshold(permutations, level)
    assert k / (permutations + 1) <= level < (k + 1) / (permutations + 1)


@pytest.mark.parametrize(("permutations", "level", "least"), [(18, 0.05, 19), (0, 0.05, 19), (98, 0.01, 99)])
def test_too_few_permutations_say_how_many_would_do(permutations, level, least):
    with pytest.raises(UsageError, match=f"take at least {least}$"):
        rank_of_threshold(permutations, level)
    assert rank_of_threshold(least, level) == 1


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_level_outside_0_and_1_is_refused(level):
    with pytest.raises(UsageError, match="level: expected a number between 0 and 1"):
        rank_of_threshold(500, level)
