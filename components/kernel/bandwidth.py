"""The median heuristic, and what may be asked of a bandwidth.

Convention: k(x, y) = exp(−‖x − y‖²/(2σ²)), that is γ = 1/(2σ²), with σ² the median of the squared distances between
distinct vectors of the pooled sample (Gretton et al., "A kernel two-sample test", JMLR 2012, section 8). Pairs at
distance 0, such as repeated texts, say nothing about the scale and are left out.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError, UsageError
from driftline.components.random_bits import SAMPLE_BANDWIDTH, choose_rows

MEDIAN: Final = "median"
Bandwidth = float | Literal["median"]

MEDIAN_ROWS: Final = 2000
"""At most this many rows enter the median: two million pairs, 64 MB. Their choice is random and blind to the labels,
so that the permutation test stays exact."""


def parse_gamma(gamma: str | float) -> Bandwidth:
    """Read ``"median"`` or a positive number. Raises UsageError for anything else."""
    if gamma == MEDIAN:
        return MEDIAN
    try:
        value = float(gamma)
    except ValueError:
        raise UsageError(f"gamma: expected 'median' or a number above 0, got {gamma!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"gamma: expected 'median' or a finite number above 0, got {gamma!r}")
    return value


def median_rows(seed: int, rows: int) -> NDArray[np.int64]:
    """Return the rows of a pooled sample on which the median is taken, ascending."""
    return choose_rows(seed, SAMPLE_BANDWIDTH, rows, MEDIAN_ROWS)


def median_gamma(z: NDArray[np.floating]) -> float:
    """Return γ = 1/(2σ²) by the median heuristic for the rows of z, (k, d).

    Raises:
        DataError: all vectors are identical, so that there is no distance to take the median of.
    """
    z = np.asarray(z, np.float64)
    z = z - z.mean(axis=0)
    norms = np.einsum("ij,ij->i", z, z)
    i, j = np.triu_indices(len(z), k=1)
    squared = (norms[:, None] + norms[None, :] - 2 * (z @ z.T))[i, j]
    # Below this, what is left of the difference is rounding: the two vectors are the same.
    rounding = 8 * np.finfo(np.float64).eps * (norms[i] + norms[j])
    apart = squared[squared > rounding]
    if not apart.size:
        raise DataError(
            f"bandwidth: all {len(z)} vectors looked at are identical, so the median distance is 0; "
            "check that the embeddings differ from text to text, or give a gamma"
        )
    return float(1.0 / (2.0 * np.median(apart)))
