"""The steps from kernel sums to a decision, and from a decision to a result, a report and a record in the history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftline.components.errors import DataError, StorageConflict, StorageError
from driftline.components.kernel.step import stream_blocks
from driftline.components.kernel.tasks import KernelPlan, finished_sums
from driftline.components.kernel.tiles.feature_sums import FeatureSums, combine_features, feature_rows
from driftline.components.kernel.tiles.sums import PartialSums, combine
from driftline.components.mmd.outcome import Found, Outcome, cross_outcome, exact_outcome, features_outcome
from driftline.components.mmd.report.data import HistoryPoint, ReportData
from driftline.components.mmd.report.render import render_report, render_skipped
from driftline.components.mmd.result import (
    COMPARED,
    SKIPPED,
    DriftResult,
    FoundWindow,
    MovedText,
    SkippedResult,
    StepTiming,
    in_words,
)
from driftline.components.mmd.run_metrics import run_metrics, skipped_run_metrics
from driftline.components.random_bits import shuffled_order
from driftline.components.sampling.identity import Run
from driftline.components.sampling.pooled import PooledSample
from driftline.components.steps import Skipped, logged_step
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.json_history import append_history, read_history
from driftline.components.storage.objects.store import (
    create,
    join,
    open_read,
    read_json,
    remove,
    remove_tree,
    write_bytes,
    write_json,
)
from driftline.components.storage.objects.values import read_value, write_value

MOVED_TEXTS = 10
"""Texts shown in either direction."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The test step's artifact, read by the report step.

    Attributes:
        plan: the pass whose sums were judged.
        outcome: the test's outcome.
        moved_rows: rows of the pooled sample with the lowest and the highest witness, ascending by witness.
        moved_witness: their witness values.
        kernel_tasks: number of kernel tasks.
        kernel_seconds: their seconds, summed.
        seconds: seconds of the test.
    """

    plan: KernelPlan
    outcome: Outcome
    moved_rows: tuple[int, ...]
    moved_witness: tuple[float, ...]
    kernel_tasks: int
    kernel_seconds: float
    seconds: float


class Verdict(NamedTuple):
    """A run's verdict: the outputs of the test step.

    Attributes:
        drift: whether the window no longer looks like the reference.
        p_value: 1 for a run that was skipped, as it is evidence of nothing.
        mmd2: unbiased estimate of MMD²; 0 for a run that was skipped.
        threshold: the statistic above which the test rejects; 0 for a run that was skipped.
        verdict: ``"drift found"``, ``"no drift found"`` or ``"skipped"``.
    """

    drift: bool
    p_value: float
    mmd2: float
    threshold: float
    verdict: str


class Tested(NamedTuple):
    """The test step's outputs: the verdict, and the figures to show beside it."""

    verdict: Verdict
    metrics: dict[str, float | str]


