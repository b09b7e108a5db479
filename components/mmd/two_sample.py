"""The two-sample test on arrays."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.components.drift_settings import (
    AUTO,
    DEFAULT_COMBINATION,
    MEDIAN,
    SEARCH,
    Gamma,
    Method,
    check_combination,
    check_features,
    check_kernel,
    check_method,
    check_permutations,
)
from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.spec import KernelSpec, settle
from driftline.components.kernel.theory.bandwidth import scale_rows
from driftline.components.kernel.tiles.engine import array_blocks, sum_tiles
from driftline.components.kernel.tiles.feature_sums import feature_rows, sum_features
from driftline.components.kernel.tiles.sums import combine
from driftline.components.mmd.effect import Interval
from driftline.components.mmd.outcome import Found, cross_outcome, exact_outcome, features_outcome
from driftline.components.mmd.result import KernelFinding
from driftline.components.random_bits import check_seed, shuffled_order


@dataclass(frozen=True, slots=True)
class TestResult:
    """The outcome of a two-sample test.

    Attributes:
        statistic: the test's statistic: unbiased MMD² of one kernel (Gretton et al. 2012, Lemma 6), below 0 by chance
            when the samples are alike; the combination's value of several; the studentised one of ``"cross"``.
        p_value: (1 + #{permuted ≥ observed}) / (permutations + 1); never 0.
        threshold: the statistic above which the test rejects at ``level``.
        level: the rate of false alarms that was accepted.
        rejected: whether the samples differ at ``level``: ``p_value <= level``.
        n: rows of x.
        m: rows of y.
        method: how MMD² was estimated and judged: ``"exact"``, ``"cross"`` or ``"features"``.
        why: who chose the method, and its costs and gains.
        combination: how several kernels' statistics were combined; empty for one.
        kernels: each kernel's own result.
        leading_kernel: index of the kernel with the largest share of the evidence; the next four values are of this
            kernel.
        mmd2: unbiased estimate of MMD².
        interval: its confidence interval at 95%, or None where a sample has fewer than four rows.
        auc: area under the witness's ROC curve: the probability that a random row of x has a higher witness than a
            random row of y; 0.5 when they are alike, 1 at most.
        feature_error_bound: bound, at 99%, of the error of ``mmd2`` under ``"features"``; 0 for other methods.
        permutations: number of random permutations, B; 0 for ``"cross"``.
        seed: seed of the permutations.
        permuted: (B,) float64, the statistic under each permutation of the rows.
        witness_x: (n,) float64, the witness of each row of x: above 0 it looks more like x, below 0 more like y.
        witness_y: (m,) float64, the same for the rows of y: the rows with the lowest values are most typical of y.
    """

    __test__ = False  # tells pytest that this class is no test case

    statistic: float
    p_value: float
    threshold: float
    level: float
    rejected: bool
    n: int
    m: int
    method: Method
    why: str
    combination: str
    kernels: tuple[KernelFinding, ...]
    leading_kernel: int
    mmd2: float
    interval: Interval | None
    auc: float
    feature_error_bound: float
    permutations: int
    seed: int
    permuted: NDArray[np.float64] = field(repr=False, compare=False)
    witness_x: NDArray[np.float64] = field(repr=False, compare=False)
    witness_y: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def kernel(self) -> str:
        """Name of the leading kernel."""
        return self.kernels[self.leading_kernel].name

    @property
    def gamma(self) -> float:
        """Inverse squared length scale of the leading kernel."""
        return self.kernels[self.leading_kernel].gamma


def two_sample_test(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kernel: str = SEARCH,
    gamma: Gamma = MEDIAN,
    method: str = AUTO,
    combination: str = DEFAULT_COMBINATION,
    permutations: int = 500,
    level: float = 0.05,
    seed: int = 0,
) -> TestResult:
    """Test whether two samples come from the same distribution, by Maximum Mean Discrepancy.

    No kernel matrix is ever stored: one pass over tiles of it yields the statistics of all kernels, their permutation
    distributions and each row's witness. The test is exact: on equal distributions it rejects at most at the rate
    ``level``, whatever the data, the sizes and the number of kernels.

    Args:
        x: the reference, (n, d) with n ≥ 2, any real dtype; a vector (n,) is taken as (n, 1).
        y: the current sample, (m, d) with m ≥ 2.
        kernel: ``"search"``: kernels of several shapes and widths in one test; or one of
            :data:`~driftline.components.drift_settings.KERNELS`.
        gamma: of one kernel: γ, its inverse squared length scale, > 0, as in scikit-learn's ``rbf_kernel``; or
            ``"median"``, by its family's heuristic on the pooled sample. A length σ (a *bandwidth*) of the Gaussian
            exp(−‖x − y‖²/2σ²) is γ = 1/(2σ²).
        method: ``"exact"``, ``"cross"``, ``"features"``, or ``"auto"``: exact up to 200,000 rows, features beyond
            (:mod:`driftline.components.drift_settings` compares them).
        combination: how the kernels of a search are combined (:mod:`driftline.components.mmd.search`).
        permutations: number of random permutations B; 1 / (B + 1) must not exceed ``level``.
        level: accepted rate of false alarms, in (0, 1).
        seed: seed of the permutations, from 0; the same seed gives the same result, bit for bit.

    Returns:
        The statistic, p-value, threshold, decision, effect size and witness values.

    Time O((n + m)²(d + Q)) for Q kernels, by features O((n + m)dF) with F frequencies; memory O((n + m)·d) and some
    hundred MB of working space.

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
    check_settings(kernel, gamma, method, combination, permutations, level, seed)
    x, y = _sample("x", x), _sample("y", y)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"x and y: expected vectors of the same dimension, got {x.shape[1]} and {y.shape[1]}")
    n, m = len(x), len(y)
    order = np.concatenate([shuffled_order(seed, 0, n), shuffled_order(seed, n, n + m)])
    z = _centred(np.concatenate([x, y])[order])
    looked_at = scale_rows(seed, n + m)
    spec = settle(
        z[looked_at],
        int(np.count_nonzero(looked_at < n)),
        n=n,
        m=m,
        largest_norm=math.sqrt(float(np.max(np.einsum("ij,ij->i", z, z)))),
        kernel=kernel,
        gamma=gamma,
        method=method,
        permutations=permutations,
        seed=seed,
    )
    outcome, mixed = _found(z, spec, level, combination)
    scores = np.empty(n + m)
    scores[order] = mixed
    return TestResult(
        statistic=outcome.statistic,
        p_value=outcome.p_value,
        threshold=outcome.threshold,
        level=level,
        rejected=outcome.rejected,
        n=n,
        m=m,
        method=outcome.method,
        why=outcome.why,
        combination=outcome.combination,
        kernels=outcome.kernels,
        leading_kernel=outcome.leading_kernel,
        mmd2=outcome.mmd2,
        interval=outcome.interval,
        auc=outcome.auc,
        feature_error_bound=outcome.feature_error_bound,
        permutations=len(outcome.permuted),
        seed=seed,
        permuted=np.array(outcome.permuted),
        witness_x=scores[:n],
        witness_y=scores[n:],
    )


