"""The errors that Driftline raises at a person, and what each one means.

DriftlineError
├── InputError      what was given is not as expected (also a ValueError)
│   ├── UsageError  a setting is out of range; the `driftline` command answers with status 2
│   └── DataError   a file, a column, a row or a dataset is not as expected
└── StorageError    a file or an object could not be read or written (also an OSError)
    └── StorageConflict  something else is there than what was to be written over

Every message is one line that names the thing, says what was expected, what was got and what to do.
"""

from __future__ import annotations

import lzma
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
