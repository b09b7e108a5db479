"""The backfill's steps: plan the shards, embed one task's share, finish the dataset."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from driftline.components.embedding.backfill import ROWS_PER_SHARD, BackfillPlan, DType, cut, with_prompt
from driftline.components.embedding.encoder import Encoder
from driftline.components.embedding.model_folder import check_prompt
from driftline.components.embedding.models import open_model
from driftline.components.errors import DataError, UsageError
from driftline.components.steps import StepClock, check_tasks, running
from driftline.components.storage.dataset import finished_shard, write_manifest, write_shard
from driftline.components.storage.manifest import MANIFEST_NAME, Manifest, Shard
from driftline.components.storage.store import join, list_files, remove, write_json
from driftline.components.storage.texts import TextColumns, carried_schema, read_texts, scan_texts
from driftline.components.storage.values import read_value, write_value

BATCH_ROWS = 1024
"""Texts handed to the encoder at a time; it sorts them by length."""

_SHARD_NAME: Final = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What one embedding task wrote.

    Attributes:
        shards: the shards of its share, each with its number.
        dimension: length of a vector.
        normalized: whether vectors have length 1.
        texts: texts encoded; those of shards that were already finished are not counted.
        seconds: how long it took.
    """

    shards: tuple[tuple[int, Shard], ...]
    dimension: int
    normalized: bool
    texts: int
    seconds: float


def plan(
    *,
    inputs: Sequence[str],
    model: str,
    out: str,
    columns: TextColumns,
    prompt: str,
    dtype: str,
    rows_per_shard: int,
    tasks: int,
    plan_out: str,
) -> list[dict[str, int]]:
    """Check every text, identify the model and cut the work into shards; return one item for each task.

    Args:
        inputs: files, folders or patterns of texts.
        model: folder, gs:// prefix or name of the model.
        out: the embeddings dataset to write.
        columns: the texts' columns.
        prompt: name of one of the model's prompts; empty for its default.
        dtype: ``"float32"`` or ``"float16"``.
        rows_per_shard: texts in a shard; 0 for the default.
        tasks: tasks to share the shards among; no more are made than there are shards.
        plan_out: path of the artifact to write.
    """
    with running("plan") as clock:
        check_tasks(tasks)
        checked_dtype = dtype_of(dtype)
        with open_model(model) as folder:
            check_prompt(folder.path, model, prompt)
            name, revision = folder.name, folder.revision
        sources = tuple(scan_texts(inputs, columns))
        shards = cut([source.rows for source in sources], rows_per_shard or ROWS_PER_SHARD)
        planned = BackfillPlan(
            out=out,
            model=model,
            model_name=name,
            revision=with_prompt(revision, prompt),
            prompt=prompt,
            dtype=checked_dtype,
            columns=columns,
            sources=sources,
            shards=shards,
            tasks=min(tasks, len(shards)),
            seconds=0.0,
        )
        _withdraw_other(planned)
        write_value(plan_out, dataclasses.replace(planned, seconds=clock.seconds))
        return [{"task": task} for task in range(planned.tasks)]


def _withdraw_other(planned: BackfillPlan) -> None:
    """Remove the manifest of a dataset that this run will overwrite with another one.

    Until the run has finished, readers are then told that the dataset is unfinished, instead of finding some of its
    shards replaced. A dataset that is already the planned one stays readable.
    """
    same = all(
        finished_shard(planned.out, planned.shard_name(shard), planned.shard_key(shard)) is not None
        for shard in range(len(planned.shards))
    )
    if not same:
        remove(join(planned.out, MANIFEST_NAME))


