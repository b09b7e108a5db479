"""Effect size of a drift: a confidence interval for MMD², and the AUC of the witness.

A p-value answers whether there is drift; with enough texts it is small even for a drift that matters to nobody. This
module measures how large the drift is, from sums that the pass over the kernel matrix yields anyway.

**Variance of the unbiased MMD².** By Hoeffding's decomposition the part that is linear in single texts and the part
that is about pairs are uncorrelated, so the variance is exactly

    4ζ_x/n + 4ζ_y/m  +  2κ_xx/(n(n − 1)) + 2κ_yy/(m(m − 1)) + 4κ_xy/(nm),

where ζ_x = Var f(X) and ζ_y = Var f(Y) are the variances of the population's witness f(z) = E k(z, X) − E k(z, Y), and
κ_xx = E k(X, X')² − 2 E_X (E_X' k)² + (E k(X, X'))², and so on, are the mean squares of the doubly centred kernel.
The linear part dominates where there is drift (Gretton et al., JMLR 2012, corollary 16) and vanishes where there is
none; the variance is then the pairs' part (theorem 12). Every moment is estimated without bias, by sums over tuples of
different texts, as Sutherland and Deka ("Unbiased estimators for the variance of MMD estimators", 2019) do for n = m.

**Interval.** The linear part is proportional to MMD² along a given direction of drift, so that a sample whose estimate
is low by chance has a variance that is too low as well: adding multiples of the standard error covers a small drift 87%
of the time instead of 95%. The interval therefore holds every value t that is not refuted, like Wilson's for a
proportion: (estimate − t)² ≤ q²·(A·t + B), with q the normal quantile, B the pairs' part and A the linear part for each
unit of MMD².
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval for the population's MMD².

    Attributes:
        low: lower end; 0 where it would be below, as MMD² of two distributions is never negative.
        high: upper end, at least 0 for the same reason.
        standard_error: of the unbiased estimate, if the population's MMD² were equal to it.
    """

    low: float
    high: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Variance:
    """The two parts of the variance of the unbiased MMD², estimated without bias: by chance they may be below 0.

    Attributes:
        texts: 4ζ_x/n + 4ζ_y/m, the part linear in the texts.
        pairs: the part of pairs of texts.
        steepest: the most that the linear part can be for each unit of MMD²: 4√κ_xx/n + 4√κ_yy/m, for ζ = ⟨f, C f⟩ is
            at most ‖f‖² = MMD² times the largest eigenvalue of the sample's covariance operator C, and √κ is the root
            of the sum of their squares.
    """

    texts: float
    pairs: float
    steepest: float