def test(*, plan: str, out: str, witness_out: str) -> Tested:
    """Add up the kernel tasks' sums and decide at the level that was asked for.

    Args:
        plan: path of the kernel plan's JSON.
        out: path of the artifact to write.
        witness_out: path of the artifact with every row's witness, (N,) float32 in the order of the pooled sample.
    """
    with logged_step("test", outputs=(out, witness_out)) as clock:
        known = read_value(plan, KernelPlan)
        pooled = known.sample.pooled
        seconds: list[float] = []

        def read() -> Iterator[PartialSums | FeatureSums]:
            for number in range(known.tasks):
                task = finished_sums(known, number)
                seconds.append(task.seconds)
                yield task.sums

        outcome, mixed = _found(known, read(), pooled.settings.test_level, pooled.settings.kernel_combination)
        scores = np.empty(pooled.rows)
        scores[shuffled_order(pooled.seed, 0, pooled.n)] = mixed[: pooled.n]
        scores[shuffled_order(pooled.seed, pooled.n, pooled.rows)] = mixed[pooled.n :]
        moved = extremes(scores, MOVED_TEXTS)
        tested = Judged(
            plan=known,
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
        verdict = in_words(outcome.rejected)
        clock.log("progress", verdict=verdict, p_value=outcome.p_value, statistic=outcome.statistic)
        decided = Verdict(outcome.rejected, outcome.p_value, outcome.mmd2, outcome.threshold, verdict)
        return Tested(decided, run_metrics(outcome, pooled))
    return Tested(Verdict(False, 1.0, 0.0, 0.0, SKIPPED), skipped_run_metrics())


test.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # a step, not a test case


def _found(known: KernelPlan, parts: Iterable[PartialSums | FeatureSums], level: float, combination: str) -> Found:
    spec = known.spec
    if spec.choice.method == "features":
        sums = combine_features(spec.grid, (part for part in parts if isinstance(part, FeatureSums)))
        dataset = EmbeddingsDataset.open(known.sample.working_folder)
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


class Reported(NamedTuple):
    """The outputs of the run's last step, for reactions to drift.

    Attributes:
        drift: whether the window no longer looks like the reference.
        report_uri: where the report is.
    """

    drift: bool
    report_uri: str


def report(*, outcome: str, witness: str, result_out: str, report_out: str) -> Reported:
    """Write the result, the report and the record in the history; empty the run's workspace.

    A run never writes over another's report: where its folder holds one, it makes a folder of its own in there, named
    by its time and name. ``report.html``, ``result.json`` and ``witness.parquet`` lie together.

    Args:
        outcome: path of the test's outcome.
        witness: path of every row's witness.
        result_out: path of the result artifact.
        report_out: path of the report artifact.
    """
    with logged_step("report") as clock:
        try:
            found = read_value(outcome, Judged)
        except Skipped as skipped:
            place = _report_skipped(skipped, result_out, report_out)
            clock.log("progress", status=SKIPPED, why=skipped.why, report=place)
            return Reported(False, place)
        seen = found.plan.sample
        pooled = seen.pooled
        history = pooled.run.history
        past = _history(history, pooled.run.id)  # before anything is written: an unreadable history stops the run
        folder, result = _claimed(pooled.run, _result(found))
        record = _record(result)
        _append(history, record, folder)
        data = ReportData(
            result=result,
            permuted=np.array(found.outcome.permuted),
            reference_points=_plane(seen.reference_points),
            current_points=_plane(seen.current_points),
            points_explained_variance_ratio=seen.picture_explained_variance_ratio,
            history=(*past, HistoryPoint.of(record, history)),
        )
        _write_report(result, render_report(data), result_out, report_out)
        _write_witness(join(folder, "witness.parquet"), pooled, witness)
        remove_tree(seen.working_folder)  # last: until here a retry finds everything it needs
        clock.log(
            "progress",
            status=COMPARED,
            drift=result.drift,
            p_value=result.p_value,
            statistic=result.statistic,
            report=result.report_uri,
        )
    return Reported(result.drift, result.report_uri)


def _report_skipped(skipped: Skipped, result_out: str, report_out: str) -> str:
    """Write result, report and record of a run that had not enough to compare; return where the report is."""
    run = Run(**skipped.fields["run"])
    reference, current = (
        FoundWindow(side["uri"], side["asked"], side["rows"], tuple(side["missing"]))
        for side in (skipped.fields["reference"], skipped.fields["current"])
    )
    result = SkippedResult(run.created, skipped.why, reference, current, run.id, run.job, run.as_of, report_uri="")
    folder, result = _claimed(run, result)
    _append(run.history, result.to_json(), folder)
    _write_report(result, render_skipped(result), result_out, report_out)
    return result.report_uri


_AnyResult = TypeVar("_AnyResult", DriftResult, SkippedResult)


def _claimed(run: Run, result: _AnyResult) -> tuple[str, _AnyResult]:
    """Write a result into a folder without another run's; return the folder, and the result with its report's place."""
    own = f"{datetime.fromisoformat(run.created):%Y%m%dT%H%M%SZ}-{run.id[:8]}"
    for folder in (run.folder, join(run.folder, own)):
        place = join(folder, "result.json")
        result = replace(result, report_uri=join(folder, "report.html"))
        try:
            write_json(place, result.to_json(), over=None)
        except StorageConflict:
            if not _is_of(place, run):
                continue
            write_json(place, result.to_json())  # an earlier attempt of this very step wrote it
        return folder, result
    raise StorageConflict(
        f"{run.folder}: another run's result is in the folder {own} of this run; give another output folder"
    )


def _append(history: str, record: Mapping[str, Any], folder: str) -> None:
    """Add a run's record to the history. If that fails, remove its result: the folder is free for the next run."""
    try:
        append_history(history, record, key=record["run"])
    except StorageError:
        remove(join(folder, "result.json"))
        raise


def _is_of(place: str, run: Run) -> bool:
    try:
        found = read_json(place)
    except DataError:
        return False
    return isinstance(found, dict) and cast("dict[str, Any]", found).get("run") == run.id


def _write_report(result: DriftResult | SkippedResult, page: str, result_out: str, report_out: str) -> None:
    for path in (report_out, result.report_uri):
        write_bytes(path, page.encode())
    write_json(result_out, result.to_json())


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


def _result(found: Judged) -> DriftResult:
    outcome, known = found.outcome, found.plan
    seen = known.sample
    pooled = seen.pooled
    described = pooled.describe(found.moved_rows)
    moved = tuple(
        MovedText(identifier, "reference" if row < pooled.n else "current", score, text)
        for row, score, (identifier, text) in zip(found.moved_rows, found.moved_witness, described, strict=True)
    )
    return DriftResult(
        created=pooled.run.created,
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
        leading_kernel=outcome.leading_kernel,
        mmd2=outcome.mmd2,
        mmd2_interval=None if outcome.interval is None else (outcome.interval.low, outcome.interval.high),
        auc=outcome.auc,
        feature_error_bound=outcome.feature_error_bound,
        reference=pooled.reference,
        current=pooled.current,
        components=seen.components,
        explained_variance_ratio=seen.explained_variance_ratio,
        moved=moved,
        steps=(
            StepTiming("sample", 1, pooled.seconds),
            StepTiming("fit", 1, seen.fit_seconds),
            StepTiming("project", 1, seen.seconds),
            StepTiming("plan", 1, known.seconds),
            StepTiming("kernel", found.kernel_tasks, found.kernel_seconds),
            StepTiming("test", 1, found.seconds),
        ),
        run=pooled.run.id,
        job=pooled.run.job,
        as_of=pooled.run.as_of,
        text_column=pooled.text_column,
        carried=pooled.carried,
    )


def _record(result: DriftResult) -> dict[str, Any]:
    """Return the history's record: the result without its texts, which may be private, and without timings."""
    kept = {name: value for name, value in result.to_json().items() if name not in ("moved", "steps")}
    return json.loads(json.dumps(kept))  # as it will be read again


def _history(uri: str, own: str) -> tuple[HistoryPoint, ...]:
    """Return the runs of the past that compared something; an earlier attempt may have recorded this one already."""
    past = (record for record in read_history(uri) if record.get("run") != own and record.get("status") != SKIPPED)
    return tuple(HistoryPoint.of(record, uri) for record in past)


def _plane(points: tuple[tuple[float, ...], ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return points as (k, 2), the second coordinate 0 where vectors have one dimension."""
    array = np.array(points, np.float32)
    return np.pad(array, ((0, 0), (0, 2 - array.shape[1])))
