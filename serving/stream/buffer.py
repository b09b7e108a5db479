"""What has been read and not been encoded yet, cut into micro-batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from driftline.serving.stream.incoming import Incoming
from driftline.serving.stream.settings import BatchLimits, BufferLimits


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are encoded, produced and committed together.

    Attributes:
        attempt: number of the attempt (see :class:`driftline.serving.stream.gate.Gate`) in which they were read.
        items: the records, in the order in which they were read.
        membership: what the worker's place in the group was when they were read.
    """

    attempt: int
    items: tuple[Incoming, ...]
    membership: object


class Buffer:
    """Records in order, filled by one thread and cut into batches by another.

    Args:
        batch: limits of a batch.
        limits: of the buffer; it says that it is full and refuses nothing.
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
        self._attempt = 0
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
        """Whether reading on should wait."""
        return len(self._items) >= self._limits.records or self._bytes >= self._limits.bytes

    @property
    def holds_batch(self) -> bool:
        """Whether a full batch waits."""
        return len(self._items) >= self._batch.records or self._tokens >= self._batch.tokens or self.full

    @property
    def has_room(self) -> bool:
        """Whether half of it, at least, is free again."""
        return 2 * len(self._items) <= self._limits.records and 2 * self._bytes <= self._limits.bytes

    def add(self, items: Sequence[Incoming], membership: object) -> None:
        """Append records that were read in the current attempt."""
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

    def restart(self, attempt: int) -> None:
        """Forget everything; what is added from now on is of another attempt."""
        with self._changed:
            self._items.clear()
            self._tokens = self._bytes = 0
            self._attempt = attempt
            self._changed.notify_all()

    def close(self) -> None:
        """Give out no more batches."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> Batch | None:
        """Return the next batch when it is full or has waited for its time; None when the buffer is closed."""
        with self._changed:
            while not self._closed:
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    cut = self._cut()
                    self._changed.notify_all()
                    return Batch(self._attempt, cut, self._membership)
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
