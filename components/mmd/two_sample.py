"""The library's front door: a two-sample test on arrays."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.bandwidth import MEDIAN, Bandwidth, median_gamma, median_rows, parse_gamma
from driftline.components.kernel.engine import array_blocks, choose_precision, sum_tiles
from driftline.components.kernel.functions import check_kernel_name, make_kernel
from driftline.components.kernel.labellings import LabelPanels, permutation_cuts, rank_of_threshold
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import combine
from driftline.components.mmd.statistic import decide, statistics, witness
from driftline.components.random_bits import check_seed


@dataclass(frozen=True, slots=True)
class TestResult:
    """The outcome of a two-sample test.

    Attributes:
        statistic: unbiased MMD² (Gretton et al. 2012, Lemma 6); below 0 by chance when the samples are alike.
        p_value: (1 + #{permuted ≥ observed}) / (permutations + 1); never 0.
        threshold: the statistic above which the test rejects at ``level``.
        level: the rate of false alarms that was accepted.
        rejected: whether the samples differ at ``level``: ``p_value <= level``.
        n: rows of x.
        m: rows of y.
        kernel: name of the kernel.
        gamma: its inverse squared length scale; for "rbf", k(x, y) = exp(−γ‖x − y‖²).
        permutations: number of random relabellings, B.
        seed: seed of the relabellings.
        permuted: (B,) float64, the statistic under each relabelling.
        witness_x: (n,) float64, how much more each row of x looks like x (> 0) than like y (< 0).
        witness_y: (m,) float64, the same for the rows of y: the lowest are the newest.
    """

    __test__ = False  # not a test case, whatever its name suggests to pytest

    statistic: float
    p_value: float
    threshold: float
    level: float
    rejected: bool
    n: int
    m: int
    kernel: str
    gamma: float
    permutations: int
    seed: int
    permuted: NDArray[np.float64] = field(repr=False, compare=False)
    witness_x: NDArray[np.float64] = field(repr=False, compare=False)
    witness_y: NDArray[np.float64] = field(repr=False, compare=False)


def two_sample_test(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kernel: str = "rbf",
    bandwidth: Bandwidth = MEDIAN,
    permutations: int = 500,
    level: float = 0.05,
    seed: int = 0,
) -> TestResult:
    """Test whether two samples come from the same distribution, by Maximum Mean Discrepancy.

    The kernel matrix of the pooled sample is computed tile by tile and never stored; one pass yields the statistic,
    its whole permutation distribution and each row's witness. The test is exact: on equal distributions it rejects at
    most at the rate ``level``, whatever the data and the sizes.

    Args:
        x: the reference, (n, d) with n ≥ 2, any real dtype; a vector (n,) is taken as (n, 1).
        y: the current sample, (m, d) with m ≥ 2.
        kernel: ``"rbf"``: k(x, y) = exp(−γ‖x − y‖²).
        bandwidth: ``"median"`` (γ = 1 / (2 · median squared distance) of the pooled sample), or γ itself, > 0.
        permutations: number of random relabellings B; 1 / (B + 1) must not exceed ``level``.
        level: accepted rate of false alarms, in (0, 1).
        seed: seed of the relabellings, from 0; the same seed gives the same result, bit for bit.

    Returns:
        The statistic, p-value, threshold, decision and witness values.

    Time O((n + m)²(d + B)); memory O((n + m)·d) and less than 300 MB of working space.

    Raises:
        UsageError: a setting is out of range.
        DataError: samples of different dimension, fewer than two rows, NaN or infinite values, or all rows identical.
        Both are ValueErrors.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> result = two_sample_test(rng.normal(size=(300, 8)), rng.normal(0.5, size=(300, 8)))
        >>> result.rejected
        True
    """
    check_settings(kernel, bandwidth, permutations, level, seed)
    x, y = _sample("x", x), _sample("y", y)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"x and y: expected vectors of the same dimension, got {x.shape[1]} and {y.shape[1]}")
    n, m = len(x), len(y)
    z = np.concatenate([x, y])
    z = _centred(z)
    gamma = parse_gamma(bandwidth)
    if gamma == MEDIAN:
        gamma = median_gamma(z[median_rows(seed, n + m)])
    made = make_kernel(kernel, gamma)
    grid = BlockGrid.of(n + m)
    largest_norm = math.sqrt(float(np.max(np.einsum("ij,ij->i", z, z))))
    panels = LabelPanels(seed, permutation_cuts(seed, permutations, n, n + m), n, n + m, grid.block)
    part = sum_tiles(
        array_blocks(z, grid),
        grid.tiles(),
        grid,
        made,
        panels,
        permutations,
        precision=choose_precision(n + m, made, largest_norm),
    )
    sums = combine(grid, [part])
    values = statistics(sums, n, grid, lambda index: np.asarray(panels.panel(index)))
    decision = decide(values[0], values[1:], level)
    scores = witness(sums, n)
    return TestResult(
        statistic=float(values[0]),
        p_value=decision.p_value,
        threshold=decision.threshold,
        level=level,
        rejected=decision.rejected,
        n=n,
        m=m,
        kernel=kernel,
        gamma=gamma,
        permutations=permutations,
        seed=seed,
        permuted=values[1:],
        witness_x=scores[:n],
        witness_y=scores[n:],
    )


def check_settings(kernel: str, gamma: str | float, permutations: int, level: float, seed: int) -> None:
    """Raise UsageError for the first setting of a test that is out of range."""
    check_kernel_name(kernel)
    parse_gamma(gamma)
    for name, value in (("permutations", permutations), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise UsageError(f"{name}: expected a whole number, got {value!r}")
    rank_of_threshold(permutations, level)
    check_seed(seed)


def _sample(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{name}: expected an array of shape (rows, dimensions), got shape {array.shape}")
    if len(array) < 2:
        raise DataError(f"{name}: expected at least 2 rows, got {len(array)}; MMD² is not defined for fewer")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{name}: row {int(np.argmin(finite))} holds a NaN or an infinite value; leave such rows out or mend them"
        )
    return array.astype(np.float64)


def _centred(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre the pooled sample: distances stay, and their computation by matrix product keeps its digits."""
    with np.errstate(over="ignore", invalid="ignore"):
        centred = z - z.mean(axis=0)
        norms = np.einsum("ij,ij->i", centred, centred)
    if not np.isfinite(norms).all():
        raise DataError("x and y: values so large that their squares overflow float64; rescale them")
    return centred
