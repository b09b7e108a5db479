"""Compaction: small files of one partition and hour become one large file, without the deleted rows."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.components.storage.dataset.deletion_vectors import read_deletion_vectors
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.writer import write_shard
from driftline.components.storage.objects import store
from driftline.serving.archive.hourly_manifests import HourlyManifests, open_shards
from driftline.serving.archive.layout import FileName
from driftline.serving.archive.settings import FileLimits
from driftline.serving.archive.state import HourChange

Rows = NDArray[np.int64]

_WORTH_REWRITING: Final = 0.1
"""Share of deleted rows in a file from which on it is rewritten even alone."""
_NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(slots=True)
class CompactionGroup:
    """Neighbouring files that one file can replace.

    Attributes:
        files: names and shards, by ascending offsets.
        live: their rows that readers see.
        bytes: of the files together.
        deleted: their rows that readers do not see.
    """

    files: list[tuple[FileName, Shard]] = field(default_factory=list[tuple[FileName, Shard]])
    live: int = 0
    bytes: int = 0
    deleted: int = 0

    def is_worthwhile(self, *, purge: bool) -> bool:
        """Return whether there are files to merge, or enough deleted rows; any deleted row is enough for `purge`."""
        enough = 0.0 if purge else _WORTH_REWRITING * (self.live + self.deleted)
        return len(self.files) > 1 or (self.deleted > 0 and self.deleted >= enough)


def compaction_groups(
    files: Sequence[tuple[FileName, Shard]], deletes: Mapping[str, Rows], rows: int, max_bytes: int
) -> list[CompactionGroup]:
    """Return all files, grouped by what one file can replace.

    Args:
        files: one partition's files in one dataset, by ascending offsets.
        deletes: deleted rows of each.
        rows: most rows of a compacted file, unless the first of its files has more by itself.
        max_bytes: most bytes of the files that become one, with the same exception.
    """
    found: list[CompactionGroup] = []
    for name, shard in files:
        deleted = len(deletes.get(shard.name, _NO_ROWS))
        live = shard.rows - deleted
        last = found[-1] if found else None
        if last is None or last.live + live > rows or last.bytes + shard.bytes > max_bytes:
            last = CompactionGroup()
            found.append(last)
        last.files.append((name, shard))
        last.live += live
        last.bytes += shard.bytes
        last.deleted += deleted
    return found


def compact(
    manifests: HourlyManifests, path: str, limits: FileLimits, commit: int, expired: Collection[str], *, purge: bool
) -> tuple[HourChange, int, list[str]]:
    """Write the large files of a partition for one hourly dataset.

    Args:
        manifests: of the partition.
        path: the dataset's.
        limits: of a file.
        commit: number of the commit that the files are for.
        expired: names of files in the dataset's folder that are known to have expired.
        purge: whether to take out every deleted row, and not only where it is worth the rewriting.

    Returns:
        The change, the number of deleted rows that stay in files, and names of files that no commit can ever name:
        the remains of attempts that failed.

    Raises:
        DataError: a file is missing or damaged.
        StorageError: a file cannot be read or written.
    """
    manifest = manifests.read(path)
    if manifest is None:
        return HourChange(path), 0, []
    folder = manifests.folder(path)
    deletes = read_deletion_vectors(folder, manifest)
    added: list[Shard] = []
    removed: list[str] = []
    left = 0
    for group in compaction_groups(manifests.own(manifest.shards), deletes, limits.rows, limits.bytes):
        # A dataset keeps at least one shard.
        is_last = not group.live and len(group.files) + len(removed) >= len(manifest.shards) + len(added)
        if is_last or not group.is_worthwhile(purge=purge):
            left += group.deleted
            continue
        shard = _rewrite(folder, manifest, deletes, group, commit)
        added += [] if shard is None else [shard]
        removed += [old.name for _, old in group.files]
    kept = {*expired, *(shard.name for shard in manifest.shards)}
    names = [file.uri.rpartition("/")[2] for file in store.list_files(folder)]
    orphans = [name for name in names if name not in kept and _is_past(manifests, name, commit)]
    return HourChange(path, tuple(added), tuple(removed)), left, orphans


def _is_past(manifests: HourlyManifests, name: str, commit: int) -> bool:
    # An earlier commit cannot happen any more: a former owner is fenced.
    parsed = FileName.parse(name)
    return parsed is not None and manifests.is_own(parsed) and parsed.commit < commit


def key_of(name: FileName) -> str:
    """Return a file's key: where its rows come from."""
    return f"{name.topic}/{name.partition}/{name.first}"


def _rewrite(
    folder: str, manifest: Manifest, deletes: Mapping[str, Rows], group: CompactionGroup, commit: int
) -> Shard | None:
    """Write the file that replaces a group; None where all of its rows are deleted.

    Files are compared with their checksums as they are read. Memory: what is read ahead, and two row groups.
    """
    if not group.live:
        return None
    first, last = group.files[0][0], group.files[-1][0]
    name = FileName(first.topic, first.partition, first.first, last.last, commit)
    dataset, rows = open_shards(folder, manifest, [shard for _, shard in group.files], deletes)
    return write_shard(
        folder,
        str(name),
        _batches(dataset, rows),
        dimension=manifest.dimension,
        dtype=manifest.dtype,
        key=key_of(name),
    )


def _batches(dataset: EmbeddingsDataset, rows: Rows) -> Iterator[pa.RecordBatch]:
    columns = ("id", "embedding", *dataset.manifest.columns)
    for batch in dataset.batches(columns, rows):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.embeddings.ravel()), dataset.dimension)
        yield from batch.table.append_column("embedding", vectors).combine_chunks().to_batches()
