"""Selections applied to rows: cells compared with the values of conditions, times with a span."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.iso_times import parse_time
from driftline.components.storage.texts.arrow_types import is_text
from driftline.components.storage.texts.rows import Cells, NoTime
from driftline.components.storage.texts.selection import Condition, TextSelection, Value

MILLISECONDS_FROM: Final = 10**11
"""Numbers at least so far from zero are milliseconds, those nearer are seconds: the year 5138 of the one is 1973 of the
other."""

_NO_TIME_FROM: Final = 10**14
"""Numbers so far from zero are neither (microseconds, perhaps): the year 5138 in milliseconds."""

_EPOCH_NUMBER: Final = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40})?", re.ASCII)
# What Arrow reads by itself, to the microsecond: everything else goes value by value.
_NAIVE: Final = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$"
_ZONED: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)$"

Mask = npt.NDArray[np.bool_]

TICKS: Final = {"s": Fraction(1, 10**6), "ms": Fraction(1, 10**3), "us": Fraction(1), "ns": Fraction(10**3)}
"""A timestamp's unit: how many of it make a microsecond."""


_ORDER: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_STRING_ORDER: Final = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_NUMBER_CELLS: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


class SelectionFilter:
    """Applies a selection to rows of any format: a `RowFilter`.

    Attributes:
        columns: The columns it looks at, by the file's names; none where it takes all rows.
    """

    def __init__(self, selection: TextSelection) -> None:
        self._timed = selection.timed
        self._time_column = selection.time_column
        self._since, self._until = selection.since_us, selection.until_us
        self._conditions = selection.conditions
        timed = (selection.time_column,) if selection.timed else ()
        self.columns = tuple(dict.fromkeys((*timed, *(condition.column for condition in self._conditions))))

    def mask(self, uri: str, first_row: int, rows: int, cells: Mapping[str, Cells]) -> Mask:
        """Say which of consecutive rows are taken, shape (rows,).

        Conditions are looked at first, so that only rows which meet them need a time.

        Raises:
            DataError: A time is null or cannot be read, or a string is not the number that it is compared as.
            UsageError: A value cannot be compared with what a column holds.
        """
        mask = np.ones(rows, bool)
        for condition in self._conditions:
            mask &= _met(condition, cells[condition.column], rows, partial(_place, uri, condition.column, first_row))
        if self._timed:
            mask &= self._in_time(cells[self._time_column], mask, partial(_place, uri, self._time_column, first_row))
        return mask

    def may_hold(self, name: str, bounds: pa.Array, nulls: bool) -> bool:
        """Say whether a row may be taken whose cell of one column lies between two values, or is null.

        Only for integers and times: other types have values that bounds say nothing about.
        """
        if self._timed and name == self._time_column and pa.types.is_temporal(bounds.type) and not nulls:
            # A null is to be refused, not passed over.
            after, _ = within(bounds, self._since, None)
            before, _ = within(bounds, None, self._until)
            if not (after[1] and before[0]):
                return False
        return all(
            _may_meet(condition, bounds)
            for condition in self._conditions
            if condition.column == name and not condition.values[0].null
        )

    def _in_time(self, cells: Cells, wanted: Mask, place: partial[str]) -> Mask:
        inside = np.zeros(len(wanted), bool)
        read = np.zeros(len(wanted), bool)
        for values in cells:
            taken, known = within(values, self._since, self._until)
            inside |= taken
            read |= known
        unread = wanted & ~read
        if unread.any():
            row = int(np.argmax(unread))
            shown = next((repr(value.as_py())[:60] for values in cells if (value := values[row]).is_valid), "null")
            raise NoTime(
                f"{place(row)} {shown} is not a time, which a window needs; give an ISO 8601 date or date-time, "
                "or seconds or milliseconds since 1970, or remove the row",
                self._time_column,
            )
        return inside


def _place(uri: str, column: str, first_row: int, row: int) -> str:
    return f"{uri}: column {column!r}, row {first_row + row + 1}:"


def _met(condition: Condition, cells: Cells, rows: int, place: partial[str]) -> Mask:
    mask = np.zeros(rows, bool)
    if condition.values[0].null and condition.operator != "in":
        for values in cells:
            mask |= pc.is_valid(values).to_numpy(zero_copy_only=False)
        return mask if condition.operator == "!=" else ~mask
    for values in cells:
        mask |= meets(condition, values, place)
    return mask


def _may_meet(condition: Condition, bounds: pa.Array) -> bool:
    """Say whether a value between two may meet a condition: by comparing the two themselves."""
    if condition.operator in ("<", "<="):
        return bool(meets(condition, bounds, str)[0])
    if condition.operator in (">", ">="):
        return bool(meets(condition, bounds, str)[1])
    if condition.operator == "!=":
        return True
    return any(
        all(_may_meet(Condition(condition.text, condition.column, side, (value,)), bounds) for side in ("<=", ">="))
        for value in condition.values
    )


