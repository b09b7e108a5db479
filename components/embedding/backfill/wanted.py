"""Which kept texts an incremental run embeds: a bit for each, in one file beside the plan."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.embedding.backfill.cutting import ShardWork, Slice
from driftline.components.errors import DAMAGED_ARCHIVE, DataError
from driftline.components.storage.objects.store import create, exists, read_bytes


class Wanted:
    """The texts of each source that are wanted.

    Memory: 8 bytes a wanted text.

    Args:
        masks: for each source whether each of its kept texts, in order, is wanted.
    """

    def __init__(self, masks: Sequence[NDArray[np.bool_]]) -> None:
        self._lengths = [len(mask) for mask in masks]
        self._places: list[NDArray[np.int64]] = [np.flatnonzero(mask) for mask in masks]

    def of(self, piece: Slice) -> NDArray[np.int64]:
        """Return the numbers of a slice's texts among the kept texts of its rows, from 0, ascending."""
        places = self._places[piece.source]
        first = int(np.searchsorted(places, piece.before)) + piece.skip
        return places[first : first + piece.texts] - piece.before

    def counts(self, source: int, kept: Sequence[int]) -> list[int]:
        """Return how many are wanted in each of consecutive runs of so many kept texts of a source."""
        ends = np.cumsum([0, *kept])
        return np.diff(np.searchsorted(self._places[source], ends)).tolist()

    def marked(self, work: ShardWork) -> ShardWork:
        """Return a shard's work with the identity of its wanted texts."""
        return dataclasses.replace(work, wanted=self._digest(work))

    def check(self, work: ShardWork, place: str) -> None:
        """Raise DataError unless a shard's wanted texts are those that were planned."""
        if self._digest(work) != work.wanted:
            raise DataError(f"{place}: is not what was planned; run the backfill again")

    def _digest(self, work: ShardWork) -> str:
        digest = hashlib.sha256()
        for piece in work.slices:
            digest.update(self.of(piece).astype("<i8").tobytes())
        return digest.hexdigest()[:32]

    def write(self, uri: str) -> None:
        """Write the bits to a file."""
        masks: dict[str, NDArray[np.uint8]] = {}
        for number, (places, length) in enumerate(zip(self._places, self._lengths, strict=True)):
            mask = np.zeros(length, np.bool_)
            mask[places] = True
            masks[f"{number:08d}"] = np.packbits(mask)
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **masks)
        with create(uri) as handle:
            handle.write(content.getvalue())

    @classmethod
    def read(cls, uri: str) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: it is gone or damaged.
            StorageError: it cannot be read.
        """
        if not exists(uri):
            raise DataError(f"{uri}: has been removed, as a run that finishes does; run the backfill again")
        try:
            with np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False) as file:
                return cls([np.unpackbits(file[name]).astype(np.bool_) for name in sorted(file.files)])
        except DAMAGED_ARCHIVE as error:
            raise DataError(f"{uri}: is damaged ({error}); run the backfill again") from error
