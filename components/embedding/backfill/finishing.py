"""The end of a backfill: every shard is read back, the manifest is written last, what is left over goes."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from driftline.components.embedding.backfill.finished_shards import find_manifest
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.backfill.reports import ShardReport, TaskReport
from driftline.components.errors import DataError
from driftline.components.steps import StepClock
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.shards import verify_shard
from driftline.components.storage.dataset.writer import replace_manifest, write_manifest
from driftline.components.storage.objects import store
from driftline.components.storage.objects.owned_object import Replacement
from driftline.components.unique_ids import UniqueIds

# Reading back waits on storage, decoding on the processor: a few shards at a time keep both busy.
_VERIFIERS: Final = 4
_ROWS_AT_ONCE: Final = 8192
_OURS: Final = re.compile(r"part-\d{5,}(-[0-9a-f]{12})?\.parquet|deletes-[0-9a-f]{16}\.parquet")


def reported_shards(plan: BackfillPlan, reports: Sequence[TaskReport]) -> list[ShardReport]:
    """Return the reports of all shards, in the plan's order.

    Raises:
        DataError: no task reported a shard.
    """
    shards = {number: entry for report in reports for number, entry in report.shards}
    missing = sorted(set(range(len(plan.shards))) - shards.keys())
    if missing:
        raise DataError(
            f"{plan.out}: {len(missing)} shards are missing, the first is {missing[0]}; run the backfill again"
        )
    return [shards[number] for number in range(len(plan.shards))]


def verify(plan: BackfillPlan, shards: Sequence[Shard], clock: StepClock) -> None:
    """Read every shard of the plan back, and compare it with what its task reported.

    Memory: two row groups and two times the ids of each of four shards.

    Raises:
        DataError: one is missing, damaged, of other texts or another model, or has not the planned number of rows.
        StorageError: one cannot be read.
    """
    with ThreadPoolExecutor(_VERIFIERS) as pool:
        checks = [
            pool.submit(verify_shard, plan.out, shard, plan.shard_key(number)) for number, shard in enumerate(shards)
        ]
        try:
            rows = 0
            for check, work, shard in zip(checks, plan.shards, shards, strict=True):
                check.result()
                if shard.rows != work.texts:
                    raise DataError(
                        f"{store.join(plan.out, shard.name)}: the shard has {shard.rows} rows, {work.texts} were "
                        "planned; run the backfill again"
                    )
                rows += shard.rows
                clock.progress(rows, plan.texts, "texts")
        finally:
            pool.shutdown(cancel_futures=True)


def described(plan: BackfillPlan, shards: Sequence[Shard], dimension: int, *, normalized: bool) -> Manifest:
    """Return the manifest of the finished dataset."""
    previous = plan.previous
    return Manifest(
        plan.model_name,
        plan.revision,
        dimension,
        normalized=normalized,
        dtype=plan.dtype,
        columns=("text", *plan.schema.names) if previous is None else previous.manifest.columns,
        shards=(*(() if previous is None else previous.manifest.shards), *shards),
        deletes=None if previous is None else previous.deletes,
    )


def publish(plan: BackfillPlan, manifest: Manifest) -> None:
    """Check that no id is there twice, and write the manifest.

    An incremental run writes it only over the one that it was planned on.

    Raises:
        DataError: an id is there twice, a shard is missing or damaged, or another run changed the dataset meanwhile.
        StorageError: something cannot be read or written.
    """
    _check_ids_once(EmbeddingsDataset(plan.out, manifest))
    previous = plan.previous
    if previous is None:
        write_manifest(plan.out, manifest)
        return
    uri = plan.manifest_uri
    if find_manifest(uri) == manifest:
        return  # nothing to add; or written already, by an attempt that was killed just then
    if replace_manifest(plan.out, manifest, previous.seen) is Replacement.LOST:
        raise DataError(
            f"{uri}: another run changed the dataset since this one was planned; let one run at a time write to "
            "a dataset, and run the backfill again"
        )


def _check_ids_once(dataset: EmbeddingsDataset) -> None:
    """Raise DataError where two rows have one id. Memory: 16 bytes a row."""

    def read() -> Iterator[tuple[list[str], range]]:
        for batch in dataset.batches(("id",), batch_rows=_ROWS_AT_ONCE):
            first = int(batch.rows[0])
            yield batch.ids, range(first, first + len(batch.ids))

    index = UniqueIds()
    for ids, _ in read():
        index.add(ids)
    twice = index.find_twice(read)
    if twice is not None:
        raise DataError(
            f"{dataset.uri}: id {twice.id[:60]!r} is that of row {twice.first + 1} and of row {twice.second + 1}; "
            "run the backfill again, and let one run at a time write to a dataset"
        )


def remove_strays(plan: BackfillPlan, manifest: Manifest) -> None:
    """Remove shards and deletes that no reader can want any more, and all that the run needed on its way."""
    before = None if plan.previous is None else plan.previous.manifest
    if manifest != before:
        # The deletes that were in force stay once more, for those who opened the dataset just before.
        deletes = [entry.deletes for entry in (manifest, before) if entry is not None]
        kept = {entry.name for entry in (*manifest.shards, *deletes) if entry is not None}
        for name in _names(plan.out):
            if name not in kept and _OURS.fullmatch(name):
                store.remove(store.join(plan.out, name))
    store.remove_tree(plan.work_uri())


def _names(folder: str) -> Iterator[str]:
    # By name: a listing need not spell the folder as the user did, and one below it is not ours.
    yield from sorted({file.uri.rsplit("/", 1)[-1] for file in store.list_files(folder)})
