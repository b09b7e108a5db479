"""The rows of one shard, streamed from the texts, twice where that is needed."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.components.embedding.backfill.cutting import Slice
from driftline.components.embedding.backfill.incremental import ChangedTexts
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.errors import DataError
from driftline.components.storage.texts.reading import read_texts

BATCH_ROWS: Final = 1024

# Rows of a shard that are kept in memory rather than read again: enough for most, since a shard's texts have 64 MiB.
_HELD_BYTES: Final = 128 << 20


class ShardTexts:
    """The rows that a shard is made of: `id`, `text` and the carried columns.

    Memory: 128 MiB of rows; what a shard has beyond that is read again by a second pass.

    Args:
        plan: the plan.
        number: the shard's.
        changed: which of the kept texts are taken, in an incremental run.
    """

    def __init__(self, plan: BackfillPlan, number: int, changed: ChangedTexts | None) -> None:
        self._plan = plan
        self._number = number
        self._changed = changed
        self._schema = plan.schema
        self._held: list[pa.RecordBatch] | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the shard's rows in order.

        Raises:
            DataError: the texts are not those that were planned.
            StorageError: they cannot be read.
        """
        if self._held is not None:
            yield from self._held
            return
        held: list[pa.RecordBatch] = []
        size = rows = 0
        for piece in self._plan.shards[self._number].slices:
            for batch in self._slice(piece):
                rows += batch.num_rows
                size += batch.nbytes
                if size <= _HELD_BYTES:
                    held.append(batch)
                else:
                    held.clear()
                yield batch
        if size <= _HELD_BYTES:
            self._held = held

    def _slice(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        source = self._plan.sources[piece.source]
        picked = None if self._changed is None else self._changed.of(piece)
        first = 0  # kept texts read so far
        taken = 0
        stop = piece.skip + piece.texts
        reading = read_texts(
            source,
            self._plan.columns,
            selection=self._plan.selection,
            start=piece.start,
            rows=piece.rows,
            batch_rows=BATCH_ROWS,
            schema=self._schema,
        )
        with closing(reading):
            for batch in reading:
                part = _part(batch, first, piece.skip, stop) if picked is None else _picked(batch, first, picked)
                first += batch.num_rows
                taken += part.num_rows
                if part.num_rows:
                    yield part
                if taken == piece.texts:
                    break  # the rest of the rows are the next shard's
        if taken != piece.texts:
            raise DataError(
                f"{source.uri}: rows {piece.start + 1} to {piece.start + piece.rows}: expected {piece.texts} texts, "
                f"got {taken}: the file has changed since it was scanned; run the backfill again"
            )


def _part(batch: pa.RecordBatch, first: int, start: int, stop: int) -> pa.RecordBatch:
    """Return those rows of a batch, whose first row has the number `first`, that are in [start, stop)."""
    low = min(max(start - first, 0), batch.num_rows)
    high = min(max(stop - first, 0), batch.num_rows)
    return batch.slice(low, high - low)


def _picked(batch: pa.RecordBatch, first: int, picked: NDArray[np.int64]) -> pa.RecordBatch:
    """Return those rows of a batch, whose first row has the number `first`, that are among `picked`, ascending."""
    low, high = np.searchsorted(picked, [first, first + batch.num_rows])
    if high - low == batch.num_rows:
        return batch
    return batch.take(pa.array(picked[low:high] - first))
