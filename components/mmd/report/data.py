"""What the drift report is made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftline.components.errors import InputError
from driftline.components.mmd.result import DriftResult


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One run of the past, or this one.

    Attributes:
        created: when the run began, ISO 8601 in UTC.
        statistic: unbiased MMD² of that run.
        threshold: the statistic above which that run would have rejected.
        p_value: its p-value.
        drift: whether it rejected.
    """

    created: str
    statistic: float
    threshold: float
    p_value: float
    drift: bool


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the report shows; the report adds no measurement of its own.

    Attributes:
        result: what the run found.
        permuted: (B,) float64, the statistic under each random relabelling.
        reference_points: (p, 2) float32, a subsample of the reference along the first two principal
            components; the second column is all zeros where the vectors have one dimension.
        current_points: (q, 2) float32, likewise for the current sample.
        points_explained_variance_ratio: share of the pooled variance along each of the picture's axes,
            of length 1 or 2, each in [0, 1].
        history: ascending by time, this run last.

    Raises:
        InputError: an array does not have the shape stated above.
    """

    result: DriftResult
    permuted: np.ndarray
    reference_points: np.ndarray
    current_points: np.ndarray
    points_explained_variance_ratio: tuple[float, ...]
    history: tuple[HistoryPoint, ...]

    def __post_init__(self) -> None:
        if self.permuted.ndim != 1:
            raise InputError(
                f"permuted: expected one statistic per permutation, shape (B,), got {self.permuted.shape}; "
                "pass the permuted statistics of one test"
            )
        for name in ("reference_points", "current_points"):
            points: np.ndarray = getattr(self, name)
            if points.ndim != 2 or points.shape[1] != 2:
                raise InputError(
                    f"{name}: expected points in the plane, shape (rows, 2), got shape {points.shape}; "
                    "fill the second column with zeros where there is one dimension"
                )
