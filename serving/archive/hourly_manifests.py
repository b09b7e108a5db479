"""The datasets of the hours: what a commit changes in their manifests, each over the version that was read."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from threading import Lock
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.dataset.deletion_vectors import read_deletes
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from driftline.components.storage.dataset.partitions import read_manifest, read_manifest_version
from driftline.components.storage.dataset.reader import write_deletes
from driftline.components.storage.dataset.shard_format import whole_parquet
from driftline.components.storage.objects import store
from driftline.serving.archive.layout import FileName, model_of
from driftline.serving.archive.models import ModelDescription, Models
from driftline.serving.archive.pending import CARRIED
from driftline.serving.archive.state import PlaceChange

Offsets = NDArray[np.int64]

_TRIES: Final = 100
_LONGEST_PAUSE_S: Final = 2.0  # GCS takes about one change of an object a second
_REMEMBERED: Final = 4_000_000  # offsets, 32 MB


class Hours:
    """The hours' datasets, as one partition's owner changes them; for use by any number of threads.

    Args:
        out: the archive's folder.
        topic: of the partition.
        partition: its number.
        models: what is known of the models.
    """

    def __init__(self, out: str, topic: str, partition: int, models: Models) -> None:
        self._out = out
        self._topic = topic
        self._partition = partition
        self._models = models
        self._offsets: OrderedDict[tuple[str, str], Offsets] = OrderedDict()
        self._remembered = 0
        self._lock = Lock()

    def manifest(self, place: str) -> Manifest | None:
        """Read a place's manifest; None where there is none yet."""
        folder = self.folder(place)
        return read_manifest(folder) if store.exists(store.join(folder, MANIFEST_NAME)) else None

    def folder(self, place: str) -> str:
        """Return where a place's dataset is."""
        return store.join(self._out, place)

    def own(self, shards: Iterable[Shard]) -> list[tuple[FileName, Shard]]:
        """Return those shards that come from this partition, by ascending offsets."""
        named = [(FileName.parse(shard.name), shard) for shard in shards]
        mine = [(name, shard) for name, shard in named if name is not None and self.is_own(name)]
        return sorted(mine, key=lambda entry: entry[0].first)

    def is_own(self, name: FileName) -> bool:
        """Say whether a file comes from this partition."""
        return (name.topic, name.partition) == (self._topic, self._partition)

    def remember(self, place: str, shard: Shard, offsets: Offsets) -> None:
        """Remember the offsets of a shard's rows, that were just written, so that they need not be read."""
        with self._lock:
            before = self._offsets.pop((place, shard.name), offsets[:0])
            self._offsets[place, shard.name] = offsets
            self._remembered += len(offsets) - len(before)
            while self._remembered > _REMEMBERED:
                self._remembered -= len(self._offsets.popitem(last=False)[1])

    def apply(self, change: PlaceChange, commit: int, check_owned: Callable[[], None]) -> list[str]:
        """Make a change of the last commit, unless it is made already.

        The manifest is read first, then it is made sure that the commit is still the partition's last one, then the
        manifest is replaced over what was read. So nobody can make a change late: whoever has taken the partition over
        made it first, and has replaced the manifest if there was anything to change.

        Args:
            change: what to change.
            commit: the commit's number.
            check_owned: raises FencedError where the commit is no longer the last one.

        Returns:
            Files in the place's folder that no manifest names any more, or ever will.

        Raises:
            FencedError: somebody else has taken the partition over.
            DataError: a manifest, its deletes or a shard are damaged.
            StorageError: something cannot be read or written.
        """
        folder = self.folder(change.place)
        place = store.join(folder, MANIFEST_NAME)
        model = self._models.describe(model_of(change.place))
        unneeded: list[str] = []
        pause_s = 0.05
        for _ in range(_TRIES):
            before, seen = read_manifest_version(folder) if store.exists(place) else (None, None)
            after = self._changed(folder, before, change, model, f"{self._topic}/{self._partition}/{commit}")
            if after is None or after == before:
                check_owned()
                return unneeded
            check_owned()
            old, new = (None if one is None else one.deletes for one in (before, after))
            try:
                store.write_json(place, after.to_json(), over=seen)
            except StorageConflict:
                # Another partition's owner was first; or a lost answer, and the next look finds the change made.
                if new is not None and new != old:
                    unneeded.append(new.name)
                time.sleep(random.uniform(0, pause_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if old is not None and old != new:
                unneeded.append(old.name)
            return unneeded
        raise StorageError(f"{place}: was replaced by others {_TRIES} times in a row; let fewer workers share the hour")

    def _changed(
        self, folder: str, before: Manifest | None, change: PlaceChange, model: ModelDescription, word: str
    ) -> Manifest | None:
        """Return the manifest with the change made; None where there is nothing to have one of."""
        there = () if before is None else before.shards
        names = {shard.name for shard in there} - set(change.removed)
        shards = [shard for shard in there if shard.name in names]
        shards += [shard for shard in change.added if shard.name not in names]
        if not shards:
            return before  # a dataset has a shard at least, and be all its rows deleted
        shards.sort(key=_by_name)
        left_out = {} if before is None else read_deletes(folder, before)
        deletes = {shard.name: left_out[shard.name] for shard in shards if shard.name in left_out}
        for name, rows in self._rows(change.place, shards, change.deleted).items():
            deletes[name] = np.union1d(deletes.get(name, np.empty(0, np.int64)), rows)
        return Manifest(
            model.model,
            model.revision,
            model.dimension,
            model.normalized,
            "float32",
            CARRIED,
            tuple(shards),
            self._deletes_file(folder, before, left_out, deletes, word),
        )

    def _deletes_file(
        self,
        folder: str,
        before: Manifest | None,
        left_out: Mapping[str, Offsets],
        deletes: Mapping[str, Offsets],
        word: str,
    ) -> Shard | None:
        if before is not None and _same(left_out, deletes):
            return before.deletes
        return write_deletes(folder, deletes, word=word) if deletes else None

    def _rows(self, place: str, shards: list[Shard], offsets: tuple[int, ...]) -> dict[str, Offsets]:
        """Find rows by their offsets, in this partition's shards; those that are there no longer are passed over."""
        mine = self.own(shards)
        if not offsets or not mine:
            return {}
        wanted = np.unique(np.array(offsets, np.int64))
        files = np.searchsorted([name.first for name, _ in mine], wanted, side="right") - 1
        found: dict[str, Offsets] = {}
        for file in np.unique(files[files >= 0]).tolist():
            shard = mine[file][1]
            stored = self.offsets(place, shard)
            rows = np.minimum(np.searchsorted(stored, wanted[files == file]), len(stored) - 1)
            rows = rows[stored[rows] == wanted[files == file]]
            if rows.size:
                found[shard.name] = rows.astype(np.int64)
        return found

    def offsets(self, place: str, shard: Shard) -> Offsets:
        """Return the offsets of all rows of a shard of this partition, ascending: (rows,) int64."""
        known = self._offsets.get((place, shard.name))
        if known is None:
            uri = store.join(self.folder(place), shard.name)
            with store.open_read(uri) as handle, whole_parquet(uri, "column 'offset'"):
                known = pq.read_table(handle, columns=["offset"]).column("offset").to_numpy()
            self.remember(place, shard, known)
        return known


def _by_name(shard: Shard) -> tuple[str, int, int, str]:
    name = FileName.parse(shard.name)
    return ("", 0, 0, shard.name) if name is None else (name.topic, name.partition, name.first, shard.name)


def _same(one: Mapping[str, Offsets], other: Mapping[str, Offsets]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(rows, other[name]) for name, rows in one.items())


def with_shards(manifest: Manifest, shards: Iterable[Shard]) -> Manifest:
    """Return a manifest of some of the shards, without deletes."""
    return replace(manifest, shards=tuple(shards), deletes=None)
