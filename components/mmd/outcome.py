"""From the sums of a pass to an outcome: the decision, the kernels' shares, the effect size, each row's witness."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.drift_settings import Method
from driftline.components.kernel.spec import KernelSpec
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.sums import KernelSums
from driftline.components.mmd.cross import CrossDecision, cross_test
from driftline.components.mmd.effect import Interval, interval, witness_auc
from driftline.components.mmd.result import KernelFinding
from driftline.components.mmd.search import combine, own_p_values, shares
from driftline.components.mmd.statistic import decide, feature_error_bound, feature_statistics, statistics, witness

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a test on a pass's sums.

    Attributes:
        method: how MMD² was estimated and judged.
        why: who chose the method, and its costs and gains.
        combination: how the kernels' statistics were combined; empty for one kernel.
        statistic: the test's statistic: unbiased MMD² of one kernel, the combination's value of several; the
            studentised one of the cross method.
        p_value: its p-value; never 0.
        threshold: the statistic above which the test rejects at ``level``.
        level: accepted rate of false alarms.
        rejected: ``p_value <= level``.
        permuted: (B,) the statistic under each permutation; empty for the cross method, which needs none.
        kernels: each kernel's own result.
        leading_kernel: index of the kernel with the largest share; MMD², interval and witness are those of this kernel.
        mmd2: unbiased estimate of MMD².
        interval: confidence interval of MMD², at 95%; None where a sample has fewer than four rows.
        auc: area under the witness's ROC curve (:func:`~driftline.components.mmd.effect.witness_auc`): 0.5 for samples
            that are alike, 1 for samples that are told apart without error.
        feature_error_bound: bound of the error in ``mmd2`` that random features made, at 99%; 0 for other methods.
    """

    method: Method
    why: str
    combination: str
    statistic: float
    p_value: float
    threshold: float
    level: float
    rejected: bool
    permuted: tuple[float, ...]
    kernels: tuple[KernelFinding, ...]
    leading_kernel: int
    mmd2: float
    interval: Interval | None
    auc: float
    feature_error_bound: float

    @property
    def permutations(self) -> int:
        """Number of permutations, B; 0 for the cross method."""
        return len(self.permuted)


Found = tuple[Outcome, NDArray[np.float64]]


def exact_outcome(spec: KernelSpec, sums: KernelSums, level: float, combination: str) -> Found:
    """Judge the sums of an exact pass; return the outcome and every row's witness, (N,)."""
    values = statistics(sums, spec.grid, spec.panels)
    return _judged(spec, values, lambda kernel: sums.rows[kernel], level, combination)


def features_outcome(
    spec: KernelSpec,
    sums: FeatureSums,
    rows_of: Callable[[int], NDArray[np.float64]],
    group: int,
    level: float,
    combination: str,
) -> Found:
    """Judge the sums of a pass in random features; return the outcome and every row's witness, (N,).

    Args:
        spec: the pass.
        sums: its sums.
        rows_of: makes the second pass for one kernel:
            :func:`~driftline.components.kernel.tiles.feature_sums.feature_rows`.
        group: frequencies that were drawn orthogonal to each other.
        level: accepted rate of false alarms.
        combination: how kernels' statistics are combined.
    """
    values = feature_statistics(sums, spec.n, spec.m)
    outcome, scores = _judged(spec, values, rows_of, level, combination)
    kernel = outcome.leading_kernel
    reference = sums.labelled[kernel, 0]
    error = feature_error_bound(reference, sums.total[kernel] - reference, spec.n, spec.m, group)
    return replace(outcome, feature_error_bound=error), scores


