"""The errors that Driftline raises at a person, and what each one means.

DriftlineError
├── InputError      what was given is not as expected (also a ValueError)
│   ├── UsageError  a setting is out of range; the `driftline` command answers with status 2
│   └── DataError   a file, a column, a row or a dataset is not as expected
└── StorageError    a file or an object could not be read or written (also an OSError)
    └── StorageConflict  something else is there than what was to be written over

Every message is one line that names the thing, says what was expected, what was got and what to do. In a log, of whose
lines little more than the beginning is seen, it is told by :func:`reason_first`.
"""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from typing import Final


class DriftlineError(Exception):
    """Base of every error that the user can put right. Its message is one line, fit to be shown alone."""


class InputError(DriftlineError, ValueError):
    """What was given is not as expected."""


class UsageError(InputError):
    """A setting is out of range or contradicts another one."""


class DataError(InputError):
    """A file, a column, a row or a dataset is not as expected."""


class StorageError(DriftlineError, OSError):
    """A file or an object could not be read or written."""


class StorageConflict(StorageError):  # noqa: N818 - named for what it is: what was to be written is not, nothing broke
    """Something else is there than what was to be written over; it stays as it is."""


DAMAGED_ARCHIVE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OSError,
    EOFError,
    RuntimeError,
)
"""What NumPy raises over a damaged .npz archive, depending on the byte."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return an error's message on one line of at most `limit` characters; its type's name where it has none."""
    return (" ".join(str(error).split()) or type(error).__name__)[:limit]


_BEGINS: Final = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|~?/|\.{1,2}/|[A-Za-z]:[\\/])"  # a URI or a path, Windows' too
_PLACE: Final = re.compile(
    r"(?:[A-Za-z_-]+ ){0,2}"  # what it is: model, history record
    rf"(?:{_BEGINS}\S*"
    r"|[^\s'\"]*[A-Za-z][^\s'\"]*[\\/][^\s'\"]*[A-Za-z][^\s'\"]*"  # a relative path
    r"|'[^']*[\\/][^']*'|\"[^\"]*[\\/][^\"]*\""
    # With spaces, and still no sentence that begins with a path: it ends as a path does.
    rf"|{_BEGINS}[^;,()]* (?:[^\s;,()]*[\\/][^\s;,()]*|[^\s;,()]*\.\w{{1,8}}))"
    r"(?: \([^()]*\))?"  # what it means: (now gs://…)
)


def reason_first(message: str) -> str:
    """Return an error's message on one line, the reason before the file that it is about.

    Of a line of a pod's log, Kubeflow's UI shows some 75 letters, which a file's path alone may fill.
    ``gs://lake/part-0.parquet: expected the column text, found id`` becomes ``expected the column text, found id
    (gs://lake/part-0.parquet)``. Nothing is left out. The name of a setting, which is short, stays where it is.
    """
    reason = " ".join(message.splitlines()).strip()
    places = ""
    while True:
        head, _, rest = reason.partition(": ")
        rest = rest.lstrip()
        if not rest or rest.startswith("(") or _PLACE.fullmatch(head) is None:
            return reason + places
        reason, places = rest, f"{places} ({head})"
