"""The input of the drift report: the result, what its figures need, and the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

from driftline.components.errors import DataError, InputError
from driftline.components.mmd.result import FORMAT, VERSION, DriftResult

_REMEDY = "remove it, or give another folder for the history"


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One run of the past, or this one: the values that compare between runs, whichever method and kernels each used.

    The statistic and the threshold are left out: they are numbers without a unit where kernels were combined.

    Attributes:
        created: when the run began, ISO 8601 in UTC.
        drift: whether it rejected.
        p_value: its p-value.
        mmd2: unbiased MMD² under its leading kernel.
        mmd2_interval: MMD²'s confidence interval at 95%; None where the run has none.
        auc: area under the witness's ROC curve; NaN or infinite where the run's vectors were.
        kernel: family of the leading kernel, for example ``"rbf"``.
        gamma: its inverse squared length scale. MMD² under kernels that differ in either does not compare.
    """

    created: str
    drift: bool
    p_value: float
    mmd2: float
    mmd2_interval: tuple[float, float] | None
    auc: float
    kernel: str
    gamma: float

    @classmethod
    def of(cls, record: Mapping[str, Any], where: str) -> Self:
        """Read a record of the history, which is a drift result without its texts and timings.

        Args:
            record: the record.
            where: the history's folder, for the errors.

        Raises:
            DataError: the record is none of a drift run, of a version that is not known, or damaged.
        """
        what = f"{where}: the record created {record.get('created')}"
        if record.get("format") != FORMAT:
            raise DataError(
                f"{what} is none of a drift run: expected the format {FORMAT!r}, got {record.get('format')!r}; "
                f"{_REMEDY}"
            )
        version = record.get("version")
        if version != VERSION:
            raise DataError(
                f"{what} is a drift result of version {version!r}, expected {VERSION}; read it with the Driftline that "
                f"wrote it, or {_REMEDY}"
            )
        try:
            kernel = record["kernels"][record["leading_kernel"]]
            interval = record["mmd2_interval"]
            if interval is not None:
                low, high = cast("list[float]", interval)
                interval = float(low), float(high)
            return cls(
                created=str(record["created"]),
                drift=_flag(record, "drift"),
                p_value=_number(record, "p_value"),
                mmd2=_number(record, "mmd2"),
                mmd2_interval=interval,
                auc=_number(record, "auc"),
                kernel=str(kernel["name"]),
                gamma=_number(kernel, "gamma"),
            )
        except KeyError as error:
            raise DataError(f"{what} has no {error.args[0]}; {_REMEDY}") from error
        except (TypeError, ValueError, IndexError) as error:
            raise DataError(f"{what} is damaged ({error}); {_REMEDY}") from error


def _flag(record: Mapping[str, Any], name: str) -> bool:
    value = record[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected true or false, got {value!r:.40}")
    return value


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {value!r:.40}")
    return float(value)


@dataclass(frozen=True, slots=True)
class ReportData:
    """The whole content of the report, which adds no measurement of its own.

    Attributes:
        result: the run's result.
        permuted: (B,) float64, the statistic under each random permutation; empty for the method ``"cross"``.
        reference_points: (p, 2) float32, a subsample of the reference along the first two principal
            components; the second column is all zeros where the vectors have one dimension.
        current_points: (q, 2) float32, likewise for the current sample.
        points_explained_variance_ratio: share of the pooled variance along each of the picture's axes,
            of length 1 or 2, each in [0, 1].
        history: ascending by time, this run last.

    Raises:
        InputError: an array does not have the shape stated above, or the result names no kernel.
    """

    result: DriftResult
    permuted: np.ndarray
    reference_points: np.ndarray
    current_points: np.ndarray
    points_explained_variance_ratio: tuple[float, ...]
    history: tuple[HistoryPoint, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.result.leading_kernel < len(self.result.kernels):
            raise InputError(
                f"result: expected the place of one of its kernels in leading_kernel, got {self.result.leading_kernel} "
                f"for {len(self.result.kernels)}; pass the result of one run"
            )
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
