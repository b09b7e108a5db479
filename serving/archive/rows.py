"""Which rows of a partition an archive holds: what the index of ids is made of where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.storage.dataset.deletion_vectors import read_deletes
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.partitions import dataset_folders
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.serving.archive.hourly_manifests import Hours, with_shards

Rows = NDArray[np.int64]

_ROWS_AT_ONCE: Final = 65_536
_NONE: Final[Rows] = np.empty(0, np.int64)


def live_rows(shards: Sequence[Shard], deletes: Mapping[str, Rows]) -> Rows:
    """Return which rows of some shards, numbered through, readers see: int64, ascending."""
    live: list[Rows] = [_NONE]
    first = 0
    for shard in shards:
        rows = np.setdiff1d(np.arange(shard.rows, dtype=np.int64), deletes.get(shard.name, _NONE), assume_unique=True)
        live.append(first + rows)
        first += shard.rows
    return np.concatenate(live)


def archived_rows(out: str, hours: Hours, pool: Executor) -> Iterator[tuple[str, list[str], list[int]]]:
    """Yield the rows of one partition that readers see, as places, ids and offsets.

    Reads every manifest of the archive, and of this partition's files the ids and offsets.

    Args:
        out: the archive's folder.
        hours: of the partition.
        pool: threads that wait for storage.

    Raises:
        DataError: something in the archive is damaged.
        StorageError: something cannot be read.
    """
    places = dataset_folders(out)

    def owned(place: str) -> tuple[Manifest | None, list[Shard]]:
        manifest = hours.manifest(place)
        return manifest, [] if manifest is None else [shard for _, shard in hours.own(manifest.shards)]

    for place, (manifest, shards) in zip(places, pool.map(owned, places), strict=True):
        if manifest is None or not shards:
            continue
        folder = hours.folder(place)
        rows = live_rows(shards, read_deletes(folder, manifest))
        dataset = EmbeddingsDataset(folder, with_shards(manifest, shards))
        for batch in dataset.batches(("id", "offset"), rows, _ROWS_AT_ONCE):
            yield place, batch.ids, batch.table.column("offset").to_pylist()
