"""The backfill's steps: plan the shards, embed one task's share, finish the dataset."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from driftline.components.embedding.backfill.cutting import cut
from driftline.components.embedding.backfill.finished_shards import FinishedShards, withdraw_replaced
from driftline.components.embedding.backfill.finishing import described, publish, remove_strays, reported_shards, verify
from driftline.components.embedding.backfill.incremental import ChangedTexts, carried_columns, compare
from driftline.components.embedding.backfill.plan import WORK_FOLDER, BackfillPlan, Previous, merged_pieces
from driftline.components.embedding.backfill.reports import STATUS, ShardReport, TaskReport, counted, metrics
from driftline.components.embedding.backfill.settings import IN_PIPELINES, BackfillSettings, texts_of
from driftline.components.embedding.backfill.shard_embedding import RowProgress, ShardEmbedding
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.model import check_prompt
from driftline.components.embedding.encoding.opening import open_encoder, open_model
from driftline.components.embedding.encoding.tuning.tunings import check_tunings
from driftline.components.errors import DataError, UsageError
from driftline.components.settings import REFUSE, SKIP, in_pipelines
from driftline.components.steps import Skipped, StepClock, logged_step, shares
from driftline.components.storage.dataset.deletion_vectors import write_deletion_vectors
from driftline.components.storage.dataset.outputs import OutputPlace, check_writable
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.windows import Window, window_of
from driftline.components.storage.objects.store import exists, find, join, list_folders, remove, write_json
from driftline.components.storage.objects.values import read_value, write_value
from driftline.components.storage.texts.arrow_types import type_name
from driftline.components.storage.texts.reading import NoTextFiles, NoTexts, carried_schema, find_texts, scan_texts
from driftline.components.storage.texts.rules import TextCounts


def plan(
    *, texts: Sequence[str], model: str, out: str, plan_out: str, job: str = "", **settings: object
) -> list[dict[str, int]]:
    """Check all settings, the model and every text, and cut the work into shards; return one item for each task.

    Whatever can be refused before texts are read is refused before: settings that later steps use, the folder of the
    dataset, the encoder's tunings, files that are not there, a model that cannot be loaded, columns of Parquet and CSV.

    Args:
        texts: files, folders or patterns of texts; a folder such as ``date=yesterday`` is that of the day.
        model: folder, gs:// prefix or name of the model.
        out: the embeddings dataset to write, with or without placeholders or a relative day.
        plan_out: path of the artifact to write.
        job: the backend's name for the run.
        settings: of :class:`~driftline.components.embedding.backfill.settings.BackfillSettings`.

    Raises:
        DataError: texts, model or the dataset there are not as expected, or no text is left to embed.
        UsageError: a setting is out of range.
        StorageError: something cannot be read or written.
    """
    with logged_step("plan", outputs=(plan_out,)) as clock, in_pipelines(IN_PIPELINES):
        asked = BackfillSettings.of(**settings)
        texts, model, out = _places(texts, model, out)
        moment = asked.moment(datetime.now(UTC))
        windows = [_one_folder("texts", text, moment) for text in texts]
        out = OutputPlace.of(_one_folder("out", out, moment).uri).folder(moment, job)
        selection = asked.selection(moment)
        clock.log("progress", out=out, since=selection.since, until=selection.until, as_of=moment.isoformat())
        check_writable(join(out, WORK_FOLDER))
        check_tunings(asked.encoder_tunings)
        places, quiet = _found(windows, asked.window_when_empty, clock)
        with open_model(model, _folder(asked.model_cache)) as folder:
            check_prompt(folder.path, model, asked.model_prompt)
            name, revision = folder.name, asked.encoder.vector_revision(folder.revision)
        if not places:
            raise Skipped(quiet, {"out": out})
        try:
            sources = tuple(scan_texts(places, asked.columns, selection=selection, strict=asked.text_strict))
            planned = BackfillPlan(asked, out, model, name, revision, selection, sources, run=uuid.uuid4().hex)
            planned = _added(planned) if asked.output_incremental and _is_finished(planned) else _whole(planned)
        except NoTexts as error:
            if asked.window_when_empty == SKIP and (selection.timed or any(window.ranged for window in windows)):
                raise Skipped(str(error), {"out": out}) from error
            raise
        starts: dict[int, list[int]] = {}
        for work in planned.shards:
            for piece in work.slices:
                starts.setdefault(piece.source, []).append(piece.start)
        planned = dataclasses.replace(
            planned,
            sources=tuple(merged_pieces(source, starts.get(number, ())) for number, source in enumerate(sources)),
            tasks=max(1, min(asked.embed_tasks, len(planned.shards))),
            seconds=clock.seconds,
        )
        write_value(plan_out, planned)
        return shares(planned.tasks)
    return shares(1)  # of a run that is skipped: a fan-out of no task is one that Kubeflow cannot run


def _places(texts: Sequence[str], model: str, out: str) -> tuple[tuple[str, ...], str, str]:
    """Return the places without blanks around them. Raises UsageError where one is not given."""
    places = tuple(text.strip() for text in texts_of("texts", texts))
    model, out = model.strip(), out.strip()
    if not places or not all(places):
        raise UsageError(f"texts: expected files, folders or patterns of texts, got {list(texts)}")
    if not model:
        raise UsageError("model: expected a folder, a gs:// prefix or a model's name, got nothing")
    if not out:
        raise UsageError("out: expected a gs:// or local folder, got nothing")
    return places, model, out


def _one_folder(what: str, given: str, moment: datetime) -> Window:
    """Resolve a relative day in a place that is no dataset of many days."""
    window = window_of(given, moment)
    if len(window.expected) > 1 or any("/" in part for part in window.expected):
        raise UsageError(
            f"{what} {given!r}: expected one day here, such as date=yesterday; give a span of time by window_since and "
            "window_until"
        )
    return window


def _found(windows: Sequence[Window], when_empty: str, clock: StepClock) -> tuple[list[str], str]:
    """Look for the files of texts. A day without any is left out, if other days are there: a misspelt path is none.

    Returns:
        Where texts are, and why there are none where a day is left out.

    Raises:
        NoTextFiles: a place has none and is no day, or that is to be refused, or its folder is none of days.
    """
    places: list[str] = []
    quiet = ""
    for window in windows:
        try:
            find_texts([window.uri])
        except NoTextFiles as error:
            if not window.ranged or when_empty == REFUSE or not list_folders(window.base):
                raise
            quiet = str(error)
            clock.log("progress", quiet=window.uri)
        else:
            places.append(window.uri)
    return places, quiet


def _is_finished(planned: BackfillPlan) -> bool:
    """Say whether there is a dataset to add to. Raises DataError where it is just being replaced by another one."""
    if find(planned.manifest_uri) is not None:
        return True
    if find(planned.withdrawn_uri) is not None:
        raise DataError(
            f"{planned.out}: a run that replaces the dataset has not finished, so there is nothing to add to; run that "
            "backfill to its end first"
        )
    return False


def _whole(planned: BackfillPlan) -> BackfillPlan:
    """Plan a whole dataset."""
    shards = cut([source.pieces for source in planned.sources], planned.settings.output_rows_per_shard)
    if not shards:
        raise NoTexts(
            f"{planned.sources[0].uri}: none of the {sum(source.rows for source in planned.sources)} rows holds a text "
            f"to embed ({_shown(planned.counts)}); check the text column, and the selection"
        )
    carried = tuple((field.name, type_name(field.type)) for field in carried_schema(planned.sources))
    whole = dataclasses.replace(planned, shards=shards, carried=carried)
    withdraw_replaced(whole)
    return whole


def _added(planned: BackfillPlan) -> BackfillPlan:
    """Plan what an incremental run adds to the dataset that is there."""
    seen = find(planned.manifest_uri)
    dataset = EmbeddingsDataset.open(planned.out)
    if seen is None or find(planned.manifest_uri) != seen:
        raise DataError(f"{planned.out}: its manifest was written just now; wait for that run, and run this one again")
    there = dataset.manifest
    mine = (planned.model_name, planned.revision, planned.dtype)
    if (there.model, there.revision, there.dtype) != mine:
        raise DataError(
            f"{planned.out}: the dataset was made by {there.model} ({there.revision}, {there.dtype}), this run is of "
            f"{planned.model_name} ({planned.revision}, {planned.dtype}); give that model and its settings, or run "
            "without output_incremental to make the dataset anew"
        )
    carried = carried_columns(dataset, planned.sources)
    changes = compare(dataset, planned.sources, planned.columns, planned.selection)
    changed = ChangedTexts(changes.changed)
    shards = cut(
        [source.pieces for source in planned.sources],
        planned.settings.output_rows_per_shard,
        counts=[
            changed.counts(number, [piece.texts for piece in source.pieces])
            for number, source in enumerate(planned.sources)
        ],
    )
    left_out = changes.replaced + changes.removed
    previous = Previous(
        manifest=there,
        seen=seen,
        deletes=write_deletion_vectors(planned.out, changes.deletes) if left_out else there.deletes,
        replaced=changes.replaced,
        removed=changes.removed,
        unknown=changes.unknown,
    )
    added = dataclasses.replace(
        planned,
        carried=carried,
        shards=tuple(changed.marked(work) for work in shards),
        first=_next_number([shard.name for shard in there.shards]),
        previous=previous,
    )
    if shards:
        identity = hashlib.sha256("".join(work.changed for work in added.shards).encode()).hexdigest()
        uri = added.work_uri(f"changed-{identity[:16]}.npz")
        changed.write(uri)
        added = dataclasses.replace(added, changed=uri)
    return added


def _next_number(names: Sequence[str]) -> int:
    numbers = [name.removeprefix("part-").partition(".")[0].partition("-")[0] for name in names]
    return max([len(names), *(int(number) + 1 for number in numbers if number.isdecimal())])


def _shown(counts: TextCounts) -> str:
    return ", ".join(f"{field.name} {getattr(counts, field.name)}" for field in dataclasses.fields(counts))


def embed(*, planned: str, share: Mapping[str, float]) -> TaskReport | None:
    """Embed one task's shards. A shard that is already there, whole and from the same texts, is left as it is.

    A task that is killed and started again, or replaced by another one, goes on at the first chunk of 4,096 texts that
    is not finished. The model is loaded when the first text is to be encoded.

    Args:
        planned: path of the plan's JSON.
        share: which task this is, ``{"task": number, "tasks": number}``; numbers may arrive as floats.

    Returns:
        Its report to the last step; None where the run is skipped.

    Raises:
        DataError: texts or model are not those that were planned, or another run writes to the dataset.
        StorageError: something cannot be read or written.
    """
    task = int(share["task"])
    with logged_step("embed", task, int(share["tasks"])) as clock:
        backfill = read_value(planned, BackfillPlan)
        finished = find(backfill.manifest_uri)
        numbers = backfill.shares()[task]
        progress = RowProgress(clock, sum(backfill.shards[number].texts for number in numbers))
        changed = ChangedTexts.read(backfill.changed) if backfill.changed and numbers else None
        shards: list[tuple[int, ShardReport]] = []
        encoder: Encoder | None = None
        for number in numbers:
            # First what is there, then whether it is right: what comes later is never written over.
            seen = find(join(backfill.out, backfill.shard_name(number)))
            report = FinishedShards(backfill).shard(number)
            if report is None:
                if changed is not None:
                    changed.check(backfill.shards[number], backfill.changed)
                encoder = encoder or _encoder(backfill)
                report = ShardEmbedding(backfill, number, encoder, changed, progress, seen).run()
            else:
                progress.keep(report.shard.rows)
            shards.append((number, report))
        report_of_task = TaskReport(tuple(shards), progress.embedded, clock.seconds)
        write_value(backfill.report_uri(task), report_of_task)
        if find(backfill.manifest_uri) not in (None, finished):
            remove(backfill.report_uri(task))  # the run ended while this task slept: nobody is left to read it
        return report_of_task
    return None


def _encoder(backfill: BackfillPlan) -> Encoder:
    with open_model(backfill.model, _folder(backfill.settings.model_cache)) as folder:
        revision = backfill.encoder.vector_revision(folder.revision)
        if revision != backfill.revision:
            raise DataError(
                f"model {backfill.model}: it changed from {backfill.revision} to {revision} during the run; "
                "start the run again"
            )
        return open_encoder(folder, backfill.encoder, tunings=backfill.settings.encoder_tunings).encoder


class Finished(NamedTuple):
    """The outcome of a backfill.

    Attributes:
        uri: the embeddings dataset.
        rows: its rows; 0 where the run was skipped, which leaves what is there as it is.
        status: ``"embedded"`` or ``"skipped"``.
        counts: all numbers that it is judged by.
        metrics: the ten that come first, and the status, as Kubeflow shows them.
    """

    uri: str
    rows: int
    status: Literal["embedded", "skipped"]
    counts: dict[str, float]
    metrics: dict[str, float | str]


def finish(*, planned: str, dataset_out: str) -> Finished:
    """Read every shard back, write the manifest last, and return the dataset's place and the numbers.

    Args:
        planned: path of the plan's JSON.
        dataset_out: path of the artifact to write: the dataset's URI and manifest, and all numbers of the run.

    Raises:
        DataError: a shard is missing, damaged or another run's, or an id is there twice.
        StorageError: something cannot be read or written.
    """
    with logged_step("finish") as clock:
        try:
            backfill = read_value(planned, BackfillPlan)
        except Skipped as skipped:
            write_json(dataset_out, {"uri": skipped.fields["out"], "skipped": skipped.why})
            clock.log("progress", skipped=skipped.why)
            return Finished(skipped.fields["out"], 0, "skipped", {"texts": 0.0}, {STATUS: "skipped"})
        reports = _reports(backfill)
        shards = reported_shards(backfill, reports)
        dimension, normalized = _vectors(backfill, shards)
        written = [report.shard for report in shards]
        verify(backfill, written, clock)
        manifest = described(backfill, written, dimension, normalized=normalized)
        publish(backfill, manifest)
        remove_strays(backfill, manifest)
        counts = counted(backfill, manifest, reports)
        write_json(dataset_out, {"uri": backfill.out, "manifest": manifest.to_json(), "counts": counts})
        clock.log("progress", rows=manifest.rows, encoded=int(counts["texts_encoded"]))
    return Finished(backfill.out, manifest.rows, "embedded", counts, metrics(backfill, counts))


def _reports(backfill: BackfillPlan) -> list[TaskReport]:
    """Return the tasks' reports, or else what their shards show.

    This step's own last act removes the tasks' reports: where it is then tried again, since its outputs were lost, the
    shards are all that there is.
    """
    reports: list[TaskReport] = []
    finished = FinishedShards(backfill)
    for task, numbers in enumerate(backfill.shares()):
        uri = backfill.report_uri(task)
        if exists(uri):
            reports.append(read_value(uri, TaskReport))
            continue
        found = [(number, report) for number in numbers if (report := finished.shard(number)) is not None]
        reports.append(TaskReport(tuple(found), 0, 0.0))
    return reports


def _vectors(backfill: BackfillPlan, shards: Sequence[ShardReport]) -> tuple[int, bool]:
    """Return the vectors' length, and whether they have length 1."""
    found = {(report.dimension, report.normalized) for report in shards if report.dimension}
    if backfill.previous is not None:
        found.add((backfill.previous.manifest.dimension, backfill.previous.manifest.normalized))
    if len(found) > 1:
        lengths = ", ".join(str(length) for length, _ in sorted(found))
        raise DataError(
            f"{backfill.out}: its tasks' vectors have the lengths {lengths}, "
            "or only some of them norm 1; give all tasks the same version of Driftline, and run the backfill again"
        )
    if found:
        return found.pop()
    # All shards are there, but neither a record nor a manifest that says what they are.
    encoder = _encoder(backfill)
    return encoder.dimension, encoder.normalized


def _folder(path: str) -> Path | None:
    return Path(path) if path else None
