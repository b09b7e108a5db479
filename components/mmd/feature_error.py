"""How far MMD² by random Fourier features may be from MMD² by the kernel itself, on the data at hand.

Each frequency ω gives one term, whose mean over ω is the exact unbiased MMD²:
(n|φ̂_x|² − 1)/(n − 1) + (m|φ̂_y|² − 1)/(m − 1) − 2·Re(φ̂_x·φ̂_y*), of the samples' characteristic functions φ̂ at ω. Terms
of different groups of frequencies are independent, so that the spread of the groups' means says how far their mean may
be from the kernel's MMD²: the two samples are as they are, only the frequencies are random.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FEWEST_GROUPS: Final = 8


def approximation_error(
    sum_x: NDArray[np.float64], sum_y: NDArray[np.float64], n: int, m: int, group: int, delta: float = 0.01
) -> float:
    """Return what the error in MMD² exceeds with probability ``delta``, by Student's t over groups of frequencies.

    The distribution of a group's mean is near normal. With fewer than 8 groups nothing can be said, and the largest
    MMD² of a kernel no larger than 1 is returned, 4.

    Args:
        sum_x: (2F,) sum of the features over x, mapped by
            :class:`driftline.components.kernel.theory.random_features.RandomFeatures`.
        sum_y: (2F,) the same over y.
        n: rows of x, at least 2.
        m: rows of y, at least 2.
        group: frequencies in a group, within which they are orthogonal; 1 where all are independent.
        delta: probability, in (0, 1).
    """
    count = len(sum_x) // 2
    cos_x, sin_x, cos_y, sin_y = sum_x[:count], sum_x[count:], sum_y[:count], sum_y[count:]
    within_x = count * (cos_x**2 + sin_x**2) - n
    within_y = count * (cos_y**2 + sin_y**2) - m
    across = count * (cos_x * cos_y + sin_x * sin_y)
    terms = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)
    groups = count // group
    if groups < _FEWEST_GROUPS:
        return 4.0
    means = terms[: groups * group].reshape(groups, group).mean(axis=1)
    return student_quantile(1 - delta / 2, groups - 1) * math.sqrt(float(means.var(ddof=1)) / groups)


def student_quantile(probability: float, degrees: int) -> float:
    """Return Student's t quantile to 1% for 7 degrees of freedom or more and tails of 0.1% or more.

    An expansion about the normal quantile (Abramowitz and Stegun, 26.7.5, four terms).
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))
