"""Shards that are finished already, and the manifest of an earlier run's dataset."""

from __future__ import annotations

from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.backfill.reports import ShardReport
from driftline.components.errors import DataError
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.shards import finished_shard, verify_shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import read_value


def find_manifest(uri: str) -> Manifest | None:
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


class FinishedShards:
    """The shards of a plan that need not be embedded again."""

    def __init__(self, plan: BackfillPlan) -> None:
        self._plan = plan
        found = [find_manifest(uri) for uri in (plan.manifest_uri, plan.withdrawn_uri)]
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
        plan = self._plan
        name, key = plan.shard_name(number), plan.shard_key(number)
        shard = finished_shard(plan.out, name, key)
        if shard is None or shard.rows != plan.shards[number].texts:
            return None
        record = self._record(key)
        if record is not None:
            return record if record.shard == shard else None
        for manifest, shards in self._listed:
            if name in shards:
                if shards[name] != shard:
                    return None
                mine = (manifest.model, manifest.revision) == (plan.model_name, plan.revision)
                return ShardReport(shard, manifest.dimension if mine else 0, mine and manifest.normalized, None)
        return ShardReport(shard, 0, False, None) if self._is_whole(shard, key) else None

    def _record(self, key: str) -> ShardReport | None:
        uri = self._plan.record_uri(key)
        if not store.exists(uri):
            return None
        try:
            return read_value(uri, ShardReport)
        except DataError:  # another version's
            return None

    def _is_whole(self, shard: Shard, key: str) -> bool:
        try:
            verify_shard(self._plan.out, shard, key)
        except DataError:
            return False
        return True


def withdraw_replaced(plan: BackfillPlan) -> None:
    """Put the manifest of a dataset aside whose shards this run will replace.

    Until the run has finished, readers then learn that the dataset is unfinished, instead of finding some of its
    shards replaced. A dataset whose shards all stay as they are remains readable.
    """
    uri = plan.manifest_uri
    if not store.exists(uri):
        return
    manifest = find_manifest(uri)
    if manifest is not None:
        listed = {shard.name: shard for shard in manifest.shards}
        planned = {plan.shard_name(number): plan.shard_key(number) for number in range(len(plan.shards))}
        if all(finished_shard(plan.out, name, planned[name]) == listed[name] for name in listed.keys() & planned):
            return
        store.write_json(plan.withdrawn_uri, manifest.to_json())
    store.remove(uri)