def embed(*, planned: str, share: Mapping[str, float], out: str) -> None:
    """Embed one task's shards. A shard that is already there, whole and from the same texts, is left as it is.

    Args:
        planned: path of the plan's JSON.
        share: which task this is, ``{"task": number}``; numbers may arrive as floats.
        out: path of the artifact to write.
    """
    known = read_value(planned, BackfillPlan)
    task = int(share["task"])
    with running("embed", task, known.tasks) as clock, open_model(known.model) as folder:
        revision = with_prompt(folder.revision, known.prompt)
        if revision != known.revision:
            raise DataError(
                f"model {known.model}: it changed from {known.revision} to {revision} during the run; "
                "start the run again"
            )
        encoder = Encoder.load(folder.path, known.model, prompt=known.prompt)
        total = sum(known.shard_rows(shard) for shard in known.share(task))
        written: list[tuple[int, Shard]] = []
        texts = done = 0
        for number in known.share(task):
            name, key = known.shard_name(number), known.shard_key(number)
            shard = finished_shard(known.out, name, key)
            if shard is None:
                batches = _embedded(known, number, encoder, clock, done, total)
                shard = write_shard(known.out, name, batches, dimension=encoder.dimension, dtype=known.dtype, key=key)
                texts += shard.rows
            done += shard.rows
            written.append((number, shard))
        report = TaskReport(tuple(written), encoder.dimension, encoder.normalized, texts, clock.seconds)
        write_value(out, report)


def _embedded(
    known: BackfillPlan, number: int, encoder: Encoder, clock: StepClock, done: int, total: int
) -> Iterator[pa.RecordBatch]:
    """Yield a shard's rows with their vectors in float32; the writer rounds them to the dataset's dtype."""
    schema = carried_schema(known.sources)
    for piece in known.shards[number]:
        source = known.sources[piece.source]
        for batch in read_texts(
            source, known.columns, start=piece.start, rows=piece.rows, batch_rows=BATCH_ROWS, schema=schema
        ):
            vectors = encoder.encode(batch.column("text").to_pylist())
            embeddings = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), encoder.dimension)
            columns = {"id": batch.column("id"), "embedding": embeddings}
            columns |= {name: batch.column(name) for name in batch.schema.names if name != "id"}
            yield pa.record_batch(columns)
            done += len(batch)
            clock.progress(done, total, "texts")


def finish(*, planned: str, parts: Sequence[str], dataset_out: str) -> dict[str, float]:
    """Check that every shard is there, write the manifest last, and return the metrics.

    Args:
        planned: path of the plan's JSON.
        parts: paths of the tasks' reports.
        dataset_out: path of the artifact to write: the dataset's manifest and URI.
    """
    with running("finish") as clock:
        known = read_value(planned, BackfillPlan)
        reports = [read_value(part, TaskReport) for part in parts]
        shards = dict(shard for report in reports for shard in report.shards)
        missing = sorted(set(range(len(known.shards))) - set(shards))
        if missing:
            raise DataError(
                f"{known.out}: {len(missing)} shards are missing, the first is {missing[0]}; run the backfill again"
            )
        manifest = Manifest(
            known.model_name,
            known.revision,
            reports[0].dimension,
            normalized=reports[0].normalized,
            dtype=known.dtype,
            columns=("text", *carried_schema(known.sources).names),
            shards=tuple(shards[number] for number in range(len(known.shards))),
        )
        write_manifest(known.out, manifest)
        _remove_strays(known)
        write_json(dataset_out, {"uri": known.out, "manifest": manifest.to_json()})
        seconds = sum(report.seconds for report in reports)
        encoded = sum(report.texts for report in reports)
        clock.log("progress", rows=manifest.rows, encoded=encoded)
    return {
        "texts": float(manifest.rows),
        "texts_encoded": float(encoded),
        "shards": float(len(shards)),
        "dimension": float(manifest.dimension),
        "task_seconds": seconds,
        "texts_per_task_second": encoded / seconds if seconds > 0 else 0.0,
    }


def _remove_strays(known: BackfillPlan) -> None:
    """Remove shards that an earlier, larger dataset left in the folder."""
    kept = {known.shard_name(number) for number in range(len(known.shards))}
    # By name: a listing need not spell the folder as the user did, and one below it is not ours.
    found = {file.uri.rsplit("/", 1)[-1] for file in list_files(known.out)}
    for name in sorted(found - kept):
        if _SHARD_NAME.fullmatch(name):
            remove(join(known.out, name))


def dtype_of(name: str) -> DType:
    """Return a dtype's name, checked. Raises UsageError for one that vectors cannot have."""
    if name == "float32" or name == "float16":
        return name
    raise UsageError(f"dtype: expected float32 or float16, got {name!r}")
