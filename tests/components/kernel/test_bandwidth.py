from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.bandwidth import MEDIAN_ROWS, median_gamma, median_rows, parse_gamma


@pytest.mark.parametrize(("rows", "d"), [(2, 1), (50, 3), (300, 384)])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_median_heuristic_is_scipys_median_distance(rows, d, shift):
    z = np.random.default_rng(rows + d).normal(size=(rows, d)) + shift
    assert median_gamma(z) == pytest.approx(1 / (2 * np.median(pdist(z, "sqeuclidean"))), rel=1e-7)


def test_repeated_vectors_do_not_pull_the_median_to_0():
    z = np.random.default_rng(3).normal(size=(30, 4))
    repeated = np.concatenate([z, np.repeat(z[:1], 200, axis=0)])
    apart = pdist(repeated, "sqeuclidean")
    assert np.median(apart) == 0
    assert median_gamma(repeated) == pytest.approx(1 / (2 * np.median(apart[apart > 0])), rel=1e-9)


def test_identical_vectors_have_no_bandwidth():
    with pytest.raises(DataError, match=r"all 40 vectors looked at are identical.*give a gamma"):
        median_gamma(np.full((40, 3), 0.1))


def test_at_most_so_many_rows_are_looked_at():
    assert len(median_rows(0, 10)) == 10
    rows = median_rows(0, 10 * MEDIAN_ROWS)
    assert len(rows) == MEDIAN_ROWS
    assert rows.max() > 9 * MEDIAN_ROWS  # from all over the sample, not its head


@pytest.mark.parametrize("gamma", ["mean", "", "0", "-1", "nan", "inf", 0.0])
def test_other_gammas_are_refused(gamma):
    with pytest.raises(UsageError, match="gamma: expected 'median' or a"):
        parse_gamma(gamma)


def test_gammas_are_read():
    assert parse_gamma("median") == "median"
    assert parse_gamma("0.25") == 0.25
