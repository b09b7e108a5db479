"""Kernel search: many kernels' MMD² combined into one statistic that stays at its level.

One pass over the pooled sample yields MMD² for every kernel, under the observed labels and under B permutations of
them. A combination makes one number of the kernels' values under one permutation, by a rule that is the same for all
1 + B of them, the observed labels included. So the permutation p-value of that number is exact at any size and for any
kernels: the search costs only what the combination's own permutation distribution shows (Schrab et al. 2023, Biggs et
al. 2023). Taking the kernel with the smallest p-value, and that p-value, would not be exact.

===========  ========================================================================================================
studentised  the default: each kernel's MMD² is measured in standard deviations of its own distribution over the
             permutations, z; then log Σ (w·exp(3z))², a soft maximum.
fuse         MMD-FUSE: log Σ w·exp(λ·MMD²/√N̂) / λ with N̂ the kernel's mean square over pairs and λ = √(s(s − 1)), s
             the smaller sample's rows (Biggs, Schrab, Gretton, NeurIPS 2023, section 4).
agg          MMDAgg: each kernel's rank p-value among the permutations, and of these the smallest after division by the
             weights (Schrab, Kim, Albert, Laurent, Guedj, Gretton, JMLR 2023), in the form that takes the ranks and
             the correction from one set of permutations, and is exact for a finite number of them.
===========  ========================================================================================================
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.components.drift_settings import check_combination
from driftline.components.errors import UsageError

Array = NDArray[np.float64]

SHARPNESS: Final = 3.0
"""Closeness of the studentised soft maximum to the maximum. At a lower value several kernels that each see a little
count more, and one kernel that sees much counts less. At 3 a kernel's weight is about its share of the level: where a
test over some kernels at level 0.05 decides, at z about 2.6, the normal distribution's tail falls as exp(-3z)."""

NO_SPREAD: Final = 1e-11
"""A kernel whose MMD² varies over the permutations by less than this share of its root mean square is constant over the
pairs, as far as float64 sums show. The variation is rounding, and counts as nothing."""


def combine(values: ArrayLike, squares: ArrayLike, weights: ArrayLike, n: int, m: int, combination: str) -> Array:
    """Combine the kernels' statistics into one for each permutation.

    Args:
        values: (Q, 1 + B) unbiased MMD² of each kernel under each permutation, the observed labels first.
        squares: (Q,) mean of k(zᵢ, zⱼ)² over the pairs i ≠ j of the pooled sample.
        weights: Q shares above 0 that sum to 1.
        n: rows of x.
        m: rows of y.
        combination: one of ``driftline.components.drift_settings.COMBINATIONS``.

    Returns:
        (1 + B,) float64: larger means further apart. Only comparisons between permutations have a meaning: the
        p-value is (1 + #{permuted ≥ observed}) / (1 + B).

    Raises:
        UsageError: an unknown combination, or shapes that do not belong together.
    """
    terms, share = _terms(values, squares, weights, n, m, combination)
    if combination == "agg":
        return terms.max(axis=0)
    highest = terms.max(axis=0)
    # Σ w·exp(term) without overflow.
    fused = highest + np.log(share @ np.exp(terms - highest))
    return fused / _temperature(n, m) if combination == "fuse" else fused


def shares(values: ArrayLike, squares: ArrayLike, weights: ArrayLike, n: int, m: int, combination: str) -> Array:
    """Return how much each kernel contributes to the observed combined statistic, (Q,) float64 that sum to 1.

    For the soft maxima it is the kernel's part of the sum under the logarithm; for ``"agg"`` the kernel with the
    smallest weighted p-value has all of it, shared equally where several have.

    Arguments and errors are those of :func:`combine`.
    """
    terms, share = _terms(values, squares, weights, n, m, combination)
    observed = terms[:, 0]
    if combination == "agg":
        parts = (observed == observed.max()).astype(np.float64)
    else:
        parts = share * np.exp(observed - observed.max())
    return parts / parts.sum()


def own_p_values(values: ArrayLike) -> Array:
    """Return each kernel's own permutation p-value, (Q,) float64: (1 + #{permuted ≥ observed}) / (1 + B).

    They show which kernels see a difference. The smallest of them is not a p-value of the search: it was selected.
    """
    array = _checked(values)
    return np.mean(array >= array[:, :1], axis=1)


def _checked(values: ArrayLike) -> Array:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] < 2:
        raise UsageError(f"values: expected one row a kernel of 1 + B statistics, B at least 1, got {array.shape}")
    return array


def _terms(
    values: ArrayLike, squares: ArrayLike, weights: ArrayLike, n: int, m: int, combination: str
) -> tuple[Array, Array]:
    """Return each kernel's term under each permutation, (Q, 1 + B), and its weight, (Q,)."""
    check_combination(combination)
    array, mean_square, share = _checked(values), np.asarray(squares, np.float64), np.asarray(weights, np.float64)
    if mean_square.shape != array.shape[:1] or share.shape != array.shape[:1]:
        raise UsageError(
            f"squares and weights: expected one for each of {len(array)} kernels, "
            f"got shapes {mean_square.shape} and {share.shape}"
        )
    if min(n, m) < 2:
        raise UsageError(f"n and m: expected samples of at least 2 rows, got {n} and {m}")
    if combination == "agg":
        return -rank_p_values(array) / share[:, None], share
    if combination == "fuse":
        # N̂ sums over the pairs of the pooled sample, and is divided by the pairs of the smaller one.
        smaller, pooled = min(n, m), n + m
        normaliser = np.sqrt(mean_square * (pooled * (pooled - 1)) / (smaller * (smaller - 1)))[:, None]
        return _temperature(n, m) * _divided(array, normaliser), share
    centred = array - array.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=1, keepdims=True))
    rounding = NO_SPREAD * np.sqrt(mean_square)[:, None]
    return 2 * SHARPNESS * _divided(centred, np.where(deviation > rounding, deviation, 0)), share**2


def rank_p_values(values: ArrayLike) -> Array:
    """Return each permutation's rank p-value within its kernel, (Q, 1 + B): the share of permutations with no less."""
    array = _checked(values)
    ordered = np.sort(array, axis=1)
    below = np.stack([np.searchsorted(row, of, side="left") for row, of in zip(ordered, array, strict=True)])
    return (array.shape[1] - below) / array.shape[1]


def _temperature(n: int, m: int) -> float:
    """Return MMD-FUSE's λ: closeness of the soft maximum to the maximum."""
    smaller = min(n, m)
    return math.sqrt(smaller * (smaller - 1))


def _divided(values: Array, by: Array) -> Array:
    """Divide, with 0 for a division by 0: a kernel that is zero, or constant, for all pairs shows nothing."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)
