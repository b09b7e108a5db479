"""The lines of a text file, and where each begins."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from driftline.components.errors import DataError
from driftline.components.storage.objects import store
from driftline.components.storage.texts.rows import Start

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class TextLines:
    """Lines in bytes, gunzipped where the file is gzip, without a byte order mark, line ends kept.

    Attributes:
        number: Lines given so far.
        position: The byte at which the next line begins, in the file; in what is unpacked where it is gzip.
        sought: Whether `position` is one that a file can be read from: it is not gzip.
    """

    def __init__(self, uri: str, handle: BinaryIO, position: int, *, sought: bool) -> None:
        self._uri = uri
        self._handle = handle
        self.number = 0
        self.position = position
        self.sought = sought

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self.position == 0:
                mark = self._handle.read(len(_BOM))
                if mark == _BOM:
                    self.position = len(_BOM)
                else:
                    self._handle.seek(0)
            for line in self._handle:
                self.number += 1
                self.position += len(line)
                yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self._uri}: is damaged or truncated gzip after line {self.number} ({error}); write it again"
            ) from error


@contextmanager
def text_lines(uri: str, near: Start) -> Generator[TextLines]:
    """Open a file's lines, from a place that a scan found, or from the front.

    Raises:
        DataError: It is called .gz and is not gzip; on reading, it is damaged gzip.
        StorageError: It cannot be read.
    """
    with store.open_read(uri) as handle:
        if near.offset:
            handle.seek(near.offset)
            yield TextLines(uri, handle, near.offset, sought=True)
            return
        packed = handle.read(2) == _GZIP_MAGIC
        handle.seek(0)
        if uri.endswith(".gz") and not packed:
            raise DataError(f"{uri}: is not gzip, as its name says; rename it, or compress it")
        lines = cast("BinaryIO", gzip.GzipFile(fileobj=handle)) if packed else handle
        yield TextLines(uri, lines, 0, sought=not packed)


def decoded(line: bytes) -> tuple[str, bool]:
    """Decode a line of UTF-8.

    Returns:
        The line, and whether it holds bytes that are no UTF-8: they become half surrogate pairs, as `surrogateescape`
        has it, which `undamaged` turns into U+FFFD.
    """
    try:
        return line.decode("utf-8"), False
    except UnicodeDecodeError:
        return line.decode("utf-8", "surrogateescape"), True


def undamaged(text: str) -> str:
    """Put U+FFFD where `decoded` met bytes that are no UTF-8: one for each longest run that begins a character."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
