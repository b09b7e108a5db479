"""What is known of one partition: one small object, replaced only over the version that was read."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Final, Literal

from driftline.components.errors import DriftlineError, StorageConflict
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import FileInfo
from driftline.components.storage.objects.values import read_value, write_value
from driftline.serving.archive.layout import STATE_FOLDER

_TRIES: Final = 10


class FencedError(DriftlineError):
    """Another worker has taken the partition over; what this one was about to change stays as it is."""


@dataclass(frozen=True, slots=True)
class PlaceChange:
    """What one commit changes in the dataset of one hour and model.

    Attributes:
        place: the dataset's folder within the archive.
        added: files of rows that become part of it.
        removed: names of this partition's files that the added ones stand for.
        deleted: offsets of this partition's rows that readers leave out from now on.
    """

    place: str
    added: tuple[Shard, ...] = ()
    removed: tuple[str, ...] = ()
    deleted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Untidy:
    """A place whose files of this partition are to be merged, or to be rid of rows that are left out.

    Attributes:
        place: its folder within the archive.
        touched_ms: when they changed last, milliseconds since 1970 UTC.
        since_ms: when they changed first, since there was nothing to do.
        waits: whether all that is left are a few rows, which can wait for more.
    """

    place: str
    touched_ms: int
    since_ms: int
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file, within the archive, that no manifest names any more since `since_ms` (since 1970 UTC)."""

    file: str
    since_ms: int

    @property
    def place(self) -> str:
        """The place that it lies in."""
        return self.file.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition as of its last commit.

    Attributes:
        topic: its topic.
        partition: its number.
        owner: who made the commit: a word that every opening of the partition draws anew.
        commit: number of the commit.
        next_offset: the offset to go on at; everything below is archived once the changes are made.
        changes: what the commit changes; made already or not.
        untidy: places to merge files in.
        garbage: files to remove.
        format: tells it from other JSON.
    """

    topic: str
    partition: int
    owner: str
    commit: int
    next_offset: int
    changes: tuple[PlaceChange, ...] = ()
    untidy: tuple[Untidy, ...] = ()
    garbage: tuple[Garbage, ...] = ()
    format: Literal["driftline.archive/1"] = "driftline.archive/1"


class StateFile:
    """The object that holds a partition's state, as its present owner knows it.

    Made by :meth:`take_over`. All errors of a store leave open whether the last commit happened: take over again to
    know.

    Attributes:
        uri: where it is.
        state: the state.
    """

    def __init__(self, uri: str, state: PartitionState, seen: FileInfo) -> None:
        self.uri = uri
        self.state = state
        self._seen = seen

    @staticmethod
    def place(out: str, topic: str, partition: int) -> str:
        """Return where a partition's state lies in an archive."""
        return store.join(out, STATE_FOLDER, topic, f"{partition:05d}.json")

    @classmethod
    def take_over(cls, out: str, topic: str, partition: int) -> tuple[StateFile, PartitionState | None]:
        """Become the partition's owner: from here on nobody who was it before can change anything.

        Returns:
            The state, and what it was before; None where the partition is new.

        Raises:
            FencedError: others take it over again and again.
            DataError: what is there is no state.
            StorageError: it cannot be read or written.
        """
        uri = cls.place(out, topic, partition)
        owner = secrets.token_hex(8)
        for _ in range(_TRIES):
            seen = store.stat(uri) if store.exists(uri) else None
            before = None if seen is None else read_value(uri, PartitionState)
            after = (
                PartitionState(topic, partition, owner, 1, 0)
                if before is None
                else dataclasses.replace(before, owner=owner, commit=before.commit + 1)
            )
            try:
                return cls(uri, after, _replaced(uri, after, seen)), before
            except FencedError:
                continue
        raise FencedError(
            f"{uri}: was taken over by others {_TRIES} times in a row; let one archive at a time write to a folder"
        )

    def check_owned(self) -> None:
        """Look whether the state is still the one that was committed last.

        Raises:
            FencedError: somebody else has taken the partition over.
            StorageError: it cannot be known.
        """
        if not self.is_current():
            raise _fenced(self.uri)

    def is_current(self) -> bool:
        """Say whether the state is still the one that was committed last.

        Raises:
            StorageError: it cannot be known.
        """
        return store.stat(self.uri).version == self._seen.version

    def commit(self, state: PartitionState) -> None:
        """Replace the state; once this returns, the commit has happened.

        Raises:
            FencedError: somebody else has taken the partition over; nothing was changed.
            StorageError: it is not known whether the commit happened.
        """
        self._seen = _replaced(self.uri, state, self._seen)
        self.state = state


def _replaced(uri: str, state: PartitionState, over: FileInfo | None) -> FileInfo:
    """Write a state over what was seen, and return the version that it has become."""
    conflict = None
    try:
        write_value(uri, state, over=over)
    except StorageConflict as error:
        conflict = error  # or our own attempt, whose answer was lost: what is there tells
    info = store.stat(uri)
    if read_value(uri, PartitionState) != state:
        raise _fenced(uri) from conflict
    return info


def _fenced(uri: str) -> FencedError:
    return FencedError(f"{uri}: another worker has taken the partition over; it goes on from what is committed")
