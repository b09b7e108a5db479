"""Records between reader and writer: a buffer cut into micro-batches, and the fence that voids what was read before."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from driftline.serving.stream.settings import BatchLimits, BufferLimits
from driftline.serving.stream.work_items import Incoming


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Records that are encoded, produced and committed together.

    Attributes:
        epoch: the epoch (see :class:`WriteFence`) in which they were read.
        items: the records, in the order in which they were read.
        membership: the worker's place in the group when they were read.
    """

    epoch: int
    items: tuple[Incoming, ...]
    membership: object


class Buffer:
    """Records in order, filled by one thread and cut into batches by another.

    Args:
        batch: limits of a batch.
        limits: of the buffer; beyond them it is full, but refuses nothing.
        max_tokens: that the model looks at in a text; 0 for no limit.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        batch: BatchLimits,
        limits: BufferLimits,
        max_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batch = batch
        self._limits = limits
        self._max_tokens = max_tokens
        self._clock = clock
        self._changed = threading.Condition()
        self._items: deque[tuple[Incoming, int]] = deque()
        self._tokens = 0
        self._bytes = 0
        self._epoch = 0
        self._membership: object = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def bytes(self) -> int:
        """Bytes of the keys and values that wait."""
        return self._bytes

    @property
    def full(self) -> bool:
        """True while reading on should wait."""
        return len(self._items) >= self._limits.records or self._bytes >= self._limits.bytes

    @property
    def holds_batch(self) -> bool:
        """True while a full batch waits."""
        return len(self._items) >= self._batch.records or self._tokens >= self._batch.tokens or self.full

    @property
    def has_room(self) -> bool:
        """True while at least half of the buffer is free."""
        return 2 * len(self._items) <= self._limits.records and 2 * self._bytes <= self._limits.bytes

    def add(self, items: Sequence[Incoming], membership: object) -> None:
        """Append records that were read in the current epoch."""
        counted = [(item, item.tokens(self._max_tokens)) for item in items]
        with self._changed:
            self._items += counted
            self._tokens += sum(tokens for _, tokens in counted)
            self._bytes += sum(item.bytes for item in items)
            self._membership = membership
            self._changed.notify_all()

    def wait_for_need(self, timeout_s: float) -> None:
        """Wait, but not for longer, until no full batch waits any more, or where it was full until there is room."""
        with self._changed:
            was_full = self.full
            self._changed.wait_for(
                lambda: self._closed or not self.holds_batch or (was_full and self.has_room), timeout_s
            )

    def restart(self, epoch: int) -> None:
        """Forget everything; what is added from now on is of another epoch."""
        with self._changed:
            self._items.clear()
            self._tokens = self._bytes = 0
            self._epoch = epoch
            self._changed.notify_all()

    def close(self) -> None:
        """Give out no more batches."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> MicroBatch | None:
        """Return the next batch when it is full or has waited for its time; None when the buffer is closed."""
        with self._changed:
            while not self._closed:
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    cut = self._cut()
                    self._changed.notify_all()
                    return MicroBatch(self._epoch, cut, self._membership)
                self._changed.wait(wait_s)
            return None

    def _wait_s(self) -> float | None:
        if not self._items:
            return None
        if self.holds_batch:
            return 0.0
        return self._items[0][0].received_s + self._batch.linger_ms / 1000 - self._clock()

    def _cut(self) -> tuple[Incoming, ...]:
        cut: list[Incoming] = []
        tokens = 0
        while self._items and len(cut) < self._batch.records:
            item, own = self._items[0]
            if cut and tokens + own > self._batch.tokens:
                break
            self._items.popleft()
            cut.append(item)
            tokens += own
            self._bytes -= item.bytes
        self._tokens -= tokens
        return tuple(cut)


class WriteFence:
    """Lets through what was read in the current epoch, one write at a time.

    An epoch is a stretch of reading from the committed offsets on. When a write fails, or partitions are handed around,
    everything read so far and not yet written is void: it is read again, in the next epoch. Otherwise a batch could be
    committed behind one that was not written, whose records would be lost.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._epoch = 0
        self._open = True
        self._writing = False

    @property
    def is_open(self) -> bool:
        """True while the current epoch's results may be written."""
        return self._open

    def acquire(self, epoch: int) -> bool:
        """Begin to write; return whether it is allowed."""
        with self._changed:
            self._writing = self._open and epoch == self._epoch
            return self._writing

    def release(self, *, written: bool) -> None:
        """End the current write; after one that failed, later writes wait for the next epoch."""
        with self._changed:
            self._writing = False
            self._open = self._open and written
            self._changed.notify_all()

    def shut(self, timeout_s: float) -> bool:
        """Let nothing more through in this epoch; return whether the write under way, if any, has ended in time."""
        with self._changed:
            self._open = False
            return self._changed.wait_for(lambda: not self._writing, timeout_s)

    def next_epoch(self) -> int:
        """Begin the next epoch and return its number."""
        with self._changed:
            self._epoch += 1
            self._open = True
            return self._epoch
