"""What kinds of values JSONL columns hold, and their cells as Arrow arrays."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from driftline.components.errors import DataError
from driftline.components.storage.texts.arrow_types import JSON_TYPE
from driftline.components.storage.texts.rows import Cells

HALF = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair: a string that holds one is no Unicode."""

_INT64 = range(-(2**63), 2**63)
# Up to here every integer has its own float64, so that a column of both kinds loses nothing as doubles.
_EXACT_IN_DOUBLE = 2**53
_KINDS: dict[type, str] = {bool: "bool", float: "double", str: "string"}


class JsonKinds:
    """What kinds of values a JSONL column has shown so far."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.exact = True

    def see(self, values: Sequence[object]) -> None:
        """Take more values into account; null shows nothing."""
        types = set(map(type, values))
        self.kinds.update(_KINDS.get(kind, JSON_TYPE) for kind in types if kind not in (int, type(None)))
        if int in types:
            # By type: bool is a kind of its own.
            integers = [value for value in values if type(value) is int]
            least, greatest = min(integers), max(integers)
            if least in _INT64 or greatest in _INT64:
                self.kinds.add("int64")
            if least not in _INT64 or greatest not in _INT64:
                self.kinds.add(JSON_TYPE)
            self.exact = self.exact and least >= -_EXACT_IN_DOUBLE and greatest <= _EXACT_IN_DOUBLE

    def type_name(self) -> str:
        """The type that holds them all."""
        if not self.kinds:
            return "null"
        if len(self.kinds) == 1:
            return next(iter(self.kinds))
        return "double" if self.kinds == {"int64", "double"} and self.exact else JSON_TYPE


def json_text(value: object, *, mended: bool = True) -> str:
    """A value as JSON text, on one line; half surrogate pairs in it become U+FFFD, unless they are to be found."""
    text = json.dumps(value, ensure_ascii=False)
    return HALF.sub("\ufffd", text) if mended else text


_CONVERT: dict[str, Callable[[Any], object]] = {"double": float, JSON_TYPE: json_text}
_JSON_ARROW = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    JSON_TYPE: pa.string(),
}


def json_column(uri: str, name: str, kind: str, cells: list[Any]) -> pa.Array:
    """The cells of a column in the type that a scan found.

    Raises:
        DataError: They do not fit.
    """
    convert = _CONVERT.get(kind)
    if convert is not None:
        cells = [None if cell is None else convert(cell) for cell in cells]
    try:
        return pa.array(cells, _JSON_ARROW[kind])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{uri}: column {name!r} no longer holds {kind} values; the file has changed: scan it again"
        ) from error


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if value in _INT64 else "double"
    return "double" if isinstance(value, float) else "string" if isinstance(value, str) else JSON_TYPE


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def json_cells(values: Sequence[Any]) -> Cells:
    """A column's cells as one array a kind: booleans, 64-bit integers, doubles, strings, nested values as JSON text.

    Integers of more than 64 bits are doubles. Nested values come as a list of one JSON text, so that a filter tells
    them from strings.
    """
    kinds = [None if value is None else _kind(value) for value in values]
    arrays: list[pa.Array] = []
    for kind in sorted({kind for kind in kinds if kind is not None}):
        cells: list[Any] = [value if own == kind else None for value, own in zip(values, kinds, strict=True)]
        if kind == "double":
            cells = [None if cell is None else _double(cell) for cell in cells]
        if kind == JSON_TYPE:
            cells = [None if cell is None else [json_text(cell)] for cell in cells]
        arrays.append(pa.array(cells, pa.list_(pa.string()) if kind == JSON_TYPE else _JSON_ARROW[kind]))
    return tuple(arrays)
