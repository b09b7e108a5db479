"""What the readers of texts share: column names, batches of rows, lines of a file, and what they ask of a selection."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.objects import store

RESERVED = ("id", "text", "embedding")
"""Column names of the datasets: no carried column may bear one."""

BATCH_BYTES = 32 << 20
"""Bytes of JSONL or CSV in one batch at most: texts of megabytes must not add up to gigabytes."""


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


Cells = tuple[pa.Array, ...]
"""The cells of a column, one array a kind of value, each of shape (rows,): a cell is null in all arrays but one.
Parquet and CSV give one array, JSONL as many as there are kinds among the rows."""


class NoTime(DataError):  # noqa: N818 - named for what it is: the column may not be there at all
    """A cell holds no time where one is needed.

    Attributes:
        column: The column.
    """

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


class RowFilter(Protocol):
    """Says which rows a selection takes."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it looks at, by the file's names."""
        ...

    def mask(self, uri: str, first_row: int, rows: int, cells: Mapping[str, Cells]) -> npt.NDArray[np.bool_]:
        """Say which of consecutive rows are taken, shape (rows,).

        Args:
            uri: The file, for messages.
            first_row: The number of the first row, from 0, for messages.
            rows: How many rows.
            cells: The cells of its columns; one that is not there is null in every row.
        """
        ...

    def may_hold(self, name: str, bounds: pa.Array, nulls: bool) -> bool:
        """Say whether a row may be taken of which only this is known.

        Args:
            name: A column.
            bounds: Two values between which all of the column's are, those two included, nulls apart.
            nulls: Whether the column may hold nulls.
        """
        ...


@dataclass(frozen=True, slots=True)
class Projection:
    """What of a file is wanted.

    Attributes:
        rows: The filter of its rows; None takes all.
        carried: The carried columns to give; None gives all.
    """

    rows: RowFilter | None = None
    carried: frozenset[str] | None = None

    @property
    def looked_at(self) -> tuple[str, ...]:
        """The columns that the filter looks at."""
        return self.rows.columns if self.rows else ()

    def carries(self, name: str) -> bool:
        """Say whether a carried column is wanted."""
        return self.carried is None or name in self.carried

    def taken(
        self, uri: str, first_row: int, count: int, cells: Callable[[str], Cells]
    ) -> npt.NDArray[np.bool_] | None:
        """Say which of consecutive rows are wanted, shape (count,); None where all are.

        `cells` gives a column's, none where there is no such column.
        """
        if not self.rows:
            return None
        mask = self.rows.mask(uri, first_row, count, {name: cells(name) for name in self.rows.columns})
        return None if mask.all() else mask


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows of one file, of which a selection has taken some; arrays hold the taken rows alone.

    Attributes:
        first_row: The number of the first row, from 0, taken or not.
        count: How many rows of the file these are, taken or not.
        numbers: The numbers of the taken rows, from 0; int64, ascending, shape (taken,).
        ids: Strings, shape (taken,); may hold nulls.
        texts: Strings, shape (taken,); may hold nulls.
        carried: The carried columns by name, in the file's own types; none while JSONL types are being found.
        mended: For each column in which there was half a surrogate pair or a byte that is no UTF-8, the rows that
            have U+FFFD instead; shape (taken,) each.
        offsets: Where each row begins in the file, in bytes, taken or not; None where that cannot be sought.
    """

    first_row: int
    count: int
    numbers: npt.NDArray[np.int64]
    ids: pa.Array
    texts: pa.Array
    carried: Mapping[str, pa.Array]
    mended: Mapping[str, npt.NDArray[np.bool_]]
    offsets: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class Start:
    """A place in a file to read from: row number `row`, from 0, begins at byte `offset`."""

    row: int = 0
    offset: int | None = None


class TextReader(Protocol):
    """Reads one file of texts."""

    def batches(self, start: int, rows: int | None, batch_rows: int, near: Start = ...) -> Iterator[RowBatch]:
        """Yield the rows [start, start + rows) in batches of at most `batch_rows`.

        `near` is a place at or before them that a scan found: lines and records are then parsed from there.
        """
        ...

    def carried(self) -> Carried:
        """The carried columns; of JSONL complete only after all batches have been read."""
        ...

    def names(self) -> tuple[str, ...]:
        """All columns; of JSONL complete only after all batches have been read."""
        ...


def no_column(uri: str, role: str, name: str, present: Sequence[str]) -> DataError:
    """Return the error of a column that is asked for and is not there, with those that are."""
    listed = ", ".join(repr(other) for other in present[:20]) or "none"
    return DataError(f"{uri}: there is no column {name!r} for the {role}; name one of the columns present: {listed}")


def check_names(uri: str, columns: TextColumns, present: Sequence[str]) -> None:
    """Check that the two columns are there, and that no other one is in the way.

    Raises:
        DataError: One is missing, twice there, or a carried column bears a reserved name.
    """
    for role, name in (("id", columns.id), ("text", columns.text)):
        if name not in present:
            raise no_column(uri, role, name, present)
    for name in present:
        if present.count(name) > 1:
            raise DataError(f"{uri}: there are several columns {name!r}; give each column its own name")
        if name in RESERVED and name not in (columns.id, columns.text):
            raise DataError(
                f"{uri}: column {name!r} cannot be carried along beside the configured columns {columns.id!r} and "
                f"{columns.text!r}, since datasets use that name; rename it, or configure it as id or text"
            )


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
