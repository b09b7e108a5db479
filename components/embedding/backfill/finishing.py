"""The end of a backfill: every shard is read back, the manifest is written last, what is left over goes."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.backfill.reports import ShardReport, TaskReport
from driftline.components.embedding.backfill.standing import manifest_place, read_manifest
from driftline.components.embedding.backfill.unique_ids import check_ids_once
from driftline.components.errors import DataError, StorageConflict
from driftline.components.steps import StepClock
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.reader import EmbeddingsDataset, verify_shard, write_manifest
from driftline.components.storage.objects import store

# Reading back waits on storage, decoding on the processor: a few shards at a time keep both busy.
_VERIFIERS: Final = 4
_OURS: Final = re.compile(r"part-\d{5,}(-[0-9a-f]{12})?\.parquet|deletes-[0-9a-f]{16}\.parquet")


def reported_shards(known: BackfillPlan, reports: Sequence[TaskReport]) -> list[ShardReport]:
    """Return the reports of all shards, in the plan's order.

    Raises:
        DataError: no task reported a shard.
    """
    shards = {number: entry for report in reports for number, entry in report.shards}
    missing = sorted(set(range(len(known.shards))) - shards.keys())
    if missing:
        raise DataError(
            f"{known.out}: {len(missing)} shards are missing, the first is {missing[0]}; run the backfill again"
        )
    return [shards[number] for number in range(len(known.shards))]


def verify(known: BackfillPlan, shards: Sequence[Shard], clock: StepClock) -> None:
    """Read every shard of the plan back, and compare it with what its task reported.

    Memory: two row groups and two times the ids of each of four shards.

    Raises:
        DataError: one is missing, damaged, of other texts or another model, or has not the planned number of rows.
        StorageError: one cannot be read.
    """
    with ThreadPoolExecutor(_VERIFIERS) as pool:
        checks = [
            pool.submit(verify_shard, known.out, shard, known.shard_key(number)) for number, shard in enumerate(shards)
        ]
        try:
            rows = 0
            for check, work, shard in zip(checks, known.shards, shards, strict=True):
                check.result()
                if shard.rows != work.texts:
                    raise DataError(
                        f"{store.join(known.out, shard.name)}: the shard has {shard.rows} rows, {work.texts} were "
                        "planned; run the backfill again"
                    )
                rows += shard.rows
                clock.progress(rows, known.texts, "texts")
        finally:
            pool.shutdown(cancel_futures=True)


def described(known: BackfillPlan, shards: Sequence[Shard], dimension: int, *, normalized: bool) -> Manifest:
    """Return the manifest of the finished dataset."""
    previous = known.previous
    return Manifest(
        known.model_name,
        known.revision,
        dimension,
        normalized=normalized,
        dtype=known.dtype,
        columns=("text", *known.schema.names) if previous is None else previous.manifest.columns,
        shards=(*(() if previous is None else previous.manifest.shards), *shards),
        deletes=None if previous is None else previous.deletes,
    )


def publish(known: BackfillPlan, manifest: Manifest) -> None:
    """Check that no id is there twice, and write the manifest.

    An incremental run writes it only over the one that it was planned on.

    Raises:
        DataError: an id is there twice, a shard is missing or damaged, or another run changed the dataset meanwhile.
        StorageError: something cannot be read or written.
    """
    check_ids_once(EmbeddingsDataset(known.out, manifest))
    previous = known.previous
    if previous is None:
        write_manifest(known.out, manifest)
        return
    place = manifest_place(known)
    if read_manifest(place) == manifest:
        return  # nothing to add; or written already, by an attempt that was killed just then
    try:
        write_manifest(known.out, manifest, over=previous.seen)
    except StorageConflict as error:
        if read_manifest(place) != manifest:
            raise DataError(
                f"{place}: another run changed the dataset since this one was planned; let one run at a time write to "
                "a dataset, and run the backfill again"
            ) from error


def remove_strays(known: BackfillPlan, manifest: Manifest) -> None:
    """Remove shards and deletes that no reader can want any more, and all that the run needed on its way."""
    before = None if known.previous is None else known.previous.manifest
    if manifest != before:
        # The deletes that were in force stay once more, for those who opened the dataset just before.
        deletes = [entry.deletes for entry in (manifest, before) if entry is not None]
        kept = {entry.name for entry in (*manifest.shards, *deletes) if entry is not None}
        for name in _names(known.out):
            if name not in kept and _OURS.fullmatch(name):
                store.remove(store.join(known.out, name))
    store.remove_tree(known.work_place())


def _names(folder: str) -> Iterator[str]:
    # By name: a listing need not spell the folder as the user did, and one below it is not ours.
    yield from sorted({file.uri.rsplit("/", 1)[-1] for file in store.list_files(folder)})
