"""Reads ahead: several sources at once in background threads, their values in order, and no more than fits.

No thread ever waits for the consumer: a unit of work is begun only when there is room for what it makes. Nor does
the end of a reader wait for its threads. So a consumer that stops half-way, even one that is forgotten and left to the
garbage collector, keeps no thread busy and no process from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from driftline.components.errors import UsageError
from driftline.components.steps import StepClock

T = TypeVar("T")

THREAD_NAME: Final = "driftline-read"


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """How far to read ahead of a consumer.

    Attributes:
        bytes: Memory that values may take which the consumer has not asked for yet. The default holds ten row groups
            of 4096 vectors of 384 float32. Where the source whose turn it is has none ready, one more is made all the
            same.
        threads: Sources that are open, and worked on, at once. Four hide an object store's answering time; where the
            processor is the limit they take turns.

    Raises:
        UsageError: One of them is under 1.
    """

    bytes: int = 64 << 20
    threads: int = 4

    def __post_init__(self) -> None:
        if self.bytes < 1 or self.threads < 1:
            raise UsageError(f"read ahead: {self.bytes} bytes, {self.threads} threads; give at least 1 of each")


@dataclass(frozen=True, slots=True)
class Room:
    """What a source yields before it makes a value: go on with me when there is room.

    Attributes:
        bytes: Memory that the value will take, as well as that is known; 0 to go on at once, unless all ends here.
    """

    bytes: int


@dataclass(frozen=True, slots=True)
class Value(Generic[T]):
    """What a source yields for the consumer.

    Attributes:
        content: What the consumer gets.
        bytes: Memory that it takes.
    """

    content: T
    bytes: int


Source = Generator[Room | Value[T]]


def read_ahead(sources: Iterable[Source[T]], ahead: ReadAhead) -> Generator[T]:
    """Yield the values of all sources, one source after the other, while background threads make the next ones.

    Each source is worked on by one thread at a time, from one of its yields to the next; up to `ahead.threads`
    sources side by side, as soon as the first has given a value that takes memory. The source whose turn it is may use
    all the room, those after it half, so that none holds it up. Work begins at the first value asked for. When the
    generator ends, is closed, fails or is forgotten, each thread ends at its source's next yield, and the source is
    closed; that is not waited for.

    Memory: `ahead.bytes` of values not asked for yet, and what a source needs to make a value, for each thread.

    Args:
        sources: Generators that yield `Room` before what takes memory to make, and then the `Value`.
        ahead: How far ahead.

    Raises:
        BaseException: What a source raises is raised here, after all values that come before it.
    """
    reader = _Reader(list(sources), ahead)
    try:
        while reader.wait():
            yield reader.take()  # not kept in a name, so that the consumer alone decides how long it lives
    finally:
        reader.close()


@dataclass(slots=True, eq=False)
class _Started(Generic[T]):
    steps: Source[T]
    ready: deque[Value[T]] = field(default_factory=lambda: deque[Value[T]]())
    room: int = 0  # bytes that it asks for, or holds while it makes the value
    busy: bool = False
    ended: bool = False
    error: BaseException | None = None


class _Reader(Generic[T]):
    """The sources that are started, in order; every method but `_work` is the consumer's."""

    def __init__(self, sources: list[Source[T]], ahead: ReadAhead) -> None:
        self._sources = iter(sources)
        self._ahead = ahead
        self._started: deque[_Started[T]] = deque()
        self._held = 0  # bytes of values that are ready or being made
        self._flowing = False
        self._changed = threading.Condition()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(ahead.threads, THREAD_NAME)

    def wait(self) -> bool:
        """Wait for the next value. False where there is none; raises what its source raised."""
        with self._changed:
            while True:
                self._begin()
                if not self._started:
                    return False
                head = self._started[0]
                if head.ready:
                    return True
                if head.error is not None:
                    try:
                        raise head.error
                    finally:
                        head.error = None  # it refers to this frame
                if head.ended:
                    self._started.popleft()
                else:
                    self._changed.wait()

    def take(self) -> T:
        """Return the value waited for, and use its room for the next."""
        with self._changed:
            value = self._started[0].ready.popleft()
            self._held -= value.bytes
            self._begin()
            return value.content

    def _begin(self) -> None:
        """Begin all work that there is a thread and room for; the lock is held."""
        pool = self._pool
        if pool is None:  # closed
            return
        # What the consumer waits for first comes sooner where nothing else is worked on meanwhile.
        while len(self._started) < (self._ahead.threads if self._flowing else 1):
            steps = next(self._sources, None)
            if steps is None:
                break
            self._started.append(_Started(steps))
        for place, source in enumerate(self._started):
            if source.busy or source.ended:
                continue
            limit = self._ahead.bytes if place == 0 else self._ahead.bytes // 2
            needed = place == 0 and not source.ready
            if needed or source.room == 0 or self._held + source.room <= limit:
                source.busy = True
                self._held += source.room
                pool.submit(self._work, source)

    def _work(self, source: _Started[T]) -> None:
        """Bring a source to its next yield: in a worker's thread."""
        step: Room | Value[T] | None = None
        error: BaseException | None = None
        try:
            step = next(source.steps, None)
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._changed:
                self._held -= source.room
                source.busy, source.room, source.error = False, 0, error
                if isinstance(step, Value):
                    self._held += step.bytes
                    self._flowing |= step.bytes > 0
                    source.ready.append(step)
                elif isinstance(step, Room):
                    source.room = step.bytes
                else:
                    source.ended = True
                self._begin()
                self._changed.notify_all()
            error = None  # it refers to this frame

    def close(self) -> None:
        """Let all work end, also where an error's traceback keeps this reader.

        Nothing is waited for and no lock is taken: this may be the collector's doing, in a thread that the work needs.
        A pool ends its threads, and a source is closed, with the last reference to it: a worker's, while it works.
        """
        self._pool = None
        self._started = deque()
        self._sources = iter(())


class _Waits:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds


_WAITS: Final = _Waits()


@contextmanager
def waiting() -> Generator[None]:
    """Count the time in the body as time that a consumer waits for its data."""
    began = time.perf_counter()
    try:
        yield
    finally:
        _WAITS.add(time.perf_counter() - began)


def waited_s() -> float:
    """Seconds for which this process's consumers have waited for embeddings so far, all together.

    For logs and measurements: the difference between two calls is what a step waited between them.
    """
    return _WAITS.seconds


@contextmanager
def waits_logged(clock: StepClock) -> Generator[None]:
    """Log, at the body's clean end, for how many of its seconds a step waited for embeddings (`waited_s`)."""
    before = waited_s()
    yield
    clock.log("progress", waited_s=round(waited_s() - before, 3))
