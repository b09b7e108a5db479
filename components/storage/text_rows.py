"""What the readers of texts share: column names, batches of rows, and the lines of a file."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import pyarrow as pa

from driftline.components.errors import DataError, UsageError
from driftline.components.storage import store

RESERVED = ("id", "text", "embedding")
"""Column names of the datasets: no carried column may bear one."""

BATCH_BYTES = 32 << 20
"""Bytes of JSONL or CSV in one batch at most: texts of megabytes must not add up to gigabytes."""

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class TextColumns:
    """The names of the two columns that every file of texts must have.

    Attributes:
        id: The column that identifies a text: unique strings, or integers.
        text: The column with the text.

    Raises:
        UsageError: A name is empty, or both are the same.
    """

    id: str = "id"
    text: str = "text"

    def __post_init__(self) -> None:
        if not self.id or not self.text or self.id == self.text:
            raise UsageError(
                f"id column {self.id!r} and text column {self.text!r}: give the names of two different columns"
            )


Carried = tuple[tuple[str, str], ...]
"""The carried columns of one file: (name, type name as of `arrow_types.type_name`)."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows of one file.

    Attributes:
        first_row: The number of the first one, from 0.
        ids: Strings, shape (rows,); may hold nulls.
        texts: Strings, shape (rows,); may hold nulls.
        carried: The carried columns by name, in the file's own types; none while JSONL types are being found.
    """

    first_row: int
    ids: pa.Array
    texts: pa.Array
    carried: Mapping[str, pa.Array]


class TextReader(Protocol):
    """Reads one file of texts."""

    def batches(self, start: int, rows: int | None, batch_rows: int) -> Iterator[RowBatch]:
        """Yield the rows [start, start + rows) in batches of at most `batch_rows`."""
        ...

    def carried(self) -> Carried:
        """The carried columns; of JSONL complete only after all batches have been read."""
        ...


def check_names(uri: str, columns: TextColumns, present: Sequence[str]) -> None:
    """Check that the two columns are there, and that no other one is in the way.

    Raises:
        DataError: One is missing, twice there, or a carried column bears a reserved name.
    """
    for role, name in (("id", columns.id), ("text", columns.text)):
        if name not in present:
            listed = ", ".join(repr(other) for other in present[:20]) or "none"
            raise DataError(
                f"{uri}: there is no column {name!r} for the {role}; name one of the columns present: {listed}"
            )
    for name in present:
        if present.count(name) > 1:
            raise DataError(f"{uri}: there are several columns {name!r}; give each column its own name")
        if name in RESERVED and name not in (columns.id, columns.text):
            raise DataError(
                f"{uri}: column {name!r} cannot be carried along beside the configured columns {columns.id!r} and "
                f"{columns.text!r}, since datasets use that name; rename it, or configure it as id or text"
            )


def one_line(error: Exception) -> str:
    """An error's message on one line, cut at 200 characters."""
    return " ".join(str(error).split())[:200]


@contextmanager
def text_lines(uri: str) -> Generator[Iterator[bytes]]:
    """The lines of a text file, gunzipped where it is gzip, without a byte order mark, line ends kept."""
    with store.open_read(uri) as handle:
        magic = handle.read(2)
        handle.seek(0)
        packed = magic == _GZIP_MAGIC
        if uri.endswith(".gz") and not packed:
            raise DataError(f"{uri}: is not gzip, as its name says; rename it, or compress it")
        yield _unmarked(uri, cast("BinaryIO", gzip.GzipFile(fileobj=handle)) if packed else handle)


def _unmarked(uri: str, handle: BinaryIO) -> Iterator[bytes]:
    number = 0
    try:
        for line in handle:
            yield line.removeprefix(_BOM) if number == 0 else line
            number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{uri}: is damaged or truncated gzip after line {number} ({error}); write it again") from error


def decoded(uri: str, line: bytes, number: int) -> str:
    """Decode a line.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{uri}: line {number} is not UTF-8 (byte {error.start + 1} of the line); convert the file to UTF-8"
        ) from error
