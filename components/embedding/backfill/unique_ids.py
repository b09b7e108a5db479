"""Whether every id of a dataset is there once."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.storage.dataset.reader import EmbeddingsDataset

_ROWS_AT_ONCE: Final = 8192


def check_ids_once(dataset: EmbeddingsDataset) -> None:
    """Refuse a dataset in which two rows have one id.

    Memory: 8 bytes a row, 16 while they are sorted: hashes, and the ids only of those that agree.

    Raises:
        DataError: an id is there twice, or a shard is damaged.
        StorageError: a shard cannot be read.
    """
    hashes = np.empty(dataset.rows, np.int64)
    filled = 0
    for _, ids in _ids(dataset):
        hashes[filled : filled + len(ids)] = _hashes(ids)
        filled += len(ids)
    hashes.sort()
    twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    del hashes
    if not len(twice):
        return
    places: dict[str, int] = {}
    for first, ids in _ids(dataset):
        for index in np.flatnonzero(np.isin(_hashes(ids), twice)).tolist():
            row = places.setdefault(ids[index], first + index)
            if row != first + index:
                raise DataError(
                    f"{dataset.uri}: id {ids[index][:60]!r} is that of row {row + 1} and of row {first + index + 1}; "
                    "run the backfill again, and let one run at a time write to a dataset"
                )


def _ids(dataset: EmbeddingsDataset) -> Iterator[tuple[int, list[str]]]:
    for batch in dataset.batches(("id",), batch_rows=_ROWS_AT_ONCE):
        yield int(batch.rows[0]), batch.ids


def _hashes(ids: list[str]) -> NDArray[np.int64]:
    # Python's hash of a string: 64 bits, keyed anew in each process.
    return np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
