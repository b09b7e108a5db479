"""The steps from kernel sums to a decision, and from a decision to a result, a report and a record in the history."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.components.errors import DataError
from driftline.components.kernel.spec import KernelSpec, read_task_sums
from driftline.components.kernel.sums import PartialSums, combine
from driftline.components.mmd.report.data import HistoryPoint, ReportData
from driftline.components.mmd.report.render import render_report
from driftline.components.mmd.result import DriftResult, MovedText, StepTiming
from driftline.components.mmd.statistic import decide, statistics, witness
from driftline.components.projection.projected import ProjectedSample, Projection
from driftline.components.sampling.pooled import PooledSample
from driftline.components.steps import running
from driftline.components.storage.history import append_history, read_history
from driftline.components.storage.store import (
    join,
    open_read,
    remove_tree,
    write_bytes,
    write_json,
)
from driftline.components.storage.values import read_value, write_value

MOVED_TEXTS = 10
"""Texts shown in either direction."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the test step hands to the report step.

    Attributes:
        statistic: unbiased MMD².
        p_value: its p-value.
        threshold: the statistic above which the test rejects.
        level: accepted rate of false alarms.
        rejected: ``p_value <= level``.
        permuted: (B,) statistics under relabelling.
        moved_rows: pooled rows with the lowest and the highest witness, ascending by witness.
        moved_witness: their witness values.
        kernel_tasks: number of kernel tasks.
        kernel_seconds: what they took, summed.
        seconds: how long the test took.
    """

    statistic: float
    p_value: float
    threshold: float
    level: float
    rejected: bool
    permuted: tuple[float, ...]
    moved_rows: tuple[int, ...]
    moved_witness: tuple[float, ...]
    kernel_tasks: int
    kernel_seconds: float
    seconds: float


def test(*, spec: str, parts: Sequence[str], level: float, out: str) -> None:
    """Add up the kernel tasks' sums and decide at a level.

    Args:
        spec: path of the kernel spec's JSON.
        parts: paths of the tasks' partial sums.
        level: accepted rate of false alarms, in (0, 1).
        out: path of the artifact to write.
    """
    with running("test") as clock:
        known = read_value(spec, KernelSpec)
        seconds: list[float] = []

        def read() -> Iterator[PartialSums]:
            for path in parts:
                with open_read(path) as file:
                    task = read_task_sums(file)
                seconds.append(task.seconds)
                yield task.sums

        sums = combine(known.grid, read())
        panels = known.panels()
        values = statistics(sums, known.n, known.grid, lambda index: np.asarray(panels.panel(index)))
        decision = decide(values[0], values[1:], level)
        scores = witness(sums, known.n)
        moved = extremes(scores, MOVED_TEXTS)
        outcome = Outcome(
            statistic=float(values[0]),
            p_value=decision.p_value,
            threshold=decision.threshold,
            level=level,
            rejected=decision.rejected,
            permuted=tuple(values[1:].tolist()),
            moved_rows=tuple(moved.tolist()),
            moved_witness=tuple(scores[moved].tolist()),
            kernel_tasks=len(seconds),
            kernel_seconds=sum(seconds),
            seconds=clock.seconds,
        )
        write_value(out, outcome)


test.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # a step, not a test case


def extremes(scores: np.ndarray[Any, np.dtype[np.float64]], count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the rows with the ``count`` lowest and the ``count`` highest scores, ascending by score, none twice."""
    order = np.argsort(scores, kind="stable")
    count = min(count, len(order) // 2)
    return np.concatenate([order[:count], order[len(order) - count :]])


def report(
    *,
    sample: str,
    projection: str,
    projected: str,
    spec: str,
    outcome: str,
    text_column: str,
    history: str,
    out: str,
    result_out: str,
    report_out: str,
) -> dict[str, float]:
    """Write the result, the report and the record in the history; empty the run's workspace; return the metrics.

    Args:
        sample: path of the pooled sample's JSON.
        projection: path of the fitted projection's JSON.
        projected: path of the projected sample's JSON.
        spec: path of the kernel spec's JSON.
        outcome: path of the test's outcome.
        text_column: carried column that holds the texts to show.
        history: folder of the history dataset, or empty for ``history`` below ``out``.
        out: folder or gs:// prefix for ``report.html`` and ``result.json``.
        result_out: path of the result artifact.
        report_out: path of the report artifact.
    """
    with running("report") as clock:
        pooled = read_value(sample, PooledSample)
        fitted = read_value(projection, Projection)
        seen = read_value(projected, ProjectedSample)
        known = read_value(spec, KernelSpec)
        found = read_value(outcome, Outcome)
        result = _result(pooled, fitted, seen, known, found, text_column)
        history = history or join(out, "history")
        record = _record(result)
        past = _history(history, record)  # before anything is written: one that cannot be read stops the run
        append_history(history, record, key=pooled.run)
        data = ReportData(
            result=result,
            permuted=np.array(found.permuted),
            reference_points=_plane(seen.reference_points),
            current_points=_plane(seen.current_points),
            points_explained_variance_ratio=seen.picture_explained_variance_ratio,
            history=past,
        )
        page = render_report(data).encode()
        for path in (report_out, join(out, "report.html")):
            write_bytes(path, page)
        for path in (result_out, join(out, "result.json")):
            write_json(path, result.to_json())
        remove_tree(seen.uri)  # last: until here a retry finds everything it needs
        clock.log("progress", drift=result.drift, p_value=result.p_value, statistic=result.statistic)
    return {
        "drift": float(result.drift),
        "mmd2": result.statistic,
        "p_value": result.p_value,
        "threshold": result.threshold,
        "level": result.level,
        "reference_rows": float(result.reference.sampled),
        "current_rows": float(result.current.sampled),
        "permutations": float(result.permutations),
        "gamma": result.gamma,
    }


def _result(
    pooled: PooledSample,
    fitted: Projection,
    seen: ProjectedSample,
    known: KernelSpec,
    found: Outcome,
    text_column: str,
) -> DriftResult:
    described = pooled.describe(found.moved_rows, text_column)
    moved = tuple(
        MovedText(identifier, "reference" if row < pooled.n else "current", score, text)
        for row, score, (identifier, text) in zip(found.moved_rows, found.moved_witness, described, strict=True)
    )
    return DriftResult(
        created=pooled.created,
        drift=found.rejected,
        statistic=found.statistic,
        p_value=found.p_value,
        threshold=found.threshold,
        level=found.level,
        permutations=known.permutations,
        seed=known.seed,
        kernel=known.kernel_name,
        gamma=known.gamma,
        reference=pooled.reference,
        current=pooled.current,
        components=seen.components,
        explained_variance_ratio=seen.explained_variance_ratio,
        moved=moved,
        steps=(
            StepTiming("sample", 1, pooled.seconds),
            StepTiming("fit", 1, fitted.seconds),
            StepTiming("project", 1, seen.seconds),
            StepTiming("plan", 1, known.seconds),
            StepTiming("kernel", found.kernel_tasks, found.kernel_seconds),
            StepTiming("test", 1, found.seconds),
        ),
    )


def _record(result: DriftResult) -> dict[str, Any]:
    """Return what the history keeps: the result without its texts, which may be private, and without timings."""
    kept = {name: value for name, value in result.to_json().items() if name not in ("moved", "steps")}
    return json.loads(json.dumps(kept))  # as it will be read again


def _history(uri: str, own: dict[str, Any]) -> tuple[HistoryPoint, ...]:
    """Return the runs of the past and, last, this one, which an earlier attempt may have recorded already."""
    names = [field.name for field in dataclasses.fields(HistoryPoint)]
    points: list[HistoryPoint] = []
    for record in [*(record for record in read_history(uri) if record != own), own]:
        missing = [name for name in names if name not in record]
        if missing:
            raise DataError(
                f"{uri}: the record created {record['created']} has no {', '.join(missing)}, so it is none of a drift "
                "run; remove it, or give another folder for the history"
            )
        points.append(HistoryPoint(**{name: record[name] for name in names}))
    return tuple(points)


def _plane(points: tuple[tuple[float, ...], ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return points as (k, 2), the second coordinate 0 where vectors have one dimension."""
    array = np.array(points, np.float32)
    return np.pad(array, ((0, 0), (0, 2 - array.shape[1])))