def _found(z: NDArray[np.float64], spec: KernelSpec, level: float, combination: str) -> Found:
    grid = spec.grid
    if spec.choice.method == "features":
        features = spec.features(z.shape[1])
        sums = sum_features(array_blocks(z, grid), range(grid.blocks), grid, features, spec.panels)

        def rows_of(kernel: int) -> NDArray[np.float64]:
            return feature_rows(array_blocks(z, grid), grid, features[kernel], sums, kernel)

        return features_outcome(spec, sums, rows_of, features[0].group, level, combination)
    tiles = grid.tiles()
    part = sum_tiles(
        array_blocks(z, grid),
        tiles,
        grid,
        spec.collection.kernels,
        spec.panels,
        precision=spec.precision,
        sums=spec.accumulator(tiles),
    )
    summed = combine(grid, [part])
    if spec.choice.method == "cross":
        return cross_outcome(spec, summed, level)
    return exact_outcome(spec, summed, level, combination)


def check_settings(
    kernel: str, gamma: str | float, method: str, combination: str, permutations: int, level: float, seed: int
) -> None:
    """Raise UsageError for the first setting of a test that is out of range."""
    check_kernel(kernel, gamma)
    check_method(method)
    check_features(kernel, method)
    check_combination(combination)
    for name, value in (("permutations", permutations), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise UsageError(f"{name}: expected a whole number, got {value!r}")
    check_permutations(permutations, level)
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
