"""No id twice, among any number of files."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from driftline.components.errors import DataError
from driftline.components.storage.texts.rows import RowBatch

# Equal hashes looked into at a time: bounds the memory of the second pass when every id is there twice.
_CANDIDATES_AT_ONCE = 1 << 16


class IdIndex:
    """Finds an id that is there twice, among any number of files.

    Memory: 8 bytes a row while adding, 16 in `check` while they are sorted.
    """

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.int64]] = []

    def add(self, ids: pa.Array) -> None:
        """Remember the ids of a batch (strings, no nulls), as 64-bit hashes."""
        self._hashes.append(_hashes(ids))

    def check(self, read_again: Callable[[], Iterator[tuple[str, RowBatch]]]) -> None:
        """Refuse ids that are there twice.

        Args:
            read_again: Reads all rows once more, each batch with its file: called only where two hashes are
                equal.

        Raises:
            DataError: An id is there twice; both places are named.
        """
        if not self._hashes:
            return
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        hashes.sort()
        twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        del hashes
        for begin in range(0, len(twice), _CANDIDATES_AT_ONCE):
            _check_candidates(twice[begin : begin + _CANDIDATES_AT_ONCE], read_again())


def _hashes(ids: pa.Array) -> npt.NDArray[np.int64]:
    # Python's hash of a string: 64 bits, keyed anew in each process, so that no input can be built to
    # collide.
    return np.fromiter(map(hash, ids.to_pylist()), dtype=np.int64, count=len(ids))


def _check_candidates(twice: npt.NDArray[np.int64], batches: Iterator[tuple[str, RowBatch]]) -> None:
    places: dict[str, tuple[str, int]] = {}
    for uri, batch in batches:
        for index in np.flatnonzero(np.isin(_hashes(batch.ids), twice)).tolist():
            key: str = batch.ids[index].as_py()
            here = (uri, int(batch.numbers[index]) + 1)
            before = places.setdefault(key, here)
            if before is not here:
                raise DataError(
                    f"{uri}: row {here[1]}: id {_shown(key)} is already that of row {before[1]} of {before[0]}; "
                    "give each text its own id, or remove one of the two"
                )


def _shown(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:57] + "...")
