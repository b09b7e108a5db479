"""The manifests of the hourly datasets: a commit's changes, each applied over the version that was read."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.dataset.deletion_vectors import read_deletion_vectors, write_deletion_vectors
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from driftline.components.storage.dataset.partitions import read_manifest, read_manifest_version
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.shards import whole_parquet
from driftline.components.storage.objects import store
from driftline.serving.archive.layout import FileName, ModelDescription, Models, model_of
from driftline.serving.archive.rows import CARRIED
from driftline.serving.archive.state import HourChange

Offsets = NDArray[np.int64]

_TRIES: Final = 100
_LONGEST_PAUSE_S: Final = 2.0  # GCS takes about one change of an object a second
_REMEMBERED: Final = 4_000_000  # offsets, 32 MB
_NO_ROWS: Final[Offsets] = np.empty(0, np.int64)


class HourlyManifests:
    """The manifests of an archive, as one partition's owner reads and changes them; safe for any number of threads.

    Args:
        out: the archive's folder.
        topic: of the partition.
        partition: its number.
        models: the descriptions of the models.
    """

    def __init__(self, out: str, topic: str, partition: int, models: Models) -> None:
        self._out = out
        self._topic = topic
        self._partition = partition
        self._models = models
        self._offsets: OrderedDict[tuple[str, str], Offsets] = OrderedDict()
        self._remembered = 0
        self._lock = Lock()

    def read(self, path: str) -> Manifest | None:
        """Read the manifest of a dataset; None where there is none yet."""
        folder = self.folder(path)
        return read_manifest(folder) if store.exists(store.join(folder, MANIFEST_NAME)) else None

    def folder(self, path: str) -> str:
        """Return the URI of the dataset at a path."""
        return store.join(self._out, path)

    def own(self, shards: Iterable[Shard]) -> list[tuple[FileName, Shard]]:
        """Return those shards that come from this partition, by ascending offsets."""
        named = [(FileName.parse(shard.name), shard) for shard in shards]
        mine = [(name, shard) for name, shard in named if name is not None and self.is_own(name)]
        return sorted(mine, key=lambda entry: entry[0].first)

    def is_own(self, name: FileName) -> bool:
        """Return whether a file comes from this partition."""
        return (name.topic, name.partition) == (self._topic, self._partition)

    def remember(self, path: str, shard: Shard, offsets: Offsets) -> None:
        """Cache the offsets of a shard's rows, so that they need not be read again."""
        with self._lock:
            before = self._offsets.pop((path, shard.name), offsets[:0])
            self._offsets[path, shard.name] = offsets
            self._remembered += len(offsets) - len(before)
            while self._remembered > _REMEMBERED:
                self._remembered -= len(self._offsets.popitem(last=False)[1])

    def apply(self, change: HourChange, commit: int, check_owned: Callable[[], None]) -> list[str]:
        """Apply a change of the last commit, unless it is applied already.

        The order is: read the manifest, check that the commit is still the partition's last one, replace the manifest
        over what was read. So a former owner cannot apply a change late: the new owner has applied it first, and has
        replaced the manifest if there was anything to change.

        Args:
            change: the change.
            commit: the commit's number.
            check_owned: raises FencedError where the commit is no longer the last one.

        Returns:
            Names of files in the dataset's folder that no manifest names any more, or ever will.

        Raises:
            FencedError: another worker has taken the partition over.
            DataError: a manifest, its deletion vectors or a shard are damaged.
            StorageError: something cannot be read or written.
        """
        folder = self.folder(change.path)
        uri = store.join(folder, MANIFEST_NAME)
        model = self._models.describe(model_of(change.path))
        unneeded: list[str] = []
        pause_s = 0.05
        for _ in range(_TRIES):
            before, seen = read_manifest_version(folder) if store.exists(uri) else (None, None)
            after = self._changed(folder, before, change, model, f"{self._topic}/{self._partition}/{commit}")
            if after is None or after == before:
                check_owned()
                return _without(unneeded, before)
            check_owned()
            old, new = (None if one is None else one.deletes for one in (before, after))
            try:
                store.write_json(uri, after.to_json(), over=seen)
            except StorageConflict:
                # Another partition's owner was first; or an answer was lost: then the next round finds the change.
                if new is not None and new != old:
                    unneeded.append(new.name)
                time.sleep(random.uniform(0, pause_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if old is not None and old != new:
                unneeded.append(old.name)
            return _without(unneeded, after)
        raise StorageError(f"{uri}: was replaced by others {_TRIES} times in a row; let fewer workers share the hour")

    def _changed(
        self, folder: str, before: Manifest | None, change: HourChange, model: ModelDescription, commit_id: str
    ) -> Manifest | None:
        """Return the manifest with the change applied; None where there is still no shard to name."""
        there = () if before is None else before.shards
        names = {shard.name for shard in there} - set(change.removed)
        shards = [shard for shard in there if shard.name in names]
        shards += [shard for shard in change.added if shard.name not in names]
        if not shards:
            return before  # a dataset keeps at least one shard, even when all its rows are deleted
        shards.sort(key=_by_name)
        left_out = {} if before is None else read_deletion_vectors(folder, before)
        deletes = {shard.name: left_out[shard.name] for shard in shards if shard.name in left_out}
        for name, rows in self._rows(change.path, shards, change.deleted).items():
            deletes[name] = np.union1d(deletes.get(name, _NO_ROWS), rows)
        return Manifest(
            model.model,
            model.revision,
            model.dimension,
            model.normalized,
            "float32",
            CARRIED,
            tuple(shards),
            self._deletes_file(folder, before, left_out, deletes, commit_id),
        )

    def _deletes_file(
        self,
        folder: str,
        before: Manifest | None,
        left_out: Mapping[str, Offsets],
        deletes: Mapping[str, Offsets],
        commit_id: str,
    ) -> Shard | None:
        if before is not None and _same(left_out, deletes):
            return before.deletes
        return write_deletion_vectors(folder, deletes, salt=commit_id) if deletes else None

    def _rows(self, path: str, shards: list[Shard], offsets: tuple[int, ...]) -> dict[str, Offsets]:
        """Find rows by their offsets in this partition's shards; offsets that are no longer there are ignored."""
        mine = self.own(shards)
        if not offsets or not mine:
            return {}
        wanted = np.unique(np.array(offsets, np.int64))
        files = np.searchsorted([name.first for name, _ in mine], wanted, side="right") - 1
        found: dict[str, Offsets] = {}
        for file in np.unique(files[files >= 0]).tolist():
            shard = mine[file][1]
            stored = self.offsets(path, shard)
            rows = np.minimum(np.searchsorted(stored, wanted[files == file]), len(stored) - 1)
            rows = rows[stored[rows] == wanted[files == file]]
            if rows.size:
                found[shard.name] = rows.astype(np.int64)
        return found

    def offsets(self, path: str, shard: Shard) -> Offsets:
        """Return the offsets of all rows of a shard of this partition, ascending: (rows,) int64."""
        known = self._offsets.get((path, shard.name))
        if known is None:
            uri = store.join(self.folder(path), shard.name)
            with store.open_read(uri) as handle, whole_parquet(uri, "column 'offset'"):
                known = pq.read_table(handle, columns=["offset"]).column("offset").to_numpy()
            self.remember(path, shard, known)
        return known


def _without(unneeded: list[str], manifest: Manifest | None) -> list[str]:
    """Return the names except that of the manifest's own deletes, which a write whose answer was lost has named."""
    own = None if manifest is None or manifest.deletes is None else manifest.deletes.name
    return [name for name in unneeded if name != own]


def _by_name(shard: Shard) -> tuple[str, int, int, str]:
    name = FileName.parse(shard.name)
    return ("", 0, 0, shard.name) if name is None else (name.topic, name.partition, name.first, shard.name)


def _same(one: Mapping[str, Offsets], other: Mapping[str, Offsets]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(rows, other[name]) for name, rows in one.items())


def open_shards(
    folder: str, manifest: Manifest, shards: Sequence[Shard], deletes: Mapping[str, Offsets]
) -> tuple[EmbeddingsDataset, Offsets]:
    """Return a dataset of some of a manifest's shards, and the numbers of those of its rows that are not deleted.

    Args:
        folder: of the manifest.
        manifest: the manifest.
        shards: some of its shards.
        deletes: deleted rows of each shard.

    Returns:
        The dataset, with all rows of the shards, and (rows,) int64, ascending.
    """
    live: list[Offsets] = [_NO_ROWS]
    first = 0
    for shard in shards:
        rows = np.setdiff1d(
            np.arange(shard.rows, dtype=np.int64), deletes.get(shard.name, _NO_ROWS), assume_unique=True
        )
        live.append(first + rows)
        first += shard.rows
    dataset = EmbeddingsDataset(folder, replace(manifest, shards=tuple(shards), deletes=None))
    return dataset, np.concatenate(live)
