"""Selections, applied to rows."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.storage.texts.compare import meets
from driftline.components.storage.texts.rows import Cells, NoTime
from driftline.components.storage.texts.selection import Condition, TextSelection
from driftline.components.storage.texts.times import within

Mask = npt.NDArray[np.bool_]


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
