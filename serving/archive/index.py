"""The index of ids: where the row of each id lies, so that a tombstone or a new vector can delete it.

One SQLite file for each partition, on a local disk, about 60 bytes a row; only SQLite's cache is in memory. A lost
index is rebuilt from the archive's ids. Ids are stored as BLAKE2b digests of 128 bits; no two are equal by chance.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from driftline.components.errors import StorageError
from driftline.components.storage.dataset.deletion_vectors import read_deletion_vectors
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.partitions import dataset_folders
from driftline.serving.archive.hourly_manifests import HourlyManifests, open_shards
from driftline.serving.archive.layout import model_of
from driftline.serving.archive.rows import PlacedRow, Tombstone

_IDS_AT_ONCE: Final = 500  # in one query; every SQLite takes at least 999 values
_ROWS_AT_ONCE: Final = 65_536
# Existing files have these names: `places` are paths, `standing` holds the id of the commit that was applied last.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS places (number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS ids (
    id BLOB NOT NULL, model TEXT NOT NULL, place INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (id, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS standing (one INTEGER PRIMARY KEY CHECK (one = 1), word TEXT NOT NULL);
"""

Location = tuple[str, int]
"""The path of a dataset, and the offset of a row in it."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """The effect of some events on the rows of their ids.

    Attributes:
        deleted: offsets of rows to delete, by path; rows of the events themselves can be among them.
        current: for each digest and model where the row is now; None where the id is deleted.
    """

    deleted: dict[str, list[int]]
    current: dict[tuple[bytes, str], Location | None]


class IdIndex:
    """The ids of one partition.

    Args:
        file: a local file, made where it is missing.

    Raises:
        StorageError: it cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._opened()
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{file}: the index of ids cannot be opened ({error}); choose another folder") from error
        self._path_numbers: dict[str, int] = {}

    def _opened(self) -> sqlite3.Connection:
        database = self._connected()
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
        except sqlite3.DatabaseError:  # damaged, or not a database: it can be rebuilt
            database.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._file}{suffix}").unlink(missing_ok=True)
            database = self._connected()
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_SCHEMA)
        return database

    def _connected(self) -> sqlite3.Connection:
        # One thread at a time uses it, not always the same one.
        return sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def applied_commit(self) -> str:
        """The id of the commit that was applied last; empty for a new index."""
        found = self._database.execute("SELECT word FROM standing").fetchone()
        return "" if found is None else str(found[0])

    def mark_applied(self, commit_id: str) -> None:
        """Record that the index is up to date with a commit."""
        self._database.execute("INSERT OR REPLACE INTO standing VALUES (1, ?)", (commit_id,))

    def rebuild(self, rows: Iterable[tuple[str, Sequence[str], Sequence[int]]], commit_id: str) -> int:
        """Replace the content by the rows of an archive.

        Args:
            rows: paths, ids and offsets.
            commit_id: of the archive's last commit.

        Returns:
            The number of rows.
        """
        self._path_numbers.clear()
        count = 0
        with self._transaction():
            for table in ("ids", "places", "standing"):
                self._database.execute(f"DELETE FROM {table}")
            for path, ids, offsets in rows:
                number, model = self._number(path), model_of(path)
                self._database.executemany(
                    # An id can be there twice, while only some of a commit's changes are applied; the later row counts.
                    "INSERT INTO ids VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET place = excluded.place, "
                    "offset = excluded.offset WHERE excluded.offset > offset",
                    ((digest(name), model, number, offset) for name, offset in zip(ids, offsets, strict=True)),
                )
                count += len(ids)
            self.mark_applied(commit_id)
        return count

    def superseded(self, events: Sequence[PlacedRow | Tombstone]) -> Superseded:
        """Return the effect of events, in the order of their offsets; the index stays as it is."""
        digests = [digest(event.id) for event in events]
        models: dict[bytes, dict[str, Location]] = defaultdict(dict)
        for name, model, path, offset in self._found(digests):
            models[name][model] = (path, offset)
        deleted: dict[str, list[int]] = defaultdict(list)
        current: dict[tuple[bytes, str], Location | None] = {}
        for name, event in zip(digests, events, strict=True):
            there = models[name]
            if isinstance(event, Tombstone):
                gone = list(there)
            else:
                gone = [model_of(event.path)] if model_of(event.path) in there else []
            for model in gone:
                path, offset = there.pop(model)
                deleted[path].append(offset)
                current[name, model] = None
            if not isinstance(event, Tombstone):
                there[model_of(event.path)] = (event.path, event.row.offset)
                current[name, model_of(event.path)] = (event.path, event.row.offset)
        return Superseded(deleted, current)

    def apply(self, superseded: Superseded, commit_id: str) -> None:
        """Apply what :meth:`superseded` returned, and mark the commit as applied: all or nothing."""
        with self._transaction():
            self._database.executemany(
                "DELETE FROM ids WHERE id = ? AND model = ?",
                (key for key, location in superseded.current.items() if location is None),
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO ids VALUES (?, ?, ?, ?)",
                (
                    (name, model, self._number(location[0]), location[1])
                    for (name, model), location in superseded.current.items()
                    if location is not None
                ),
            )
            self.mark_applied(commit_id)

    def _found(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, str, str, int]]:
        unique = list(dict.fromkeys(digests))
        for start in range(0, len(unique), _IDS_AT_ONCE):
            some = unique[start : start + _IDS_AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from self._database.execute(
                "SELECT id, model, places.name, offset FROM ids JOIN places ON places.number = ids.place "
                f"WHERE id IN ({marks})",
                some,
            )

    def _number(self, path: str) -> int:
        if path not in self._path_numbers:
            self._database.execute("INSERT OR IGNORE INTO places (name) VALUES (?)", (path,))
            found = self._database.execute("SELECT number FROM places WHERE name = ?", (path,)).fetchone()
            self._path_numbers[path] = int(found[0])
        return self._path_numbers[path]

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            self._path_numbers.clear()
            raise
        self._database.execute("COMMIT")


def digest(name: str) -> bytes:
    """Return an id's digest."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def archived_rows(out: str, manifests: HourlyManifests, pool: Executor) -> Iterator[tuple[str, list[str], list[int]]]:
    """Yield the rows of one partition that readers see, as paths, ids and offsets.

    Reads every manifest of the archive, and the ids and offsets in this partition's files.

    Args:
        out: the archive's folder.
        manifests: of the partition.
        pool: threads that wait for storage.

    Raises:
        DataError: something in the archive is damaged.
        StorageError: something cannot be read.
    """
    paths = dataset_folders(out)

    def owned(path: str) -> tuple[Manifest | None, list[Shard]]:
        manifest = manifests.read(path)
        return manifest, [] if manifest is None else [shard for _, shard in manifests.own(manifest.shards)]

    for path, (manifest, shards) in zip(paths, pool.map(owned, paths), strict=True):
        if manifest is None or not shards:
            continue
        folder = manifests.folder(path)
        dataset, rows = open_shards(folder, manifest, shards, read_deletion_vectors(folder, manifest))
        for batch in dataset.batches(("id", "offset"), rows, _ROWS_AT_ONCE):
            yield path, batch.ids, batch.table.column("offset").to_pylist()
