"""Small files of one partition and hour become one large file, without the rows that readers leave out."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.components.storage.dataset.deletion_vectors import read_deletes
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.reader import EmbeddingsDataset, write_shard
from driftline.components.storage.objects import store
from driftline.serving.archive.hourly_manifests import Hours, with_shards
from driftline.serving.archive.layout import FileName
from driftline.serving.archive.rows import live_rows
from driftline.serving.archive.settings import FileLimits
from driftline.serving.archive.state import PlaceChange

Rows = NDArray[np.int64]

_WORTH: Final = 0.1
"""Share of a file's rows that are left out from which on it is written anew by itself."""
_NONE: Rows = np.empty(0, np.int64)


@dataclass(slots=True)
class Merger:
    """Neighbouring files that one file can stand for.

    Attributes:
        files: names and shards, by ascending offsets.
        live: rows of them that readers see.
        bytes: of the files together.
        deleted: rows of them that readers do not see.
    """

    files: list[tuple[FileName, Shard]] = field(default_factory=list[tuple[FileName, Shard]])
    live: int = 0
    bytes: int = 0
    deleted: int = 0

    def is_useful(self, *, purge: bool) -> bool:
        """Say whether there are files to merge, or enough rows to take out; any row is enough for `purge`."""
        enough = 0.0 if purge else _WORTH * (self.live + self.deleted)
        return len(self.files) > 1 or (self.deleted > 0 and self.deleted >= enough)


def mergers(
    files: Sequence[tuple[FileName, Shard]], deletes: Mapping[str, Rows], rows: int, max_bytes: int
) -> list[Merger]:
    """Return all files, those together that one file can stand for.

    Args:
        files: one partition's files in one place, by ascending offsets.
        deletes: rows of each that readers leave out.
        rows: of a merged file at most, where its first file does not have more by itself.
        max_bytes: of the files that are merged into one, likewise.
    """
    found: list[Merger] = []
    for name, shard in files:
        deleted = len(deletes.get(shard.name, _NONE))
        live = shard.rows - deleted
        last = found[-1] if found else None
        if last is None or last.live + live > rows or last.bytes + shard.bytes > max_bytes:
            last = Merger()
            found.append(last)
        last.files.append((name, shard))
        last.live += live
        last.bytes += shard.bytes
        last.deleted += deleted
    return found


def merged(
    hours: Hours, place: str, limits: FileLimits, commit: int, garbage: Collection[str], *, purge: bool
) -> tuple[PlaceChange, int, list[str]]:
    """Write the large files of a partition in one place.

    Args:
        hours: of the partition.
        place: the folder within the archive.
        limits: of a file.
        commit: number of the commit that the files are for.
        garbage: names of files in the place that are known to be garbage.
        purge: whether every row that is left out is to go, and not only where it is worth the writing.

    Returns:
        The change, how many rows that are left out stay in files, and names of files that no commit can ever name:
        what attempts that failed have left.

    Raises:
        DataError: a file is missing or damaged.
        StorageError: one cannot be read or written.
    """
    manifest = hours.manifest(place)
    if manifest is None:
        return PlaceChange(place), 0, []
    folder = hours.folder(place)
    deletes = read_deletes(folder, manifest)
    added: list[Shard] = []
    removed: list[str] = []
    left = 0
    for merger in mergers(hours.own(manifest.shards), deletes, limits.rows, limits.bytes):
        # A dataset has a shard at least.
        is_last = not merger.live and len(merger.files) + len(removed) >= len(manifest.shards) + len(added)
        if is_last or not merger.is_useful(purge=purge):
            left += merger.deleted
            continue
        shard = merge(folder, manifest, deletes, merger, commit)
        added += [] if shard is None else [shard]
        removed += [old.name for _, old in merger.files]
    kept = {*garbage, *(shard.name for shard in manifest.shards)}
    names = [file.uri.rpartition("/")[2] for file in store.list_files(folder)]
    orphans = [name for name in names if name not in kept and _is_past(hours, name, commit)]
    return PlaceChange(place, tuple(added), tuple(removed)), left, orphans


def _is_past(hours: Hours, name: str, commit: int) -> bool:
    # Nobody can make an earlier commit any more: its owner, if it is another one, has been shut out.
    parsed = FileName.parse(name)
    return parsed is not None and hours.is_own(parsed) and parsed.commit < commit


def key_of(name: FileName) -> str:
    """Return what a file's key says: where its rows come from."""
    return f"{name.topic}/{name.partition}/{name.first}"


def merge(folder: str, manifest: Manifest, deletes: Mapping[str, Rows], merger: Merger, commit: int) -> Shard | None:
    """Write the file that stands for others; None where none of their rows is seen.

    The files are compared with their checksums as they are read. Memory: what is read ahead, and two row groups.

    Args:
        folder: of the place.
        manifest: of the place.
        deletes: rows of each shard that readers leave out.
        merger: the files.
        commit: number of the commit that the file is for.

    Raises:
        DataError: a file is missing or damaged.
        StorageError: one cannot be read, or the new one not written.
    """
    if not merger.live:
        return None
    shards = [shard for _, shard in merger.files]
    first, last = merger.files[0][0], merger.files[-1][0]
    name = FileName(first.topic, first.partition, first.first, last.last, commit)
    dataset = EmbeddingsDataset(folder, with_shards(manifest, shards))
    return write_shard(
        folder,
        str(name),
        _batches(dataset, live_rows(shards, deletes)),
        dimension=manifest.dimension,
        dtype=manifest.dtype,
        key=key_of(name),
    )


def _batches(dataset: EmbeddingsDataset, rows: Rows) -> Iterator[pa.RecordBatch]:
    columns = ("id", "embedding", *dataset.manifest.columns)
    for batch in dataset.batches(columns, rows):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.embeddings.ravel()), dataset.dimension)
        yield from batch.table.append_column("embedding", vectors).combine_chunks().to_batches()
