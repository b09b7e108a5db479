"""The backfill's steps: plan the shards, embed one task's share, finish the dataset."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

from driftline.components.embedding.backfill.finishing import described, publish, remove_strays, reported_shards, verify
from driftline.components.embedding.backfill.incremental import carried_columns, compare
from driftline.components.embedding.backfill.plan import (
    ROWS_PER_SHARD,
    BackfillPlan,
    DType,
    Previous,
    cut,
    merged_pieces,
    with_settings,
)
from driftline.components.embedding.backfill.reports import ShardReport, TaskReport, check_price, metrics
from driftline.components.embedding.backfill.row_progress import RowProgress
from driftline.components.embedding.backfill.shard_embedding import ShardEmbedding, version
from driftline.components.embedding.backfill.standing import (
    Standing,
    manifest_place,
    withdraw_replaced,
    withdrawn_place,
)
from driftline.components.embedding.backfill.wanted import Wanted
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.model_folder import check_prompt
from driftline.components.embedding.encoding.models import open_model
from driftline.components.embedding.encoding.profile import measured_tuning
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import DataError, UsageError
from driftline.components.steps import REFUSE, SKIP, Skipped, StepClock, check_tasks, check_whole, running, shares
from driftline.components.storage.arrow_types import type_name
from driftline.components.storage.dataset import EmbeddingsDataset, write_deletes
from driftline.components.storage.outputs import OutputPlace
from driftline.components.storage.store import exists, join, list_folders, remove, write_bytes, write_json
from driftline.components.storage.text_search import NoTextFiles, NoTexts, find_texts
from driftline.components.storage.texts import TextColumns, TextCounts, TextSelection, carried_schema, scan_texts
from driftline.components.storage.values import read_value, write_value
from driftline.components.storage.windows import Window, parse_as_of, resolve_time, window_of

_DEFAULTS: Final = EncoderSettings()


def plan(
    *,
    inputs: Sequence[str],
    model: str,
    out: str,
    columns: TextColumns,
    dtype: str,
    tasks: int,
    plan_out: str,
    since: str = "",
    until: str = "",
    time_column: str = "time",
    where: Sequence[str] = (),
    as_of: str = "",
    when_empty: str = SKIP,
    job: str = "",
    encoder: EncoderSettings = _DEFAULTS,
    rows_per_shard: int = 0,
    strict: bool = False,
    incremental: bool = False,
    model_cache: str = "",
) -> list[dict[str, int]]:
    """Check every text, identify the model and cut the work into shards; return one item for each task.

    Args:
        inputs: files, folders or patterns of texts; a folder such as ``date=yesterday`` is that of the day.
        model: folder, gs:// prefix or name of the model.
        out: the embeddings dataset to write, with or without placeholders or a relative day.
        columns: the texts' columns.
        dtype: ``"float32"`` or ``"float16"``.
        tasks: tasks to share the shards among; no more are made than there are shards.
        plan_out: path of the artifact to write.
        since: take texts from this time on, absolute or relative to `as_of`; empty for all.
        until: take texts before this time.
        time_column: the column that both look at.
        where: conditions that must all hold.
        as_of: the moment that relative times are of; empty for now.
        when_empty: what becomes of a run whose window holds no text: ``"skip"`` or ``"refuse"``. A run without a
            window, to which more waiting brings no texts, is always refused.
        job: the backend's name for the run.
        encoder: what decides the vectors.
        rows_per_shard: texts in a shard at most; 0 for the default.
        strict: whether to refuse bad texts rather than to count them.
        incremental: whether to add to the dataset that is there: new ids are embedded, those whose text changed are
            embedded anew, those with a null text are deleted, all others stay. Where there is none, a whole one is
            made.
        model_cache: local folder in which models from gs:// are kept; empty for none.

    Raises:
        DataError: texts, model or the dataset there are not as expected, or no text is left to embed.
        UsageError: a setting is out of range.
        StorageError: something cannot be read or written.
    """
    with running("plan", hands_on=(plan_out,)) as clock:
        check_tasks(tasks)
        check_whole(rows_per_shard=rows_per_shard)
        if when_empty not in (SKIP, REFUSE):
            raise UsageError(f"when_empty: expected {SKIP} or {REFUSE}, got {when_empty!r}")
        moment = parse_as_of(as_of, datetime.now(UTC))
        windows = [_one_folder("texts", given, moment) for given in inputs]
        out = OutputPlace.of(_one_folder("out", out, moment).uri).folder(moment, job)
        span = resolve_time(since, moment, "since"), resolve_time(until, moment, "until")
        selection = TextSelection(*span, time_column, tuple(where))
        clock.log("progress", out=out, since=selection.since, until=selection.until, as_of=moment.isoformat())
        if strict and incremental:
            raise UsageError(
                "strict and incremental: one refuses the null texts by which the other deletes; choose one of the two"
            )
        checked_dtype = dtype_of(dtype)
        most_rows = rows_per_shard or ROWS_PER_SHARD
        cut((), most_rows)  # refuses a number out of range before hours of reading
        with open_model(model, _folder(model_cache)) as folder:
            check_prompt(folder.path, model, encoder.prompt)
            name, revision = folder.name, with_settings(folder.revision, encoder)
        try:
            places = _not_quiet(windows, when_empty, out, clock)
            sources = tuple(scan_texts(places, columns, selection=selection, strict=strict))
            planned = BackfillPlan(
                out=out,
                model=model,
                model_name=name,
                revision=revision,
                encoder=encoder,
                dtype=checked_dtype,
                columns=columns,
                selection=selection,
                sources=sources,
                carried=(),
                shards=(),
                tasks=1,
                run=uuid.uuid4().hex,
            )
            adds = incremental and _is_finished(planned)
            planned = _added(planned, most_rows) if adds else _whole(planned, most_rows)
        except NoTexts as error:
            if when_empty == SKIP and (selection.timed or any(window.ranged for window in windows)):
                raise Skipped(str(error), {"out": out}) from error
            raise
        if planned.shards:
            # A folder that cannot be written to is found here, before a model is loaded and hours are spent.
            probe = planned.work_place("writable")
            write_bytes(probe, b"")
            remove(probe)
        starts: dict[int, list[int]] = {}
        for work in planned.shards:
            for piece in work.slices:
                starts.setdefault(piece.source, []).append(piece.start)
        planned = dataclasses.replace(
            planned,
            sources=tuple(merged_pieces(source, starts.get(number, ())) for number, source in enumerate(sources)),
            tasks=max(1, min(tasks, len(planned.shards))),
            seconds=clock.seconds,
        )
        write_value(plan_out, planned)
        return shares(planned.tasks)
    return shares(1)  # of a run that is skipped: a fan-out of no task is one that Kubeflow cannot run


def _one_folder(what: str, given: str, moment: datetime) -> Window:
    """Resolve a relative day in a place that is no dataset of many days."""
    window = window_of(given, moment)
    if len(window.expected) > 1 or any("/" in part for part in window.expected):
        raise UsageError(
            f"{what} {given!r}: expected one day here, such as date=yesterday; give a span of time by since and until"
        )
    return window


def _not_quiet(windows: Sequence[Window], when_empty: str, out: str, clock: StepClock) -> list[str]:
    """Return where texts are. A day without any is left out, if other days are there: a misspelt path is none.

    Raises:
        Skipped: there are none anywhere.
        NoTextFiles: a day has none, and that is to be refused, or its folder is none of days.
    """
    places: list[str] = []
    quiet = ""
    for window in windows:
        try:
            if window.ranged:
                find_texts([window.uri])
        except NoTextFiles as error:
            if when_empty == REFUSE or not list_folders(window.base):
                raise
            quiet = str(error)
            clock.log("progress", quiet=window.uri)
        else:
            places.append(window.uri)
    if quiet and not places:
        raise Skipped(quiet, {"out": out})
    return places


def _is_finished(planned: BackfillPlan) -> bool:
    """Say whether there is a dataset to add to. Raises DataError where it is just being replaced by another one."""
    if version(manifest_place(planned)) is not None:
        return True
    if version(withdrawn_place(planned)) is not None:
        raise DataError(
            f"{planned.out}: a run that replaces the dataset has not finished, so there is nothing to add to; run that "
            "backfill to its end first"
        )
    return False


def _whole(planned: BackfillPlan, rows_per_shard: int) -> BackfillPlan:
    """Plan a whole dataset."""
    shards = cut([source.pieces for source in planned.sources], rows_per_shard)
    if not shards:
        raise NoTexts(
            f"{planned.sources[0].uri}: none of the {sum(source.rows for source in planned.sources)} rows holds a text "
            f"to embed ({_shown(planned.counts)}); check the text column, and the selection"
        )
    carried = tuple((field.name, type_name(field.type)) for field in carried_schema(planned.sources))
    whole = dataclasses.replace(planned, shards=shards, carried=carried)
    withdraw_replaced(whole)
    return whole


def _added(planned: BackfillPlan, rows_per_shard: int) -> BackfillPlan:
    """Plan what an incremental run adds to the dataset that is there."""
    seen = version(manifest_place(planned))
    dataset = EmbeddingsDataset.open(planned.out)
    if seen is None or version(manifest_place(planned)) != seen:
        raise DataError(f"{planned.out}: its manifest was written just now; wait for that run, and run this one again")
    there = dataset.manifest
    mine = (planned.model_name, planned.revision, planned.dtype)
    if (there.model, there.revision, there.dtype) != mine:
        raise DataError(
            f"{planned.out}: the dataset was made by {there.model} ({there.revision}, {there.dtype}), this run is of "
            f"{planned.model_name} ({planned.revision}, {planned.dtype}); give that model and its settings, or run the "
            "backfill without --incremental to make the dataset anew"
        )
    carried = carried_columns(dataset, planned.sources)
    changes = compare(dataset, planned.sources, planned.columns, planned.selection)
    wanted = Wanted(changes.wanted)
    shards = cut(
        [source.pieces for source in planned.sources],
        rows_per_shard,
        wanted=[
            wanted.counts(number, [piece.texts for piece in source.pieces])
            for number, source in enumerate(planned.sources)
        ],
    )
    changed = changes.replaced + changes.removed
    previous = Previous(
        manifest=there,
        seen=seen,
        deletes=write_deletes(planned.out, changes.deletes) if changed else there.deletes,
        replaced=changes.replaced,
        removed=changes.removed,
        unknown=changes.unknown,
    )
    added = dataclasses.replace(
        planned,
        carried=carried,
        shards=tuple(wanted.marked(work) for work in shards),
        first=_next_number([shard.name for shard in there.shards]),
        previous=previous,
    )
    if shards:
        identity = hashlib.sha256("".join(work.wanted for work in added.shards).encode()).hexdigest()
        place = added.work_place(f"wanted-{identity[:16]}.npz")
        wanted.write(place)
        added = dataclasses.replace(added, wanted=place)
    return added


def _next_number(names: Sequence[str]) -> int:
    numbers = [name.removeprefix("part-").partition(".")[0].partition("-")[0] for name in names]
    return max([len(names), *(int(number) + 1 for number in numbers if number.isdecimal())])


def _shown(counts: TextCounts) -> str:
    return ", ".join(f"{field.name} {getattr(counts, field.name)}" for field in dataclasses.fields(counts))


def embed(*, planned: str, share: Mapping[str, float], profile: str = "", model_cache: str = "") -> TaskReport | None:
    """Embed one task's shards. A shard that is already there, whole and from the same texts, is left as it is.

    A task that is killed and started again, or replaced by another one, goes on at the first chunk of 4,096 texts that
    is not finished. The model is loaded when the first text is to be encoded.

    Args:
        planned: path of the plan's JSON.
        share: which task this is, ``{"task": number, "tasks": number}``; numbers may arrive as floats.
        profile: file of what was measured to be fastest on such machines; empty for none.
        model_cache: local folder in which models from gs:// are kept; empty for none.

    Returns:
        What it did, as it tells the last step; None where the run is skipped.

    Raises:
        DataError: texts or model are not those that were planned, or another run writes to the dataset.
        StorageError: something cannot be read or written.
    """
    task = int(share["task"])
    with running("embed", task, int(share["tasks"])) as clock:
        known = read_value(planned, BackfillPlan)
        finished = version(manifest_place(known))
        numbers = known.shares()[task]
        progress = RowProgress(clock, sum(known.shards[number].texts for number in numbers))
        wanted = Wanted.read(known.wanted) if known.wanted and numbers else None
        shards: list[tuple[int, ShardReport]] = []
        with ExitStack() as stack:
            encoder: Encoder | None = None
            for number in numbers:
                # First what is there, then whether it is right: what comes later is never written over.
                seen = version(join(known.out, known.shard_name(number)))
                report = Standing(known).shard(number)
                if report is None:
                    if wanted is not None:
                        wanted.check(known.shards[number], known.wanted)
                    encoder = encoder or stack.enter_context(_loaded(known, profile, model_cache))
                    report = ShardEmbedding(known, number, encoder, wanted, progress, seen).run()
                else:
                    progress.keep(report.shard.rows)
                shards.append((number, report))
        told = TaskReport(tuple(shards), progress.embedded, clock.seconds)
        write_value(known.report_place(task), told)
        if version(manifest_place(known)) not in (None, finished):
            remove(known.report_place(task))  # the run ended while this task slept: nobody is left to read it
        return told
    return None


@contextmanager
def _loaded(known: BackfillPlan, profile: str, model_cache: str) -> Generator[Encoder]:
    with open_model(known.model, _folder(model_cache)) as folder:
        revision = with_settings(folder.revision, known.encoder)
        if revision != known.revision:
            raise DataError(
                f"model {known.model}: it changed from {known.revision} to {revision} during the run; "
                "start the run again"
            )
        tuning = measured_tuning(profile, folder.revision, known.encoder.precision)
        yield Encoder.load(folder.path, known.model, known.encoder, tuning=tuning)


class Finished(NamedTuple):
    """What a backfill comes to.

    Attributes:
        uri: the embeddings dataset.
        rows: its rows; 0 where the run was skipped, which leaves what is there as it is.
        status: ``"embedded"`` or ``"skipped"``.
        metrics: the numbers that it is judged by.
    """

    uri: str
    rows: int
    status: Literal["embedded", "skipped"]
    metrics: dict[str, float]


def finish(*, planned: str, dataset_out: str, hourly_price: float = 0.0, model_cache: str = "") -> Finished:
    """Read every shard back, write the manifest last, and return the dataset's place and the metrics.

    Args:
        planned: path of the plan's JSON.
        dataset_out: path of the artifact to write: the dataset's manifest and URI.
        hourly_price: of one task's machine, in any currency, for the cost of a million texts; 0 to leave it out.
        model_cache: local folder in which models from gs:// are kept; empty for none.

    Raises:
        DataError: a shard is missing, damaged or another run's, or an id is there twice.
        UsageError: the price is negative or no number.
        StorageError: something cannot be read or written.
    """
    with running("finish") as clock:
        check_price(hourly_price)
        try:
            known = read_value(planned, BackfillPlan)
        except Skipped as skipped:
            write_json(dataset_out, {"uri": skipped.fields["out"], "skipped": skipped.why})
            clock.log("progress", skipped=skipped.why)
            return Finished(skipped.fields["out"], 0, "skipped", {"texts": 0.0})
        reports = _reports(known)
        shards = reported_shards(known, reports)
        dimension, normalized = _vectors(known, shards, model_cache)
        written = [report.shard for report in shards]
        verify(known, written, clock)
        manifest = described(known, written, dimension, normalized=normalized)
        publish(known, manifest)
        remove_strays(known, manifest)
        write_json(dataset_out, {"uri": known.out, "manifest": manifest.to_json()})
        numbers = metrics(known, manifest, reports, hourly_price)
        clock.log("progress", rows=manifest.rows, encoded=int(numbers["texts_encoded"]))
    return Finished(known.out, manifest.rows, "embedded", numbers)


def _reports(known: BackfillPlan) -> list[TaskReport]:
    """Return what the tasks told, or else what their shards tell.

    This step's own last act removes the tasks' reports: where it is then tried again, since its outputs were lost, the
    shards are all that there is.
    """
    reports: list[TaskReport] = []
    standing = Standing(known)
    for task, numbers in enumerate(known.shares()):
        place = known.report_place(task)
        if exists(place):
            reports.append(read_value(place, TaskReport))
            continue
        found = [(number, report) for number in numbers if (report := standing.shard(number)) is not None]
        reports.append(TaskReport(tuple(found), 0, 0.0))
    return reports


def _vectors(known: BackfillPlan, shards: Sequence[ShardReport], model_cache: str) -> tuple[int, bool]:
    """Return the vectors' length, and whether they have length 1."""
    said = {(report.dimension, report.normalized) for report in shards if report.dimension}
    if known.previous is not None:
        said.add((known.previous.manifest.dimension, known.previous.manifest.normalized))
    if len(said) > 1:
        raise DataError(
            f"{known.out}: its tasks' vectors have the lengths {', '.join(str(length) for length, _ in sorted(said))}, "
            "or only some of them norm 1; give all tasks the same version of Driftline, and run the backfill again"
        )
    if said:
        return said.pop()
    # All shards are there, but neither a record nor a manifest that says what they are.
    with _loaded(known, "", model_cache) as encoder:
        return encoder.dimension, encoder.normalized


def _folder(path: str) -> Path | None:
    return Path(path) if path else None


def dtype_of(name: str) -> DType:
    """Return a dtype's name, checked. Raises UsageError for one that vectors cannot have."""
    if name == "float32" or name == "float16":
        return name
    raise UsageError(f"dtype: expected float32 or float16, got {name!r}")