def interval(
    rows: NDArray[np.float64], squares: NDArray[np.float64], n: int, m: int, confidence: float = 0.95
) -> Interval:
    """Return a confidence interval for MMD².

    The normal limit's quantile is used throughout. At no drift the estimate's limit is a weighted sum of chi-squares,
    which is skewed to the right; the interval then misses 0 on one side alone, about as often as it may on both.

    Args:
        rows: (N, 2) float64, for each row of the pooled sample, the n rows of x first: the sum of k to the rows of x
            and to the rows of y, itself left out.
        squares: (3,) float64, sums of k² over ordered pairs of different rows of x, over pairs of a row of x and a
            row of y (each counted once), and over ordered pairs of different rows of y.
        n: rows of x, at least 4.
        m: rows of y, at least 4.
        confidence: share of samples whose interval holds MMD², in (0, 1).

    Raises:
        UsageError: a confidence outside (0, 1).
        DataError: fewer than 4 rows in a sample, or sums of another shape.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence: expected a number between 0 and 1, got {confidence}")
    parts = variance(rows, squares, n, m)
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    estimate = _mmd2_unbiased(rows, n, m)
    # The sample's own ratio of linear part to MMD² is noise where MMD² is no larger than its noise; the bound, which
    # is none, counts for as much as an observation of that size.
    noise = math.sqrt(max(parts.pairs, 0.0))
    size = max(estimate, 0.0) + noise
    slope = min((max(parts.texts, 0.0) + parts.steepest * noise) / size, parts.steepest) if size > 0 else 0.0
    middle = estimate + quantile**2 * slope / 2
    reach = quantile * math.sqrt(max(slope * estimate + quantile**2 * slope**2 / 4 + noise**2, 0.0))
    error = math.sqrt(slope * max(estimate, 0.0) + noise**2)
    return Interval(max(middle - reach, 0.0), max(middle + reach, 0.0), error)


def variance(rows: NDArray[np.float64], squares: NDArray[np.float64], n: int, m: int) -> Variance:
    """Return the variance of the unbiased MMD²; arguments and errors as for :func:`interval`."""
    if min(n, m) < 4:
        raise DataError(f"effect: expected at least 4 rows in each sample for an interval, got {n} and {m}")
    if rows.shape != (n + m, 2) or squares.shape != (3,):
        raise DataError(
            f"effect: expected row sums of shape {(n + m, 2)} and 3 sums of squares, got {rows.shape} and "
            f"{squares.shape}"
        )
    x, y = (_one(rows[:n, 0], squares[0]), _one(rows[n:, 1], squares[2]))
    xy, yx = rows[:n, 1], rows[n:, 0]  # of a row of x over all y, and of a row of y over all x
    square, total = float(squares[1]), float(xy.sum())
    # Means over different rows: of k(x, y)·k(x, y'), k(x, y)·k(x', y) and k(x, y)·k(x', y').
    same_x = (float(xy @ xy) - square) / (n * m * (m - 1))
    same_y = (float(yx @ yx) - square) / (m * n * (n - 1))
    different = (total**2 - float(xy @ xy) - float(yx @ yx) + square) / (n * (n - 1) * m * (m - 1))
    zeta_x = _zeta(x, rows[:n, 0], xy, same_x, different, m)
    zeta_y = _zeta(y, rows[n:, 1], yx, same_y, different, n)
    kappa_xy = square / (n * m) - same_x - same_y + different
    pairs = 2 * x.kappa / (n * (n - 1)) + 2 * y.kappa / (m * (m - 1)) + 4 * kappa_xy / (n * m)
    steepest = 4 * math.sqrt(max(x.kappa, 0.0)) / n + 4 * math.sqrt(max(y.kappa, 0.0)) / m
    return Variance(4 * zeta_x / n + 4 * zeta_y / m, pairs, steepest)


def witness_auc(scores_x: NDArray[np.float64], scores_y: NDArray[np.float64]) -> float:
    """Return the area under the witness's ROC curve, also known as the probability of superiority.

    It is the probability that, of a text of x and a text of y drawn at random, the one of x has the higher witness;
    ties count one half. Each text is left out of its own sample's mean. The value is 0.5, or a little less in small
    samples, when the two samples are alike, and 1 when every text of y looks newer than every text of x. It does not
    depend on the kernel's scale, so that it compares between datasets.

    Args:
        scores_x: (n,) witness values of the texts of x, n ≥ 1.
        scores_y: (m,) those of the texts of y, m ≥ 1.
    """
    ordered = np.sort(scores_y)
    below = [np.searchsorted(ordered, scores_x, side=side).sum(dtype=np.int64) for side in ("left", "right")]
    return float(sum(below)) / (2 * len(scores_x) * len(scores_y))


@dataclass(frozen=True, slots=True)
class _Moments:
    """Mean products of kernel values within one sample, over tuples of different rows.

    Attributes:
        shared: of k(x, x')·k(x, x'').
        apart: of k(x, x')·k(x'', x''').
        kappa: mean square of the doubly centred kernel.
    """

    shared: float
    apart: float
    kappa: float


def _one(sums: NDArray[np.float64], square: float) -> _Moments:
    n, dot, total = len(sums), float(sums @ sums), float(sums.sum())
    shared = (dot - square) / (n * (n - 1) * (n - 2))
    apart = (total**2 - 4 * dot + 2 * square) / (n * (n - 1) * (n - 2) * (n - 3))
    return _Moments(shared, apart, float(square / (n * (n - 1)) - 2 * shared + apart))


def _zeta(
    own: _Moments,
    within: NDArray[np.float64],
    across: NDArray[np.float64],
    same: float,
    different: float,
    others: int,
) -> float:
    """Return the variance of the witness over one sample.

    Var f = E(μ_own)² − 2 E(μ_own·μ_other) + E(μ_other)² − (E μ_own − E μ_other)², with μ the mean kernel to a sample.
    """
    n, product = len(within), float(within @ across)
    shared = product / (n * (n - 1) * others)
    apart = (float(within.sum()) * float(across.sum()) - 2 * product) / (n * (n - 1) * (n - 2) * others)
    return own.shared - 2 * shared + same - (own.apart - 2 * apart + different)


def _mmd2_unbiased(rows: NDArray[np.float64], n: int, m: int) -> float:
    x, across, y = rows[:n, 0].sum(), rows[:n, 1].sum(), rows[n:, 1].sum()
    return float(x / (n * (n - 1)) + y / (m * (m - 1)) - 2 * across / (n * m))