def _judged(
    spec: KernelSpec,
    values: NDArray[np.float64],
    rows_of: Callable[[int], NDArray[np.float64]],
    level: float,
    combination: str,
) -> Found:
    n, m = spec.n, spec.m
    pooled, weights = np.array(spec.squares.pooled), spec.collection.weights
    alone = len(values) == 1
    combined = values[0] if alone else combine(values, pooled, weights, n, m, combination)
    evidence = np.ones(1) if alone else shares(values, pooled, weights, n, m, combination)
    decision = decide(combined[0], combined[1:], level)
    leading = int(np.argmax(evidence))
    rows = rows_of(leading)
    scores = witness(rows, n)
    outcome = Outcome(
        method=spec.choice.method,
        why=spec.choice.why,
        combination="" if alone else combination,
        statistic=float(combined[0]),
        p_value=decision.p_value,
        threshold=decision.threshold,
        level=level,
        rejected=decision.rejected,
        permuted=tuple(combined[1:].tolist()),
        kernels=_kernels(spec, values[:, 0], own_p_values(values), evidence),
        leading_kernel=leading,
        mmd2=float(values[leading, 0]),
        interval=interval(rows, _squares(spec, leading), n, m, CONFIDENCE) if min(n, m) > 3 else None,
        auc=witness_auc(scores[:n], scores[n:]),
        feature_error_bound=0.0,
    )
    return outcome, scores


def cross_outcome(spec: KernelSpec, sums: KernelSums, level: float) -> Found:
    """Judge the sums of a pass over halves; return the outcome and every row's witness, by the other half, (N,).

    Several kernels are one: their weighted sum, each over the root of its mean square.
    """
    n, m = spec.n, spec.m
    first = np.ones(n + m, bool)
    first[n - n // 2 : n] = first[n + m - m // 2 :] = False
    reference, current = np.arange(n + m) < n, np.arange(n + m) >= n

    def scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.empty(n + m)
        for own in (first, ~first):
            found[own] = rows[own, 0] / (reference & ~own).sum() - rows[own, 1] / (current & ~own).sum()
        return found

    each = np.stack([scores(rows) for rows in sums.rows])
    scales = np.array(spec.collection.weights) / np.sqrt(spec.squares.pooled)
    decision = cross_test(*_second(scales @ each, first, n), level, spec.seed)
    alone = [cross_test(*_second(one, first, n), level, spec.seed) for one in each]
    parts = np.maximum(scales * [one.statistic for one in alone], 0.0)
    evidence = parts / parts.sum() if parts.sum() > 0 else np.full(len(parts), 1 / len(parts))
    leading = int(np.argmax(evidence))
    own = alone[leading]
    outcome = Outcome(
        method=spec.choice.method,
        why=spec.choice.why,
        combination="" if len(each) == 1 else "sum",
        statistic=_finite(decision.studentised),
        p_value=decision.p_value,
        threshold=_finite(decision.threshold),
        level=level,
        rejected=decision.rejected,
        permuted=(),
        kernels=_kernels(
            spec, np.array([one.statistic for one in alone]), np.array([one.p_value for one in alone]), evidence
        ),
        leading_kernel=leading,
        mmd2=own.statistic,
        interval=_around(own),
        auc=witness_auc(*_second(each[leading], first, n)),
        feature_error_bound=0.0,
    )
    return outcome, each[leading]


def _second(
    scores: NDArray[np.float64], first: NDArray[np.bool_], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return scores[:n][~first[:n]], scores[n:][~first[n:]]


def _kernels(
    spec: KernelSpec, mmd2: NDArray[np.float64], p: NDArray[np.float64], evidence: NDArray[np.float64]
) -> tuple[KernelFinding, ...]:
    columns = (spec.collection.weights, mmd2.tolist(), p.tolist(), evidence.tolist())
    return tuple(
        KernelFinding(kernel.name, kernel.gamma, *numbers)
        for kernel, *numbers in zip(spec.collection.kernels, *columns, strict=True)
    )


def _squares(spec: KernelSpec, kernel: int) -> NDArray[np.float64]:
    squares = spec.squares
    means = squares.within_reference[kernel], squares.across[kernel], squares.within_current[kernel]
    return np.array(means) * (spec.n * (spec.n - 1), spec.n * spec.m, spec.m * (spec.m - 1))


def _finite(value: float) -> float:
    """Return the value, or for an infinite one the largest number, which JSON has."""
    return min(max(value, -sys.float_info.max), sys.float_info.max)


def _around(decision: CrossDecision) -> Interval:
    """Return the interval that the studentised statistic implies, given the halves that chose the witness."""
    bounded = math.isfinite(decision.studentised) and decision.studentised != 0
    error = decision.statistic / decision.studentised if bounded else 0.0
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    return Interval(max(decision.statistic - reach, 0.0), max(decision.statistic + reach, 0.0), error)
