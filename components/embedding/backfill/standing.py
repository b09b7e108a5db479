"""What is there already: finished shards, and the dataset of an earlier run."""

from __future__ import annotations

from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.backfill.reports import ShardReport
from driftline.components.embedding.backfill.shard_embedding import record_place
from driftline.components.errors import DataError
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from driftline.components.storage.dataset.reader import finished_shard, verify_shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import read_value


def read_manifest(uri: str) -> Manifest | None:
    """Read a manifest; None where there is none, or nothing that can be read as one.

    Raises:
        StorageError: it cannot be known.
    """
    if not store.exists(uri):
        return None
    try:
        return Manifest.from_json(store.read_json(uri))
    except DataError:
        return None


def manifest_place(known: BackfillPlan) -> str:
    """Return where the dataset's manifest is, or will be."""
    return store.join(known.out, MANIFEST_NAME)


def withdrawn_place(known: BackfillPlan) -> str:
    """Return where the manifest is kept of a dataset that this run replaces."""
    return known.work_place(MANIFEST_NAME)


class Standing:
    """The shards of a plan that need not be embedded again."""

    def __init__(self, known: BackfillPlan) -> None:
        self._known = known
        found = [read_manifest(place(known)) for place in (manifest_place, withdrawn_place)]
        self._listed = [
            (manifest, {shard.name: shard for shard in manifest.shards}) for manifest in found if manifest is not None
        ]

    def shard(self, number: int) -> ShardReport | None:
        """Return a shard that is there, whole and from the same texts, model and settings; else None.

        Its checksum must be the one with which it was written, as this run's record or an earlier manifest has it;
        where neither knows it, the shard is read back wholly.

        Raises:
            StorageError: it cannot be known.
        """
        known = self._known
        name, key = known.shard_name(number), known.shard_key(number)
        shard = finished_shard(known.out, name, key)
        if shard is None or shard.rows != known.shards[number].texts:
            return None
        record = self._record(key)
        if record is not None:
            return record if record.shard == shard else None
        for manifest, shards in self._listed:
            if name in shards:
                if shards[name] != shard:
                    return None
                mine = (manifest.model, manifest.revision) == (known.model_name, known.revision)
                return ShardReport(shard, manifest.dimension if mine else 0, mine and manifest.normalized, None)
        return ShardReport(shard, 0, False, None) if self._is_whole(shard, key) else None

    def _record(self, key: str) -> ShardReport | None:
        place = record_place(self._known, key)
        if not store.exists(place):
            return None
        try:
            return read_value(place, ShardReport)
        except DataError:  # another version's
            return None

    def _is_whole(self, shard: Shard, key: str) -> bool:
        try:
            verify_shard(self._known.out, shard, key)
        except DataError:
            return False
        return True


def withdraw_replaced(known: BackfillPlan) -> None:
    """Put the manifest of a dataset aside whose shards this run will replace.

    Until the run has finished, readers are then told that the dataset is unfinished, instead of finding some of its
    shards replaced. A dataset whose shards all stay as they are remains readable.
    """
    place = manifest_place(known)
    if not store.exists(place):
        return
    manifest = read_manifest(place)
    if manifest is not None:
        listed = {shard.name: shard for shard in manifest.shards}
        planned = {known.shard_name(number): known.shard_key(number) for number in range(len(known.shards))}
        if all(finished_shard(known.out, name, planned[name]) == listed[name] for name in listed.keys() & planned):
            return
        store.write_json(withdrawn_place(known), manifest.to_json())
    store.remove(place)