def meets(condition: Condition, cells: pa.Array, place: Callable[[int], str]) -> Mask:
    """Say which cells meet a condition, null apart: a null meets none here.

    Args:
        condition: Not one on null.
        cells: Shape (rows,), of one type.
        place: Names a row of them for a message.

    Raises:
        UsageError: The value cannot be compared with cells of this type.
        DataError: Strings that are to be compared as numbers are none.
    """
    name = "=" if condition.operator == "in" else condition.operator
    mask = np.zeros(len(cells), bool)
    for value in condition.values:
        mask |= _compared(condition, name, value, cells, place)
    return mask & pc.is_valid(cells).to_numpy(zero_copy_only=False)


def _compared(condition: Condition, name: str, value: Value, cells: pa.Array, place: Callable[[int], str]) -> Mask:
    kind = cells.type
    if pa.types.is_null(kind):
        return np.zeros(len(cells), bool)
    if is_text(kind):
        if name not in ("=", "!=") and not value.quoted and _NUMBER.fullmatch(value.text):
            return _numbers_in_strings(condition, name, value, cells, place)
        plain = cells.cast(pa.string()) if pa.types.is_string_view(kind) else cells
        return pc.fill_null(_STRING_ORDER[name](plain, pa.scalar(value.text, plain.type)), False).to_numpy(
            zero_copy_only=False
        )
    if pa.types.is_boolean(kind):
        truth = {"true": True, "false": False}.get(value.text.lower())
        if truth is None or name not in ("=", "!="):
            raise _unlike(condition, kind, "= or != with true or false")
        return _ORDER[name](_filled(cells, value=False), truth)
    if pa.types.is_integer(kind):
        return _exactly(_filled(cells, value=0), name, _number(condition, value, kind))
    if pa.types.is_floating(kind):
        bound = float(_number(condition, value, kind))
        # Nulls become NaN.
        numbers = cells.to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            return _ORDER[name](numbers, numbers.dtype.type(bound))
    if pa.types.is_decimal(kind):
        exact = _number(condition, value, kind)
        return np.array([cell is not None and _ORDER[name](Fraction(cell), exact) for cell in cells.to_pylist()], bool)
    ticks = time_ticks(cells)
    if ticks is None:
        raise _unlike(condition, kind, "a column of strings, numbers, booleans or times")
    time = parse_time(value.text)
    if time is None:
        raise _unlike(condition, kind, "an ISO 8601 date or date-time")
    return _exactly(ticks[0], name, time * ticks[1])


def _filled(cells: pa.Array, *, value: object) -> npt.NDArray[Any]:
    return pc.fill_null(cells, pa.scalar(value, cells.type)).to_numpy(zero_copy_only=False)


def _number(condition: Condition, value: Value, kind: pa.DataType) -> Fraction:
    if not _NUMBER.fullmatch(value.text):
        raise _unlike(condition, kind, "a number")
    number = Fraction(Decimal(value.text))
    try:
        float(number)
    except OverflowError as error:
        raise _unlike(condition, kind, "a number below 1e308") from error
    return number


def _exactly(numbers: npt.NDArray[Any], name: str, bound: Fraction) -> Mask:
    """Compare integers with a fraction, which need not be one of theirs, nor within their range."""
    below = bound.__floor__()
    if bound.denominator == 1:
        return _ORDER[name](numbers, below)
    if name in ("<", "<="):
        return numbers <= below
    if name in (">", ">="):
        return numbers > below
    return np.full(len(numbers), name == "!=")


def _numbers_in_strings(
    condition: Condition, name: str, value: Value, cells: pa.Array, place: Callable[[int], str]
) -> Mask:
    bound = float(_number(condition, value, cells.type))
    trimmed = pc.utf8_trim_whitespace(cells.cast(pa.string()))
    there = pc.fill_null(pc.not_equal(trimmed, ""), False)
    fits = pc.fill_null(pc.match_substring_regex(trimmed, _NUMBER_CELLS), True)
    odd = pc.and_(there, pc.invert(fits)).to_numpy(zero_copy_only=False)
    if odd.any():
        row = int(np.argmax(odd))
        raise DataError(
            f"{place(row)} {cells[row].as_py()[:40]!r} is not a number, which {condition.text!r} compares with; mend "
            "the cell, or quote the value to compare as strings"
        )
    # Arrow reads no plus sign.
    numbers = np.zeros(len(cells))
    mask = there.to_numpy(zero_copy_only=False)
    plain = pc.replace_substring_regex(trimmed.filter(there), r"^\+", "")
    numbers[mask] = plain.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return _ORDER[name](numbers, bound) & mask


def _unlike(condition: Condition, kind: pa.DataType, expected: str) -> UsageError:
    return UsageError(
        f"where {condition.text!r}: column {condition.column!r} holds {kind}, which cannot be compared so; expected "
        f"{expected}"
    )


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
    if time is not None or len(text) == 8 or not _EPOCH_NUMBER.fullmatch(text):
        return time
    number = Fraction(Decimal(text))
    if abs(number) >= _NO_TIME_FROM:
        return None
    scale = 10**6 if abs(number) < MILLISECONDS_FROM else 10**3
    return (number * scale).__floor__()
