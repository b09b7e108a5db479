"""Cuts a backfill's work by size: runs of consecutive texts become shards, and shards the shares of tasks."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from driftline.components.errors import UsageError

ROWS_PER_SHARD: Final = 50_000
"""At 384 dimensions in float32, 77 MB: large enough to read fast, small enough to check and to replace quickly."""

BYTES_PER_SHARD: Final = 64 << 20
"""UTF-8 bytes of texts in a shard, so that long texts do not make shards that take hours."""

# A run of rows that holds no text to embed, shorter than this, is read and dropped rather than cut out: the plan stays
# small however the texts to embed are spread.
_GAP_ROWS: Final = 65_536


class Piece(Protocol):
    """Consecutive rows of a file, as a scan counts them."""

    @property
    def start(self) -> int:
        """The first row."""
        ...

    @property
    def rows(self) -> int:
        """The number of rows."""
        ...

    @property
    def texts(self) -> int:
        """The number of them that hold a text that is kept."""
        ...

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the kept texts."""
        ...


@dataclass(frozen=True, slots=True)
class Slice:
    """Texts to embed, of one source, that follow one another.

    Attributes:
        source: the source's place in the plan.
        start: the first row to read.
        rows: how many rows to read.
        skip: texts to embed among them that belong to the shard before.
        texts: how many to take after those.
        before: kept texts of the source before `start`.
    """

    source: int
    start: int
    rows: int
    skip: int
    texts: int
    before: int


@dataclass(frozen=True, slots=True)
class ShardWork:
    """The texts of one shard.

    Attributes:
        slices: its texts, in the order of the sources.
        texts: how many, at least 1.
        bytes: their UTF-8 bytes; estimated where a piece is cut in two.
        changed: identity of the new and changed texts, in an incremental run; empty where all kept texts are taken.
    """

    slices: tuple[Slice, ...]
    texts: int
    bytes: int
    changed: str = ""


def cut(
    sources: Sequence[Sequence[Piece]],
    rows_per_shard: int,
    bytes_per_shard: int = BYTES_PER_SHARD,
    counts: Sequence[Sequence[int]] | None = None,
) -> tuple[ShardWork, ...]:
    """Cut texts into shards, keeping their order; a shard may span files, and none is empty.

    A shard is closed at `rows_per_shard` texts, or before the piece that would bring it over `bytes_per_shard`; a
    piece larger than that is a shard by itself.

    Args:
        sources: the pieces of each source, in order.
        rows_per_shard: texts in a shard at most.
        bytes_per_shard: UTF-8 bytes in a shard at most.
        counts: how many of each piece's kept texts are to be embedded; all by default.

    Raises:
        UsageError: fewer than one row or byte a shard.
    """
    if rows_per_shard < 1 or bytes_per_shard < 1:
        raise UsageError(
            f"rows per shard: expected at least 1, got {rows_per_shard}"
            if rows_per_shard < 1
            else f"bytes per shard: expected at least 1, got {bytes_per_shard}"
        )
    shards: list[ShardWork] = []
    slices: list[Slice] = []
    texts = size = 0
    for source, pieces in enumerate(sources):
        before = 0
        for number, piece in enumerate(pieces):
            count = piece.texts if counts is None else counts[source][number]
            taken = 0
            while taken < count:
                part = min(rows_per_shard - texts, count - taken)
                weight = piece.bytes * part // piece.texts
                if texts and size + weight > bytes_per_shard:
                    shards.append(ShardWork(tuple(slices), texts, size))
                    slices, texts, size = [], 0, 0
                    continue
                _append(slices, Slice(source, piece.start, piece.rows, taken, part, before))
                taken, texts, size = taken + part, texts + part, size + weight
                if texts == rows_per_shard:
                    shards.append(ShardWork(tuple(slices), texts, size))
                    slices, texts, size = [], 0, 0
            before += piece.texts
    if slices:
        shards.append(ShardWork(tuple(slices), texts, size))
    return tuple(shards)


def _append(slices: list[Slice], new: Slice) -> None:
    """Add a slice, or widen the last one where the new one follows it closely."""
    last = slices[-1] if slices else None
    if last is not None and last.source == new.source and new.start - (last.start + last.rows) <= _GAP_ROWS:
        rows = new.start + new.rows - last.start
        slices[-1] = Slice(last.source, last.start, rows, last.skip, last.texts + new.texts, last.before)
    else:
        slices.append(new)


def balance(sizes: Sequence[int], tasks: int) -> tuple[tuple[int, ...], ...]:
    """Share pieces of work among tasks so that none has much more than another.

    The largest goes first, each to the task with least (Graham 1969, longest processing time first: at most 4/3 of the
    best possible). The same sizes are always shared alike.

    Args:
        sizes: of the pieces of work.
        tasks: how many tasks.

    Returns:
        The numbers of each task's pieces, ascending.
    """
    heap = [(0, task) for task in range(tasks)]
    shares: list[list[int]] = [[] for _ in range(tasks)]
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
        load, task = heapq.heappop(heap)
        shares[task].append(number)
        heapq.heappush(heap, (load + max(sizes[number], 1), task))
    return tuple(tuple(sorted(share)) for share in shares)
