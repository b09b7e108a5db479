"""The studentised cross-MMD: a test whose p-value needs no permutation of the kernel matrix.

The first halves of both samples give a witness function f, the second halves are scored by it, and the difference of
the mean scores, over its standard error, is tested from one side (Shekhar, Kim and Ramdas, "A permutation-free kernel
two-sample test", NeurIPS 2022). Only pairs of a second and a first half are looked at, half of those of the full test,
and no panel of labels. The price is power: half of the rows only choose the direction in which to look.

Given the first halves the scores of the second are plain numbers, exchangeable between the samples when there is no
drift. Their limit is normal, but it is reached slowly where one half is small or the scores are skewed. So up to
``PERMUTED_ROWS`` scores in the smaller half the p-value comes from permuting the scores, which is exact for any n and
any distribution, and costs one sum of numbers for each permutation; past that it comes from the normal limit.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError, UsageError
from driftline.components.random_bits import CROSS_PERMUTATIONS

PERMUTED_ROWS: Final = 5000
"""Up to this many scores in the smaller half, scores are permuted: about half a second at most."""
PERMUTATIONS: Final = 999
_SHUFFLED_ROWS: Final = 2000
_TIE: Final = 1e-9
_ROUNDING: Final = 1e-13
Sums = NDArray[np.float64] | np.float64


@dataclass(frozen=True, slots=True)
class CrossDecision:
    """The outcome of a cross-MMD test.

    Attributes:
        statistic: x̄MMD², mean score of x less mean score of y; its mean is MMD², in expectation over both halves.
        studentised: the statistic over its standard error; infinite when the scores of each sample are constant.
        p_value: one-sided, never 0.
        threshold: the studentised statistic above which the test rejects; infinite when no value would do.
        rejected: whether the samples differ at the level: ``p_value <= level``.
        exact: whether the p-value comes from permuted scores, and not from the normal limit.
    """

    statistic: float
    studentised: float
    p_value: float
    threshold: float
    rejected: bool
    exact: bool


def cross_test(
    scores_x: NDArray[np.floating], scores_y: NDArray[np.floating], level: float, seed: int = 0
) -> CrossDecision:
    """Test by the scores of the second halves whether the samples differ.

    Args:
        scores_x: (n₂,) values of the witness f(z) = mean k(z, first half of x) − mean k(z, first half of y) at the
            second half of x; n₂ ≥ 2.
        scores_y: (m₂,) the same at the second half of y; m₂ ≥ 2.
        level: rate of false alarms that is accepted, in (0, 1).
        seed: seed of the permutations, from 0.

    Raises:
        UsageError: a level outside (0, 1).
        DataError: fewer than two scores in a sample, or scores that are not finite numbers.
    """
    if not 0 < level < 1:
        raise UsageError(f"level: expected a number between 0 and 1, got {level}")
    x, y = (np.asarray(scores, np.float64).ravel() for scores in (scores_x, scores_y))
    if min(x.size, y.size) < 2:
        raise DataError(
            f"cross: expected at least 2 scores in each second half, got {x.size} and {y.size}; "
            "give at least 4 rows in each sample"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("cross: expected finite scores, got NaN or infinity; check the embeddings")
    statistic = float(x.mean() - y.mean())
    pooled = np.concatenate([x, y])
    pooled -= pooled.mean()
    largest = float(np.abs(pooled).max())
    # On a unit scale about 0 the sums of squares below neither cancel nor underflow.
    pooled = pooled / largest if largest > 0 else pooled
    observed = float(_studentised(pooled[: x.size].sum(), np.square(pooled[: x.size]).sum(), pooled, x.size))
    if min(x.size, y.size) > PERMUTED_ROWS:
        p_value = max(math.erfc(observed / math.sqrt(2)) / 2, sys.float_info.min)
        threshold = NormalDist().inv_cdf(1 - level)
        return CrossDecision(statistic, observed, p_value, threshold, p_value <= level, exact=False)
    permuted = _permuted(pooled, x.size, seed)
    # Near ties are ties that rounding broke; they count against.
    tolerance = _TIE * max(1.0, abs(observed)) if math.isfinite(observed) else 0.0
    p_value = (1 + int((permuted >= observed - tolerance).sum())) / (PERMUTATIONS + 1)
    allowed = math.floor(level * (PERMUTATIONS + 1) + 1e-9) - 1
    threshold = math.inf if allowed < 0 else float(np.sort(permuted)[PERMUTATIONS - 1 - allowed])
    return CrossDecision(statistic, observed, p_value, threshold, p_value <= level, exact=True)


def _permuted(pooled: NDArray[np.float64], n: int, seed: int) -> NDArray[np.float64]:
    """Return the studentised statistic of random permutations, (PERMUTATIONS,) float64; sums over the smaller half."""
    rng = np.random.default_rng([seed, CROSS_PERMUTATIONS])
    size = min(n, len(pooled) - n)
    sums = np.empty((2, PERMUTATIONS), np.float64)
    if len(pooled) <= _SHUFFLED_ROWS:
        chosen = rng.permuted(np.tile(pooled, (PERMUTATIONS, 1)), axis=1)[:, :size]
        sums[:] = chosen.sum(axis=1), np.square(chosen).sum(axis=1)
    else:  # shuffling all scores for the sake of a few would take longer
        for index in range(PERMUTATIONS):
            chosen = pooled[rng.choice(len(pooled), size, replace=False, shuffle=False)]
            sums[:, index] = chosen.sum(), np.square(chosen).sum()
    if size == n:
        return _studentised(sums[0], sums[1], pooled, n)
    return _studentised(pooled.sum() - sums[0], np.square(pooled).sum() - sums[1], pooled, n)


def _studentised(total_x: Sums, square_x: Sums, pooled: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the difference of means over its standard error, from the sums and sums of squares over x."""
    m = len(pooled) - n
    total_y, square_y = pooled.sum() - total_x, np.square(pooled).sum() - square_x
    difference = total_x / n - total_y / m
    error = np.sqrt(_variance(total_x, square_x, n) / n + _variance(total_y, square_y, m) / m)
    same = np.abs(difference) <= _ROUNDING
    ratio = difference / np.where(error > 0, error, 1.0)
    return np.where(error > 0, ratio, np.where(same, 0.0, np.copysign(np.inf, difference)))


def _variance(total: Sums, square: Sums, count: int) -> NDArray[np.float64]:
    found = (square - total**2 / count) / (count - 1)
    # What rounding leaves of constant scores, on a unit scale, is no spread.
    return np.where(found > _ROUNDING, found, 0.0)
