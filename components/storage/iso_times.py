"""Times as users write them: ISO 8601."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

_ZONE: Final = r"(?:Z|[+-]\d\d(?::?\d\d)?)"
_CLOCK: Final = r"[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
_ISO: Final = re.compile(rf"\d{{4}}-\d\d-\d\d(?:{_CLOCK}{_ZONE}?)?|\d{{8}}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)


def parse_time(text: str) -> int | None:
    """Read an ISO 8601 date or date-time.

    Returns:
        Microseconds from 1970-01-01 in UTC, cut down where there are finer ones; a time without an offset is in UTC,
        a date is its first moment. None where it is not one.
    """
    if not _ISO.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    offset = time.utcoffset() or timedelta()
    # By hand: the first and last days of the calendar have no UTC time as datetimes.
    return (time.replace(tzinfo=None) - _EPOCH) // _MICROSECOND - offset // _MICROSECOND
