"""Cells compared with the value of a condition."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.texts.arrow_types import is_text
from driftline.components.storage.texts.selection import Condition, Value
from driftline.components.storage.texts.times import parse_time, time_ticks

Mask = npt.NDArray[np.bool_]

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
