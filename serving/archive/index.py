"""Where the row of each id lies: what a tombstone or a new vector of the same id takes out of older hours.

One SQLite file a partition, on a local disk, some 60 bytes a row; in memory only SQLite's cache. It can be lost: it is
made anew from the archive's ids. Ids are known by their BLAKE2b digests of 128 bits; none agree by chance.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from driftline.components.errors import StorageError
from driftline.serving.archive.events import Tombstone
from driftline.serving.archive.layout import model_of
from driftline.serving.archive.pending import PlacedRow

_AT_ONCE: Final = 500  # ids in one query; SQLite takes 999 values at least
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS places (number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS ids (
    id BLOB NOT NULL, model TEXT NOT NULL, place INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (id, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS standing (one INTEGER PRIMARY KEY CHECK (one = 1), word TEXT NOT NULL);
"""

Place = tuple[str, int]
"""A place of the archive, and a row's offset."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """What a number of events changes for the rows of ids.

    Attributes:
        deleted: offsets of rows to leave out, by place; those of the events themselves included.
        now: for each digest and model where the row is now; None where the id is deleted.
        unknown: tombstones of ids that had no row.
    """

    deleted: dict[str, list[int]]
    now: dict[tuple[bytes, str], Place | None]
    unknown: int


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
        self._places: dict[str, int] = {}

    def _opened(self) -> sqlite3.Connection:
        database = self._connected()
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
        except sqlite3.DatabaseError:  # damaged, or no database: it can be made anew
            database.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._file}{suffix}").unlink(missing_ok=True)
            database = self._connected()
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_SCHEMA)
        return database

    def _connected(self) -> sqlite3.Connection:
        # One thread at a time uses it, which need not always be the same.
        return sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def standing(self) -> str:
        """The word of the commit that the index is as of; empty for a new one."""
        found = self._database.execute("SELECT word FROM standing").fetchone()
        return "" if found is None else str(found[0])

    def stand(self, word: str) -> None:
        """Say which commit the index is as of."""
        self._database.execute("INSERT OR REPLACE INTO standing VALUES (1, ?)", (word,))

    def rebuild(self, rows: Iterable[tuple[str, Sequence[str], Sequence[int]]], word: str) -> int:
        """Forget all, and take in the rows of an archive.

        Args:
            rows: places, ids and offsets.
            word: of the commit that the archive is as of.

        Returns:
            How many rows there are.
        """
        self._places.clear()
        count = 0
        with self._transaction():
            for table in ("ids", "places", "standing"):
                self._database.execute(f"DELETE FROM {table}")
            for place, ids, offsets in rows:
                number, model = self._number(place), model_of(place)
                self._database.executemany(
                    # Of an id that is there twice, while a commit's changes were half made, the later row counts.
                    "INSERT INTO ids VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET place = excluded.place, "
                    "offset = excluded.offset WHERE excluded.offset > offset",
                    ((digest(name), model, number, offset) for name, offset in zip(ids, offsets, strict=True)),
                )
                count += len(ids)
            self.stand(word)
        return count

    def superseded(self, events: Sequence[PlacedRow | Tombstone]) -> Superseded:
        """Return what events, in the order of their offsets, take out of the archive; nothing is changed here."""
        digests = [digest(event.id) for event in events]
        models: dict[bytes, dict[str, Place]] = defaultdict(dict)
        for name, model, place, offset in self._found(digests):
            models[name][model] = (place, offset)
        deleted: dict[str, list[int]] = defaultdict(list)
        now: dict[tuple[bytes, str], Place | None] = {}
        unknown = 0
        for name, event in zip(digests, events, strict=True):
            there = models[name]
            if isinstance(event, Tombstone):
                unknown += not there
                gone = list(there)
            else:
                gone = [model_of(event.place)] if model_of(event.place) in there else []
            for model in gone:
                place, offset = there.pop(model)
                deleted[place].append(offset)
                now[name, model] = None
            if not isinstance(event, Tombstone):
                there[model_of(event.place)] = (event.place, event.row.offset)
                now[name, model_of(event.place)] = (event.place, event.row.offset)
        return Superseded(deleted, now, unknown)

    def absorb(self, superseded: Superseded, word: str) -> None:
        """Take over what :meth:`superseded` found, as of the commit `word`: all or nothing."""
        with self._transaction():
            self._database.executemany(
                "DELETE FROM ids WHERE id = ? AND model = ?",
                (key for key, place in superseded.now.items() if place is None),
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO ids VALUES (?, ?, ?, ?)",
                (
                    (name, model, self._number(place[0]), place[1])
                    for (name, model), place in superseded.now.items()
                    if place is not None
                ),
            )
            self.stand(word)

    def _found(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, str, str, int]]:
        unique = list(dict.fromkeys(digests))
        for start in range(0, len(unique), _AT_ONCE):
            some = unique[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from self._database.execute(
                "SELECT id, model, places.name, offset FROM ids JOIN places ON places.number = ids.place "
                f"WHERE id IN ({marks})",
                some,
            )

    def _number(self, place: str) -> int:
        if place not in self._places:
            self._database.execute("INSERT OR IGNORE INTO places (name) VALUES (?)", (place,))
            found = self._database.execute("SELECT number FROM places WHERE name = ?", (place,)).fetchone()
            self._places[place] = int(found[0])
        return self._places[place]

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            self._places.clear()
            raise
        self._database.execute("COMMIT")


def digest(name: str) -> bytes:
    """Return an id's digest."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
