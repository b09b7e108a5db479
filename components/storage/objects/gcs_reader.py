"""Objects read by ranges: several at once, ahead of a reader that goes through them in order.

What the ranges come from is a function, so that nothing here knows a protocol.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import google_crc32c

from driftline.components.errors import StorageError
from driftline.components.storage.objects.location import crc32c_text

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RANGE_BYTES = 4 << 20
"""Bytes of one request: so many that latency is small against transfer."""

IN_FLIGHT = 4
"""Requests at once for one reader: a single connection rarely fills a network."""

# Bytes that small reads ask for together. Lines and a footer need no more requests; a jump wastes no more.
_SMALL_BYTES = 256 << 10

Fetch = Callable[[int, int, threading.Event], bytes]
"""`fetch(start, end, stop)`: the bytes [start, end), all of them, or a StorageError; may give up when `stop` is set."""


class _Range:
    """Bytes [start, end), here or on their way."""

    def __init__(self, start: int, end: int, content: bytes | Future[bytes]) -> None:
        self.start = start
        self.end = end
        self._content = content

    def bytes(self) -> bytes:
        if isinstance(self._content, Future):
            # Kept instead of the future: it is asked for again.
            self._content = self._content.result()
        return self._content

    def cancel(self) -> None:
        if isinstance(self._content, Future):
            self._content.cancel()


class RangedObject:
    """An object of known size, of which any part can be read; safe for use by several threads, one after another.

    A part is fetched as it is asked for, a large one by several requests at once. Whoever reads on where the last
    read ended is read ahead of: never by more than they have read in a row so far, so that a jump (to the next
    column of a Parquet file, say) throws away no more than was of use, and never by more than `in_flight` ranges.

    Memory: (in_flight + 1) * range_bytes, as much again while ranges arrive, and twice what one read asks for. Up to
    `in_flight` threads, from the first read that can use them until `close`.

    Args:
        uri: The object, for messages.
        size: Bytes.
        crc32c: Base64 of its big-endian CRC-32C, which is compared once all bytes have been read in order; or None.
        fetch: Gets a range.
        in_order: Read ahead at full depth from the first read on.
        range_bytes: Bytes of one request at most.
        in_flight: Requests at once.
    """

    def __init__(
        self,
        uri: str,
        size: int,
        crc32c: str | None,
        fetch: Fetch,
        *,
        in_order: bool = False,
        range_bytes: int = RANGE_BYTES,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self.uri = uri
        self.size = size
        self._crc32c = crc32c
        self._checksum = google_crc32c.Checksum()
        self._checked = 0
        self._fetch = fetch
        self._in_order = in_order
        self._range_bytes = range_bytes
        self._in_flight = in_flight
        self._lock = threading.Lock()
        self._closed = False
        self._threads: ThreadPoolExecutor | None = None
        self._stop = threading.Event()
        self._held: deque[_Range] = deque()
        self._expected = 0  # where a reader that goes on would read next
        self._row_bytes = 0  # bytes, and reads, in a row up to there
        self._row_reads = 0

    def read_at(self, position: int, size: int) -> bytes:
        """Read [position, position + size), or what there is of it.

        Raises:
            StorageError: It cannot be read, or the bytes read in order from the first to the last were damaged.
            ValueError: The object is closed, perhaps meanwhile.
        """
        end = min(position + size, self.size)
        with self._lock:
            if self._closed:
                raise ValueError("read of a closed file")
            if position >= end:
                return b""
            parts = self._gathered(position, end)
            content = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
            self._check(position, content)
            return content

    def close(self) -> None:
        """End the threads, as soon as the requests in flight let them; again is fine."""
        # Without the lock: another thread may hold it, waiting for a request that this ends.
        self._closed = True
        self._stop.set()
        for held in list(self._held):
            held.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _gathered(self, position: int, end: int) -> list[memoryview]:
        self._drop_before(position)
        if position != self._expected and not self._held:
            self._row_bytes = self._row_reads = 0
        self._row_reads += 1
        parts: list[memoryview] = []
        try:
            while position < end:
                self._drop_before(position)
                self._request(position, end)
                held = self._held[0]
                stop = min(held.end, end)
                parts.append(memoryview(held.bytes())[position - held.start : stop - held.start])
                self._row_bytes += stop - position
                position = stop
        except (CancelledError, RuntimeError) as error:
            if self._closed:
                raise ValueError("read of a file closed meanwhile") from error
            raise
        except StorageError:
            self._abandon()  # so that a later read asks anew
            raise
        self._expected = position
        return parts

    def _drop_before(self, position: int) -> None:
        """Keep the ranges from `position` on; none where it is in none of them."""
        if self._held and not self._held[0].start <= position <= self._held[-1].end:
            self._abandon()
        while self._held and self._held[0].end <= position:
            self._held.popleft()

    def _abandon(self) -> None:
        self._stop.set()
        self._stop = threading.Event()
        for held in self._held:
            held.cancel()
        self._held.clear()

    def _request(self, position: int, end: int) -> None:
        """See that [position, end) is on its way, as far as may be in flight, and what is read ahead."""
        ahead, step = self._in_flight * self._range_bytes, self._range_bytes
        if not self._in_order:
            ahead = min(ahead, self._row_bytes) if self._row_reads > 1 else 0
            step = min(step, max(_SMALL_BYTES, self._row_bytes // 2))
        wanted: list[tuple[int, int]] = []
        reached = self._held[-1].end if self._held else position
        while len(self._held) + len(wanted) <= self._in_flight:
            if reached < end:
                upto = min(reached + self._range_bytes, end)
            else:
                upto = min(reached + step, self.size)
                if upto > position + ahead or upto == reached:
                    break
            wanted.append((reached, upto))
            reached = upto
        if len(wanted) == 1 and not self._held:
            # Nothing to do meanwhile, so no thread.
            self._held.append(_Range(*wanted[0], self._fetch(*wanted[0], self._stop)))
            return
        for start, upto in wanted:
            self._threads = self._threads or ThreadPoolExecutor(self._in_flight, "driftline-read")
            self._held.append(_Range(start, upto, self._threads.submit(self._fetch, start, upto, self._stop)))

    def _check(self, position: int, content: bytes) -> None:
        if self._crc32c is None or position != self._checked:
            return
        self._checksum.update(content)
        self._checked += len(content)
        if self._checked == self.size and crc32c_text(self._checksum) != self._crc32c:
            self._checked = -1
            raise damaged(self.uri)


def damaged(uri: str) -> StorageError:
    """The error for an object whose bytes differ from its checksum."""
    return StorageError(
        f"{uri}: cannot read: the bytes were damaged on their way (their CRC-32C differs); run it again"
    )


class _Raw(io.RawIOBase):
    """The object as a raw file."""

    def __init__(self, content: RangedObject) -> None:
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._content.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._content.size}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}, before the first byte")
        self._position = base + offset
        return self._position

    def close(self) -> None:
        # Also called when the file is forgotten without being closed.
        self._content.close()
        super().close()


class ObjectFile(io.BufferedReader):
    """A ranged object as a binary file: small reads are buffered, large ones fetch exactly what is asked for."""

    def __init__(self, content: RangedObject) -> None:
        super().__init__(_Raw(content), _SMALL_BYTES)
        self._content = content

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, or all that are left."""
        if size is not None and 0 <= size < _SMALL_BYTES:
            return super().read(size)
        position = self.tell()
        left = max(0, self._content.size - position)
        content = self._content.read_at(position, left if size is None or size < 0 else size)
        self.seek(position + len(content))
        return content
