"""Ids that are there twice among any number of rows, found by their hashes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

# Equal hashes that are looked into at a time: bounds the memory of the second pass where every id is there twice.
_CANDIDATES_AT_ONCE: Final = 1 << 16

P = TypeVar("P")


class Twice(NamedTuple, Generic[P]):
    """An id that is there twice: itself, its first place, and the next one."""

    id: str
    first: P
    second: P


class UniqueIds:
    """Finds an id that is there twice.

    Memory: 8 bytes a row while adding, 16 in `find_twice` while they are sorted: hashes, and the ids only of those that
    agree.
    """

    def __init__(self) -> None:
        self._hashes: list[NDArray[np.int64]] = []

    def add(self, ids: Collection[str]) -> None:
        """Remember the ids of some rows, as 64-bit hashes."""
        self._hashes.append(_hashes(ids))

    def find_twice(self, read_again: Callable[[], Iterable[tuple[Sequence[str], Sequence[P]]]]) -> Twice[P] | None:
        """Return an id that is there twice, or None; what was added is then forgotten.

        Args:
            read_again: reads all rows once more, ids and the place of each: called only where two hashes are equal.
        """
        hashes = np.concatenate([np.empty(0, np.int64), *self._hashes])
        self._hashes.clear()
        hashes.sort()
        equal = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        del hashes
        for begin in range(0, len(equal), _CANDIDATES_AT_ONCE):
            seen: dict[str, P] = {}
            for ids, places in read_again():
                for row in np.flatnonzero(np.isin(_hashes(ids), equal[begin : begin + _CANDIDATES_AT_ONCE])).tolist():
                    if ids[row] in seen:
                        return Twice(ids[row], seen[ids[row]], places[row])
                    seen[ids[row]] = places[row]
        return None


def _hashes(ids: Collection[str]) -> NDArray[np.int64]:
    # Python's hash of a string: 64 bits, keyed anew in each process, so that no input can be built to collide.
    return np.fromiter(map(hash, ids), np.int64, len(ids))
