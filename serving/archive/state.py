"""The state of one partition: one small object, replaced only over the version that was read."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from driftline.components.errors import DriftlineError
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.owned_object import OwnedObject, Replacement
from driftline.components.storage.objects.values import read_value, value_bytes
from driftline.serving.archive.layout import STATE_FOLDER

_TRIES: Final = 10


class FencedError(DriftlineError):
    """Another worker has taken the partition over; this one has changed nothing since."""


@dataclass(frozen=True, slots=True)
class HourChange:
    """The changes that one commit makes in the dataset of one hour and model.

    Attributes:
        path: the dataset's, within the archive; ``place`` in the state's JSON.
        added: files of rows that become part of it.
        removed: names of this partition's files that the added ones replace.
        deleted: offsets of this partition's rows that readers leave out from now on.
    """

    path: Annotated[str, Field(alias="place")]
    added: tuple[Shard, ...] = ()
    removed: tuple[str, ...] = ()
    deleted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CompactionCandidate:
    """An hourly dataset whose files of this partition may be compacted: small ones merged, deleted rows taken out.

    Attributes:
        path: the dataset's, within the archive; ``place`` in the state's JSON.
        touched_ms: when the files changed last, milliseconds since 1970 UTC.
        since_ms: when they first changed after the last compaction.
        waits: whether only a few deleted rows are left, which can wait for more.
    """

    path: Annotated[str, Field(alias="place")]
    touched_ms: int
    since_ms: int
    waits: bool = False


@dataclass(frozen=True, slots=True)
class ExpiredFile:
    """A file, within the archive, that no manifest has named since `since_ms` (since 1970 UTC)."""

    file: str
    since_ms: int

    @property
    def path(self) -> str:
        """The path of the dataset that it was part of."""
        return self.file.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.file.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition as of its last commit.

    Attributes:
        topic: its topic.
        partition: its number.
        owner: who made the commit: drawn at random each time that the partition is opened.
        commit: number of the commit.
        next_offset: the offset to go on at; everything below is archived once the changes are applied.
        changes: the changes of the commit, applied already or not.
        candidates: hourly datasets to compact; ``untidy`` in the JSON.
        expired: files to remove; ``garbage`` in the JSON.
        format: distinguishes it from other JSON.
    """

    __pydantic_config__ = ConfigDict(serialize_by_alias=True)

    topic: str
    partition: int
    owner: str
    commit: int
    next_offset: int
    changes: tuple[HourChange, ...] = ()
    candidates: Annotated[tuple[CompactionCandidate, ...], Field(alias="untidy")] = ()
    expired: Annotated[tuple[ExpiredFile, ...], Field(alias="garbage")] = ()
    format: Literal["driftline.archive/1"] = "driftline.archive/1"


class StateFile:
    """The object that holds a partition's state, as its present owner knows it.

    Made by :meth:`take_over`. After an error of the store it is not known whether the last commit happened; taking the
    partition over again finds out.

    Attributes:
        uri: where it is.
        state: the state.
    """

    def __init__(self, owned: OwnedObject, state: PartitionState) -> None:
        self.uri = owned.uri
        self.state = state
        self._object = owned

    @staticmethod
    def locate(out: str, topic: str, partition: int) -> str:
        """Return the URI of a partition's state in an archive."""
        return store.join(out, STATE_FOLDER, topic, f"{partition:05d}.json")

    @classmethod
    def take_over(cls, out: str, topic: str, partition: int) -> tuple[StateFile, PartitionState | None]:
        """Become the partition's owner: from here on no earlier owner can change anything.

        Returns:
            The state, and the one before it; None where the partition is new.

        Raises:
            FencedError: others take it over again and again.
            DataError: the object there is not a state.
            StorageError: it cannot be read or written.
        """
        uri = cls.locate(out, topic, partition)
        owner = secrets.token_hex(8)
        for _ in range(_TRIES):
            owned = OwnedObject.look_up(uri)
            before = None if owned.seen is None else read_value(uri, PartitionState)
            after = (
                PartitionState(topic, partition, owner, 1, 0)
                if before is None
                else dataclasses.replace(before, owner=owner, commit=before.commit + 1)
            )
            if owned.replace(value_bytes(uri, after)) is not Replacement.LOST:
                return cls(owned, after), before
        raise FencedError(
            f"{uri}: was taken over by others {_TRIES} times in a row; let one archive at a time write to a folder"
        )

    def check_owned(self) -> None:
        """Check that the state is still the one that was committed last.

        Raises:
            FencedError: another worker has taken the partition over.
            StorageError: it cannot be known.
        """
        if not self.is_current():
            raise self._fenced()

    def is_current(self) -> bool:
        """Return whether the state is still the one that was committed last.

        Raises:
            StorageError: it cannot be known.
        """
        return self._object.is_current()

    def commit(self, state: PartitionState) -> None:
        """Replace the state; once this returns, the commit has happened.

        Raises:
            FencedError: another worker has taken the partition over; nothing was changed.
            StorageError: it is not known whether the commit happened.
        """
        if self._object.replace(value_bytes(self.uri, state)) is Replacement.LOST:
            raise self._fenced()
        self.state = state

    def _fenced(self) -> FencedError:
        return FencedError(
            f"{self.uri}: another worker has taken the partition over; it goes on from what is committed"
        )
