"""An object that one owner at a time replaces, each time over the version that it has seen, though answers get lost."""

from __future__ import annotations

import io
from enum import Enum
from typing import Self

from driftline.components.errors import StorageConflict
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import stream_crc32c
from driftline.components.storage.objects.store import FileInfo


class Replacement(Enum):
    """The outcome of a replacement.

    Attributes:
        WRITTEN: the content is there.
        ALREADY_OURS: the content is there, by an attempt of which the store had not told us that it came through.
        LOST: another owner's content is there, and stays.
    """

    WRITTEN = "written"
    ALREADY_OURS = "already ours"
    LOST = "lost"


class OwnedObject:
    """A compare-and-swap of a whole object that knows its own work again.

    The store replaces an object only if its version is the one that was seen. Its answer can get lost: the object is
    replaced, and the caller has an error; the next attempt then meets a version that nobody told it of. Whether that
    one is an earlier attempt of ours is decided by its size and CRC-32C, which are compared with those of all attempts
    since the last answer. So contents of different owners must differ, by a random mark for instance; where they do
    not, the same content by another owner counts as ours.

    For one thread at a time.

    Attributes:
        uri: where it is.
        seen: the version that the next replacement goes over; None where nothing is expected.
    """

    def __init__(self, uri: str, seen: FileInfo | None = None) -> None:
        self.uri = uri
        self.seen = seen
        self._attempts: set[tuple[int, str]] = set()

    @classmethod
    def look_up(cls, uri: str) -> Self:
        """Return the object as it is now, if there is one.

        Raises:
            StorageError: it cannot be known.
        """
        return cls(uri, store.find(uri))

    def is_current(self) -> bool:
        """Return whether the version seen is still there.

        Raises:
            StorageError: it cannot be known.
        """
        found = store.find(self.uri)
        return (found and found.version) == (self.seen and self.seen.version)

    def replace(self, content: bytes) -> Replacement:
        """Write a new content over the version seen, or over an attempt of ours whose answer was lost.

        After LOST nothing of ours is there, and every further attempt is lost as well: look the object up again.

        Raises:
            StorageError: it is not known whether the content was written; the next attempt finds out.
        """
        attempt = (len(content), stream_crc32c(io.BytesIO(content)))
        self._attempts.add(attempt)
        while True:
            try:
                store.write_bytes(self.uri, content, over=self.seen)
                outcome = Replacement.WRITTEN
            except StorageConflict:
                outcome = Replacement.ALREADY_OURS
            found = store.find(self.uri)
            there = None if found is None else (found.size, store.crc32c(found))
            if there not in self._attempts:
                return Replacement.LOST
            # None of the other attempts can come through any more, however late: what they would go over is gone.
            self.seen, self._attempts = found, {attempt}
            if there == attempt:
                return outcome
