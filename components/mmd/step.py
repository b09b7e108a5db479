"""The steps from kernel sums to a decision, and from a decision to a result, a report and a record in the history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftline.components.kernel.feature_sums import FeatureSums, combine_features, feature_rows
from driftline.components.kernel.step import stream_blocks
from driftline.components.kernel.sums import PartialSums, combine
from driftline.components.kernel.tasks import KernelPlan, read_task_sums
from driftline.components.mmd.outcome import Found, Outcome, cross_outcome, exact_outcome, features_outcome
from driftline.components.mmd.report.data import HistoryPoint, ReportData
from driftline.components.mmd.report.render import render_report
from driftline.components.mmd.result import DriftResult, MovedText, StepTiming
from driftline.components.projection.projected import ProjectedSample, Projection
from driftline.components.random_bits import mixed_order
from driftline.components.sampling.pooled import PooledSample
from driftline.components.steps import running
from driftline.components.storage.dataset import EmbeddingsDataset
from driftline.components.storage.history import append_history, read_history
from driftline.components.storage.store import (
    create,
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
class Judged:
    """What the test step hands to the report step.

    Attributes:
        outcome: what the test found.
        moved_rows: rows of the pooled sample with the lowest and the highest witness, ascending by witness.
        moved_witness: their witness values.
        kernel_tasks: number of kernel tasks.
        kernel_seconds: what they took, summed.
        seconds: how long the test took.
    """

    outcome: Outcome
    moved_rows: tuple[int, ...]
    moved_witness: tuple[float, ...]
    kernel_tasks: int
    kernel_seconds: float
    seconds: float


def test(*, plan: str, parts: Sequence[str], combination: str, level: float, out: str, witness_out: str) -> None:
    """Add up the kernel tasks' sums and decide at a level.

    Args:
        plan: path of the kernel plan's JSON.
        parts: paths of the tasks' partial sums.
        combination: how the statistics of several kernels are combined.
        level: accepted rate of false alarms, in (0, 1).
        out: path of the artifact to write.
        witness_out: path of the artifact with every row's witness, (N,) float32 in the order of the pooled sample.
    """
    with running("test") as clock:
        known = read_value(plan, KernelPlan)
        seconds: list[float] = []

        def read() -> Iterator[PartialSums | FeatureSums]:
            for path in parts:
                with open_read(path) as file:
                    task = read_task_sums(file)
                seconds.append(task.seconds)
                yield task.sums

        outcome, mixed = _found(known, read(), level, combination)
        n, rows = known.spec.n, known.spec.grid.rows
        scores = np.empty(rows)
        scores[mixed_order(known.order_seed, 0, n)] = mixed[:n]
        scores[mixed_order(known.order_seed, n, rows)] = mixed[n:]
        moved = extremes(scores, MOVED_TEXTS)
        tested = Judged(
            outcome=outcome,
            moved_rows=tuple(moved.tolist()),
            moved_witness=tuple(scores[moved].tolist()),
            kernel_tasks=len(seconds),
            kernel_seconds=sum(seconds),
            seconds=clock.seconds,
        )
        write_value(out, tested)
        with create(witness_out) as file:
            np.save(file, scores.astype(np.float32), allow_pickle=False)


test.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # a step, not a test case


def _found(known: KernelPlan, parts: Iterable[PartialSums | FeatureSums], level: float, combination: str) -> Found:
    spec = known.spec
    if spec.choice.method == "features":
        sums = combine_features(spec.grid, (part for part in parts if isinstance(part, FeatureSums)))
        dataset = EmbeddingsDataset.open(known.uri)
        features = spec.features(dataset.dimension)

        def rows_of(kernel: int) -> NDArray[np.float64]:
            blocks = stream_blocks(dataset, spec, range(spec.grid.blocks))
            return feature_rows(lambda _: next(blocks), spec.grid, features[kernel], sums, kernel)

        return features_outcome(spec, sums, rows_of, features[0].group, level, combination)
    summed = combine(spec.grid, (part for part in parts if isinstance(part, PartialSums)))
    if spec.choice.method == "cross":
        return cross_outcome(spec, summed, level)
    return exact_outcome(spec, summed, level, combination)


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
    plan: str,
    outcome: str,
    witness: str,
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
        plan: path of the kernel plan's JSON.
        outcome: path of the test's outcome.
        witness: path of every row's witness.
        text_column: carried column that holds the texts to show.
        history: folder of the history dataset, or empty for ``history`` below ``out``.
        out: folder or gs:// prefix for ``report.html``, ``result.json`` and ``witness.parquet``.
        result_out: path of the result artifact.
        report_out: path of the report artifact.
    """
    with running("report") as clock:
        pooled = read_value(sample, PooledSample)
        fitted = read_value(projection, Projection)
        seen = read_value(projected, ProjectedSample)
        known = read_value(plan, KernelPlan)
        found = read_value(outcome, Judged)
        result = _result(pooled, fitted, seen, known, found, text_column)
        history = history or join(out, "history")
        record = _record(result)
        past = _history(history, record)  # before anything is written: one that cannot be read stops the run
        append_history(history, record, key=pooled.run)
        data = ReportData(
            result=result,
            permuted=np.array(found.outcome.permuted),
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
        _write_witness(join(out, "witness.parquet"), pooled, witness)
        remove_tree(seen.uri)  # last: until here a retry finds everything it needs
        clock.log("progress", drift=result.drift, p_value=result.p_value, statistic=result.statistic)
    low, high = result.mmd2_interval or (result.mmd2, result.mmd2)
    return {
        "drift": float(result.drift),
        "statistic": result.statistic,
        "mmd2": result.mmd2,
        "discrimination": result.discrimination,
        "p_value": result.p_value,
        "threshold": result.threshold,
        "level": result.level,
        "reference_rows": float(result.reference.sampled),
        "current_rows": float(result.current.sampled),
        "permutations": float(result.permutations),
        "mmd2_low": low,
        "mmd2_high": high,
    }


def _write_witness(uri: str, pooled: PooledSample, witness: str) -> None:
    """Write each text's id, sample and witness, in the order of the pooled sample. Memory: 4 bytes a row."""
    with open_read(witness) as file:
        scores = np.load(file, allow_pickle=False)
    schema = pa.schema({"id": pa.string(), "sample": pa.string(), "witness": pa.float32()})
    first = 0
    with create(uri) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for ids in pooled.ids():
            sample = "reference" if first < pooled.n else "current"
            columns = [pa.array(ids, pa.string()), pa.repeat(sample, len(ids)), scores[first : first + len(ids)]]
            writer.write_batch(pa.record_batch(columns, schema=schema), row_group_size=1 << 17)
            first += len(ids)


def _result(
    pooled: PooledSample,
    fitted: Projection,
    seen: ProjectedSample,
    known: KernelPlan,
    found: Judged,
    text_column: str,
) -> DriftResult:
    outcome = found.outcome
    described = pooled.describe(found.moved_rows, text_column)
    moved = tuple(
        MovedText(identifier, "reference" if row < pooled.n else "current", score, text)
        for row, score, (identifier, text) in zip(found.moved_rows, found.moved_witness, described, strict=True)
    )
    return DriftResult(
        created=pooled.created,
        drift=outcome.rejected,
        method=outcome.method,
        method_reason=outcome.why,
        combination=outcome.combination,
        statistic=outcome.statistic,
        p_value=outcome.p_value,
        threshold=outcome.threshold,
        level=outcome.level,
        permutations=len(outcome.permuted),
        seed=known.spec.seed,
        kernels=outcome.kernels,
        leading=outcome.leading,
        mmd2=outcome.mmd2,
        mmd2_interval=None if outcome.interval is None else (outcome.interval.low, outcome.interval.high),
        discrimination=outcome.discrimination,
        approximation=outcome.approximation,
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
    past = (record for record in read_history(uri) if record != own)
    return tuple(HistoryPoint.of(record, uri) for record in (*past, own))


def _plane(points: tuple[tuple[float, ...], ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return points as (k, 2), the second coordinate 0 where vectors have one dimension."""
    array = np.array(points, np.float32)
    return np.pad(array, ((0, 0), (0, 2 - array.shape[1])))
