"""Which rows of texts are wanted: those of a span of time, and those whose columns meet conditions.

A condition is `COLUMN OP VALUE`. COLUMN is a name as it is in the file, between double quotes or backquotes where it
holds more than letters, digits, `_`, `.` and `-`. OP is one of `=`, `!=`, `<`, `<=`, `>`, `>=` and `in`. VALUE is the
rest of the condition, or anything between single or double quotes, doubled where they are part of it; for `in` a list,
`(a, b, 'c, d')`. What the value means is decided by what the column holds:

| the column holds | VALUE is | compared |
|---|---|---|
| integers, decimals | a number | exactly |
| floating-point numbers | a number | rounded to the column's precision |
| booleans | `true` or `false` | for equality |
| timestamps, dates | an ISO 8601 date or date-time | exactly; without an offset as UTC |
| strings | a string | by code points |
| strings, with `<`, `<=`, `>` or `>=` | a number without quotes | as numbers; a blank cell meets nothing |

CSV holds strings alone. A JSONL column may hold several kinds: each cell is compared as what it is. `COLUMN = null` and
`COLUMN != null` ask whether there is a value; a null meets no other condition. A file without the column holds nulls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, cast

from driftline.components.errors import UsageError
from driftline.components.storage.iso_times import parse_time

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]

_NAME: Final = r'[\w.\-]+|"(?:[^"]|"")+"|`(?:[^`]|``)+`'
_QUOTED: Final = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
_CONDITION: Final = re.compile(rf"\s*({_NAME})\s*(!=|<=|>=|==|=|<|>|in(?=\s|\())\s*(.*?)\s*", re.DOTALL)
_LIST: Final = re.compile(rf"\(\s*((?:{_QUOTED}|[^'\",()]+)(?:,\s*(?:{_QUOTED}|[^'\",()]+)\s*)*)\)", re.DOTALL)
_ITEM: Final = re.compile(rf"\s*({_QUOTED}|[^'\",()]*)\s*(?:,|$)", re.DOTALL)
_HOW: Final = "write COLUMN OP VALUE with OP one of = != < <= > >=, or COLUMN in (VALUE, VALUE)"


@dataclass(frozen=True, slots=True)
class Value:
    """What a condition compares with.

    Attributes:
        text: As written, without quotes.
        quoted: Whether it was between quotes: then it is a string, though it looks like a number or null.
    """

    text: str
    quoted: bool = False

    @property
    def null(self) -> bool:
        """Whether it stands for "no value"."""
        return self.text == "null" and not self.quoted


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition.

    Attributes:
        text: As written.
        column: The column, by the file's name.
        operator: How its cells are compared.
        values: With what: one value; for `in` any number.
    """

    text: str
    column: str
    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class TextSelection:
    """Rows of texts to take: those of a span of time, and those whose columns meet conditions. All, by default.

    Attributes:
        since: The first time taken: an ISO 8601 date or date-time, as UTC where it has no offset. Empty: no bound.
        until: The first time no longer taken; the same. A date is its first moment.
        time_column: The column with the time, by the file's name; read where `since` or `until` is given. It may hold
            timestamps or dates, ISO 8601 strings, or numbers since 1970-01-01 in UTC: seconds where they are less than
            100,000,000,000 from zero (so until the year 5138), else milliseconds (so but for 1966 to 1973). Strings of
            digits are such numbers, but eight of them are a date. A time that is null or none of these is refused.
        where: Conditions such as `category = plot` or `rating >= 7`, all of which must hold; see `text_selection`.

    Raises:
        UsageError: A time or a condition cannot be read, or no time is between the two.
    """

    since: str = ""
    until: str = ""
    time_column: str = "time"
    where: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.timed and not self.time_column:
            raise UsageError("time column: expected a name where since or until is given, got none; name the column")
        since, until = self.since_us, self.until_us
        if since is not None and until is not None and since >= until:
            raise UsageError(f"since {self.since!r} is not before until {self.until!r}; give an earlier since")
        _ = self.conditions

    @property
    def timed(self) -> bool:
        """Whether time is restricted."""
        return bool(self.since or self.until)

    @property
    def since_us(self) -> int | None:
        """`since` in microseconds from 1970-01-01 in UTC; None without."""
        return _bound("since", self.since)

    @property
    def until_us(self) -> int | None:
        """`until` in microseconds from 1970-01-01 in UTC; None without."""
        return _bound("until", self.until)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of `where`, parsed."""
        return tuple(parse_condition(text) for text in self.where)


def _bound(name: str, text: str) -> int | None:
    if not text:
        return None
    time = parse_time(text)
    if time is None:
        raise UsageError(
            f"{name} {text!r}: expected an ISO 8601 date or date-time, such as 2025-01-31 or 2025-01-31T12:00:00Z"
        )
    return time


@lru_cache(maxsize=256)
def parse_condition(text: str) -> Condition:
    """Parse a condition.

    Raises:
        UsageError: It is none.
    """
    match = _CONDITION.fullmatch(text)
    if match is None or not match[3]:
        raise UsageError(f"where {text!r}: expected a column, an operator and a value; {_HOW}")
    operator = cast("Operator", "=" if match[2] == "==" else match[2])
    values = _listed(text, match[3]) if operator == "in" else (_value(text, match[3]),)
    if operator not in ("=", "!=") and any(value.null for value in values):
        raise UsageError(f"where {text!r}: null is compared by = and != alone; quote it to mean the word")
    return Condition(text, _unquoted(match[1], '"`'), operator, values)


def _unquoted(text: str, quotes: str) -> str:
    if text[0] in quotes:
        return text[1:-1].replace(text[0] * 2, text[0])
    return text


def _value(condition: str, text: str) -> Value:
    if text[0] in "'\"":
        if not re.fullmatch(_QUOTED, text, re.DOTALL):
            raise UsageError(
                f"where {condition!r}: {text} begins with a quote but is not one string between two; {_HOW}"
            )
        return Value(_unquoted(text, "'\""), quoted=True)
    return Value(text)


def _listed(condition: str, text: str) -> tuple[Value, ...]:
    match = _LIST.fullmatch(text)
    if match is None:
        raise UsageError(f"where {condition!r}: expected a list, such as (a, b, 'c, d'), got {text}; {_HOW}")
    values: list[Value] = []
    place = 0
    while place < len(match[1]):
        item = cast("re.Match[str]", _ITEM.match(match[1], place))
        word = item[1].strip()
        if not word:
            raise UsageError(f"where {condition!r}: an item of the list is empty; write '' for an empty string")
        values.append(_value(condition, word))
        place = item.end()
    return tuple(values)
