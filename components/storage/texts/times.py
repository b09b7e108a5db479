"""Times as texts carry them: timestamps, dates, ISO 8601 strings, numbers since 1970."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.storage.texts.arrow_types import is_text

MILLISECONDS_FROM: Final = 10**11
"""Numbers at least so far from zero are milliseconds, those nearer are seconds: the year 5138 of the one is 1973 of the
other."""

_NO_TIME_FROM: Final = 10**14
"""Numbers so far from zero are neither (microseconds, perhaps): the year 5138 in milliseconds."""

_ZONE: Final = r"(?:Z|[+-]\d\d(?::?\d\d)?)"
_CLOCK: Final = r"[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
_ISO: Final = re.compile(rf"\d{{4}}-\d\d-\d\d(?:{_CLOCK}{_ZONE}?)?|\d{{8}}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40})?", re.ASCII)
# What Arrow reads by itself, to the microsecond: everything else goes value by value.
_NAIVE: Final = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$"
_ZONED: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)$"
_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)

Mask = npt.NDArray[np.bool_]

TICKS: Final = {"s": Fraction(1, 10**6), "ms": Fraction(1, 10**3), "us": Fraction(1), "ns": Fraction(10**3)}
"""A timestamp's unit: how many of it make a microsecond."""


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


def time_ticks(values: pa.Array) -> tuple[npt.NDArray[np.int64], Fraction] | None:
    """The numbers within timestamps or dates, and how many make a microsecond; nulls are 0. None for other types."""
    kind = values.type
    if pa.types.is_timestamp(kind):
        return _integers(values.cast(pa.int64())), TICKS[kind.unit]
    if pa.types.is_date32(kind):
        return _integers(values.cast(pa.int32())).astype(np.int64), Fraction(1, 86_400 * 10**6)
    if pa.types.is_date64(kind):
        return _integers(values.cast(pa.int64())), TICKS["ms"]
    return None


def _integers(values: pa.Array) -> npt.NDArray[np.int64]:
    return pc.fill_null(values, 0).to_numpy(zero_copy_only=False)


def within(values: pa.Array, since_us: int | None, until_us: int | None) -> tuple[Mask, Mask]:
    """Say which times are in [since, until), and which can be read at all.

    Args:
        values: Cells of one type, shape (rows,).
        since_us: Microseconds from 1970-01-01 in UTC; None for no bound.
        until_us: The same.

    Returns:
        Two masks, shape (rows,): in the span, and read. A null is neither.
    """
    there = pc.is_valid(values).to_numpy(zero_copy_only=False)
    ticks = time_ticks(values)
    if ticks is not None:
        numbers, per_microsecond = ticks
        return _between(numbers, since_us, until_us, per_microsecond) & there, there
    if is_text(values.type):
        times, read = _from_strings(values)
        return _between(times, since_us, until_us, Fraction(1)) & read, read
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return _from_numbers(values, there, since_us, until_us)
    return np.zeros(len(values), bool), np.zeros(len(values), bool)


def _between(
    times: npt.NDArray[np.int64], since_us: int | None, until_us: int | None, per_microsecond: Fraction
) -> Mask:
    # A bound between two ticks is moved up to the next: nothing lies between.
    mask = np.ones(len(times), bool)
    if since_us is not None:
        mask &= times >= _ceiling(since_us * per_microsecond)
    if until_us is not None:
        mask &= times < _ceiling(until_us * per_microsecond)
    return mask


def _ceiling(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def _from_numbers(values: pa.Array, there: Mask, since_us: int | None, until_us: int | None) -> tuple[Mask, Mask]:
    if pa.types.is_floating(values.type):
        # Nulls become NaN.
        filled = values.to_numpy(zero_copy_only=False).astype(np.float64)
    else:
        filled = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    # Not by np.abs, which the least integer overflows.
    near = (filled > -MILLISECONDS_FROM) & (filled < MILLISECONDS_FROM)
    read = (filled > -_NO_TIME_FROM) & (filled < _NO_TIME_FROM) & there
    mask = np.zeros(len(values), bool)
    for chosen, unit in ((near, "s"), (~near, "ms")):
        if pa.types.is_floating(values.type):
            inside = np.ones(len(values), bool)
            if since_us is not None:
                inside &= filled >= float(since_us * TICKS[unit])
            if until_us is not None:
                inside &= filled < float(until_us * TICKS[unit])
        else:
            inside = _between(filled, since_us, until_us, TICKS[unit])
        mask |= inside & chosen
    return mask & read, read


def _from_strings(values: pa.Array) -> tuple[npt.NDArray[np.int64], Mask]:
    """Microseconds of each string, 0 where it is no time, and whether it is one."""
    times = np.zeros(len(values), np.int64)
    read = np.zeros(len(values), bool)
    if not pa.types.is_string(values.type):
        values = values.cast(pa.string())
    for pattern, kind in ((_NAIVE, pa.timestamp("us")), (_ZONED, pa.timestamp("us", "UTC"))):
        fits = pc.fill_null(pc.match_substring_regex(values, pattern), False)
        mask = fits.to_numpy(zero_copy_only=False)
        if not mask.any():
            continue
        try:
            times[mask] = values.filter(fits).cast(kind).cast(pa.int64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            # One is no date, February 30 say: found below.
            continue
        read |= mask
    for row in np.flatnonzero(~read & pc.is_valid(values).to_numpy(zero_copy_only=False)).tolist():
        time = _from_string(values[row].as_py())
        if time is not None:
            times[row], read[row] = time, True
    return times, read


def _from_string(text: str) -> int | None:
    time = parse_time(text)
    if time is not None or len(text) == 8 or not _NUMBER.fullmatch(text):
        return time
    number = Fraction(Decimal(text))
    if abs(number) >= _NO_TIME_FROM:
        return None
    scale = 10**6 if abs(number) < MILLISECONDS_FROM else 10**3
    return (number * scale).__floor__()
