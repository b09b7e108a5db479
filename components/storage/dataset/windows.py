"""Windows of time that roll: levels such as `date=-7d..-1d` in a URI, and times such as `-1d`, as of one moment.

A schedule gives each of its runs the same settings, so that these say the window in relation to the moment that the run
is made for, `as_of`. Everything is in UTC, in whole days and whole hours:

| written | means, as of 2026-11-30T13:45Z |
|---|---|
| `date=today`, `date=-0d` | `date=2026-11-30`, which is not over yet |
| `date=yesterday`, `date=-1d` | `date=2026-11-29` |
| `date=-7d..-1d` | `date=2026-11-23..2026-11-29`: seven days, both ends included |
| `date=2026-11-01..yesterday` | `date=2026-11-01..2026-11-29` |
| `date=-7d..-1d/hour=00..11/model=M` | the mornings of these days, of one model |
| `hour=-1h` | `date=2026-11-30/hour=12` |
| `hour=-24h..-1h` | `hour=2026-11-29T13..2026-11-30T12`: twenty-four hours, read from `date=…/hour=…` |

Only levels named `date` and `hour` are read so. `hour=-24h..-1h` crosses days and therefore stands where the level for
the date would: `ARCHIVE/hour=-24h..-1h/model=M`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.dataset.manifest import MANIFEST_NAME
from driftline.components.storage.dataset.partitions import (
    LAST,
    Selector,
    dataset_folders,
    folder_of,
    manifest_folders,
    selected_folders,
)
from driftline.components.storage.dataset.prefetch import ReadAhead
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.iso_times import parse_time
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import normalised

MOST_PARTS: Final = 100_000
"""Days or hours of a window: 273 years, or 11 years of hours. Whoever wants more wants the whole folder."""

ARCHIVE_STATE: Final = "_archive"
"""Folder that a streaming archive keeps from its first start on: where it is, datasets will come."""

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)

_DATE_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?)?"  # ISO 8601, RFC 3339
    r"|\d{8}(?:[Tt]\d{4}(?:\d\d)?(?:[Zz]|[+-]\d{4})?)?"
    r"|\d{12}(?:\d\d)?",
    re.ASCII,
)
_PLACEHOLDER: Final = re.compile(r"\[\[|\{\{")
_RELATIVE: Final = re.compile(r"-(\d{1,7})([dh])|0([dh])", re.ASCII)
_WORDS: Final = {"today": 0, "yesterday": 1}
# What is taken for a relative time, rightly written or not: no folder of an archive is named so.
_LOOKS_RELATIVE: Final = re.compile(r"[-+].*|\d+\s*[dDhH]|today|yesterday|tomorrow|now|", re.ASCII | re.IGNORECASE)
_LOOKS_TIMED: Final = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}", re.ASCII)
_CALENDAR_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_HOUR_OF_DAY: Final = re.compile(r"[01]\d|2[0-3]", re.ASCII)
_DAY_AND_HOUR: Final = re.compile(r"(\d{4}-\d\d-\d\d)T([01]\d|2[0-3])", re.ASCII)
_LEVEL: Final = re.compile(r"(date|hour)=(.*)", re.DOTALL)

_WRITE_DATE: Final = "write date=yesterday, date=-7d..-1d or date=2026-11-18..2026-11-24"
_WRITE_HOUR: Final = (
    "write hour=-24h..-1h or hour=2026-11-29T13..2026-11-30T12 in the place of the date level, or hour=00..11 below it"
)
_WRITE_TIME: Final = (
    "write today, yesterday, -7d, -24h, or an ISO 8601 date or date-time such as 2026-11-30 or 2026-11-30T12:00:00Z"
)

_Unit = Literal["d", "h"]


class EmptyWindow(DataError):  # noqa: N818 - named for what it is: a quiet night is no error of anybody's
    """Nothing lies in a window, though there are datasets of other times: the stream was quiet, or is late."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a URI means as of one moment.

    Attributes:
        asked: The URI as it was given.
        uri: What it means: absolute, fit for `EmbeddingsDataset.open` at any time.
        ranged: Whether it is relative, or a range of days or hours: then nothing may lie in it, and be right.
        expected: The days (`date=2026-11-24`) or hours (`date=2026-11-24/hour=13`) that it takes, ascending; none
            where it is no such window.
        base: The folder before the window's first level; empty where it is none.
        below: The levels below that, absolute; `uri` is both together.
    """

    asked: str
    uri: str
    ranged: bool = False
    expected: tuple[str, ...] = ()
    base: str = ""
    below: str = ""


def parse_as_of(text: str, now: datetime) -> datetime:
    """Read the moment that a run is made for.

    Args:
        text: An ISO 8601 date or date-time, as UTC where it has no offset; or the compact forms that a backend fills
            in, 20261130 and 20261130000500. A date is its first moment. Empty: now.
        now: What empty means; with a time zone.

    Returns:
        The moment in UTC.

    Raises:
        UsageError: It is none of these, or a placeholder that the backend has not filled in.
    """
    given = text.strip()
    if not given:
        return _utc(now)
    _refuse_placeholder("as_of", given)
    try:
        if not _DATE_TIME.fullmatch(given):
            raise ValueError
        if given.isdigit() and len(given) > len("20261130"):
            given = f"{given[:8]}T{given[8:]}"
        time = datetime.fromisoformat(given.upper())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"as_of {text!r}: expected a date or a date-time such as 2026-11-30, 2026-11-30T00:05:00Z, "
            "2026-11-30T01:05+01:00, 20261130 or 20261130000500; leave it empty for now"
        ) from None


def resolve_time(text: str, as_of: datetime, name: str = "time") -> str:
    """Say what a bound of time means as of a moment.

    Args:
        text: `today`, `yesterday` or `-Nd`, the first moment of that day; `-Nh`, the first moment of that hour; an
            ISO 8601 date or date-time; or empty.
        as_of: The moment; with a time zone.
        name: What the bound is called, for the errors.

    Returns:
        An absolute time in ISO 8601, such as 2026-11-29T00:00:00Z; what was absolute or empty, as it is.

    Raises:
        UsageError: It is none of these, or a placeholder that the backend has not filled in.
    """
    if not text or parse_time(text) is not None:
        return text
    _refuse_placeholder(name, text)
    found = _relative(text, _utc(as_of), name)
    if found is None:
        raise UsageError(f"{name} {text!r} {_fault(text)}; {_WRITE_TIME}")
    return f"{found[0].replace(tzinfo=None).isoformat()}Z"


def window_of(uri: str, as_of: datetime) -> Window:
    """Say what a URI means as of a moment.

    Args:
        uri: An embeddings dataset's folder, or folders of them, in which levels named `date` and `hour` may be
            relative, as the module describes.
        as_of: The moment; with a time zone.

    Returns:
        The window. A URI without such levels, and without ranges of days or hours, is none and stays as it is.

    Raises:
        UsageError: A level is reversed, in the future, or not written right; or the URI is none.
    """
    moment = _utc(as_of)
    store.join(uri)  # refuses what is no URI
    components = normalised(uri).split("/")
    levels = [
        _Level(number, found[1], found[2], _span(uri, found[1], found[2], moment))
        for number, component in enumerate(components)
        if (found := _LEVEL.fullmatch(component))
    ]
    windows = [level for level in levels if level.span is not None]
    if not windows:
        return Window(uri, uri)
    names = [level.name for level in windows]
    if len(set(names)) < len(names):
        raise UsageError(f"{uri}: {names[0]} is a window at two levels; give one of them")
    for level in windows:
        others = [other for other in levels if other is not level]
        if level.span is not None and level.span.crosses_days and others:
            other = components[others[0].number]
            raise UsageError(
                f"{uri}: {components[level.number]} names its days itself, and {other} is a level for days or hours as "
                f"well; {_WRITE_HOUR}"
            )
    start = windows[0].number
    if "date" not in names:  # one plain day before a range of its hours is part of the window
        start = max((level.number for level in levels if level.name == "date" and level.number < start), default=start)
    expected = _expected(uri, [level for level in levels if level.number >= start])
    for level in windows:
        if level.span is not None:
            components[level.number] = level.span.resolved
    below = "/".join(components[start:])
    return Window(uri, "/".join(components), True, expected, folder_of(components[:start], uri), below.strip("/"))


def open_window(window: Window, ahead: ReadAhead | None = None) -> EmbeddingsDataset:
    """Open what lies in a window.

    Args:
        window: As `window_of` returned it.
        ahead: How far to read ahead, as for `EmbeddingsDataset.open`.

    Raises:
        EmptyWindow: Nothing does, though the folder before the window's first level holds datasets of other days or
            hours, or is an archive that holds none yet.
        DataError: Nothing does, nor does that folder hold any such dataset: the path is misspelt, or nothing was ever
            written. Or as for `EmbeddingsDataset.open`.
        StorageError: A manifest cannot be read.
    """
    if not window.ranged:
        return EmbeddingsDataset.open(window.uri, ahead)
    found = EmbeddingsDataset.find(window.uri, ahead)
    if found is not None:
        return found
    what = window.asked if window.asked == window.uri else f"{window.asked} (now {window.uri})"
    alike, others = _elsewhere(window)
    if alike:
        raise EmptyWindow(
            f"{what}: no dataset lies in this window, though {window.base} holds others, such as {alike}; nothing was "
            "written in that time, or an archive or a backfill is late"
        )
    if others:
        raise DataError(
            f"{what}: no dataset of any day or hour lies in folders like {window.below} below {window.base}, which "
            f"holds {others}; check the levels and their values"
        )
    if store.exists(store.join(window.base, ARCHIVE_STATE)):
        raise EmptyWindow(f"{what}: no dataset lies in this window; the archive {window.base} holds none yet")
    raise DataError(
        f"{what}: {window.base} holds no dataset at all in folders such as {window.expected[0]} (there is no "
        f"{MANIFEST_NAME}); check the path, or run the archive or the backfill that writes them"
    )


def missing_parts(window: Window, dataset: EmbeddingsDataset | None = None) -> tuple[str, ...]:
    """Return the days or hours of a window that no dataset is there for, as `Window.expected` names them.

    Args:
        window: As `window_of` returned it.
        dataset: What `open_window` returned for it: then nothing is listed, and the answer is about what it reads.

    Raises:
        StorageError: The datasets cannot be listed.
    """
    if not window.expected:
        return ()
    names = {part.partition("=")[0] for part in window.expected[0].split("/")}
    found: set[str] = set()
    for folder in dataset.folders if dataset is not None else _folders(window.uri):
        # The last of a name counts: the folders before the window may be called alike.
        levels = {level[1]: level[0] for part in folder.split("/") if (level := _LEVEL.fullmatch(part))}
        found.add("/".join(levels[name] for name in ("date", "hour") if name in names and name in levels))
    return tuple(part for part in window.expected if part not in found)


@dataclass(frozen=True, slots=True)
class _Span:
    """What a relative level, or a range, takes.

    Attributes:
        resolved: The level, absolute.
        parts: Its days or hours, as folders.
        crosses_days: Whether these folders have two levels, `date=…/hour=…`.
    """

    resolved: str
    parts: tuple[str, ...]
    crosses_days: bool = False


@dataclass(frozen=True, slots=True)
class _Level:
    """A component of a URI that is named date or hour; `span` is None where it is one plain folder."""

    number: int
    name: str
    value: str
    span: _Span | None

    @property
    def parts(self) -> tuple[str, ...]:
        return (f"{self.name}={self.value}",) if self.span is None else self.span.parts


def _expected(uri: str, levels: Sequence[_Level]) -> tuple[str, ...]:
    """The days or hours of a window: hours where a level names them."""
    by_name = {level.name: level.parts for level in levels}
    days, hours = by_name.get("date", ("",)), by_name.get("hour", ("",))
    _check_parts(uri, len(days) * len(hours))
    return tuple(f"{day}/{hour}".strip("/") for day in days for hour in hours)


def _check_parts(uri: str, parts: int) -> None:
    if parts > MOST_PARTS:
        raise UsageError(
            f"{uri}: expected a window of at most {MOST_PARTS:,} days or hours, got {parts:,}; name the folder itself "
            "for all that it holds"
        )


def _span(uri: str, name: str, value: str, as_of: datetime) -> _Span | None:
    """Read the value of a level; None where it is a plain folder, or a range of something else."""
    where = f"{uri}: {name}"
    _refuse_placeholder(where, value)
    low, dots, high = value.partition("..")
    ends = [low, high] if dots else [low]
    if not any(_LOOKS_RELATIVE.fullmatch(end) or (dots and _LOOKS_TIMED.fullmatch(end)) for end in ends):
        return None
    return _days(where, ends, as_of) if name == "date" else _hours(where, ends, as_of)


def _days(where: str, ends: Sequence[str], as_of: datetime) -> _Span:
    times = [_calendar_day(end) or _relative_to(where, end, as_of, "d", _WRITE_DATE) for end in ends]
    first, last = times[0].date(), times[-1].date()
    _check_order(where, ends, first.isoformat(), last.isoformat(), as_of.date().isoformat(), _WRITE_DATE)
    _check_parts(where, (last - first).days + 1)
    ordinals = range(first.toordinal(), last.toordinal() + 1)
    days = tuple(f"date={date.fromordinal(ordinal).isoformat()}" for ordinal in ordinals)
    return _Span(f"{days[0]}..{last.isoformat()}" if len(ends) > 1 else days[0], days)


def _hours(where: str, ends: Sequence[str], as_of: datetime) -> _Span:
    if all(end.isdecimal() for end in ends):
        wrong = next((end for end in ends if not _HOUR_OF_DAY.fullmatch(end)), None)
        if wrong is not None:
            raise UsageError(f"{where} {wrong!r} is none of a day's hours, 00 to 23; {_WRITE_HOUR}")
        _check_order(where, ends, ends[0], ends[-1], "", _WRITE_HOUR)
        return _Span(
            f"hour={ends[0]}..{ends[-1]}", tuple(f"hour={hour:02d}" for hour in range(int(ends[0]), int(ends[-1]) + 1))
        )
    times = [_day_and_hour(end) or _relative_to(where, end, as_of, "h", _WRITE_HOUR) for end in ends]
    shown = [time.isoformat()[: len("2026-11-30T12")] for time in times]
    _check_order(where, ends, shown[0], shown[-1], as_of.isoformat(), _WRITE_HOUR)
    count = (times[-1] - times[0]) // _HOUR + 1
    _check_parts(where, count)
    hours = (times[0] + number * _HOUR for number in range(count))
    parts = tuple(f"date={time.date().isoformat()}/hour={time.hour:02d}" for time in hours)
    return _Span(f"hour={'..'.join(shown)}" if len(ends) > 1 else parts[0], parts, crosses_days=True)


def _check_order(where: str, ends: Sequence[str], low: str, high: str, latest: str, write: str) -> None:
    """Refuse a range that ends before it begins, or one that is relative and ends after `latest`."""
    if low > high:
        raise UsageError(f"{where} begins at {low}, after its end {high}; put the earlier end first: {write}")
    if high > latest and any(_LOOKS_RELATIVE.fullmatch(end) for end in ends):
        raise UsageError(f"{where} ends at {high}, in the future as of {latest}; {write}")


def _relative_to(where: str, end: str, as_of: datetime, unit: _Unit, write: str) -> datetime:
    found = _relative(end, as_of, where)
    if found is None:
        raise UsageError(f"{where} {end!r} {_fault(end)}; {write}")
    time, its_unit = found
    if its_unit != unit:
        units = "hours, where days" if its_unit == "h" else "days, where hours"
        raise UsageError(f"{where} {end!r} counts {units} are expected; {write}")
    return time


def _fault(end: str) -> str:
    if not end:
        return "is empty, where a day or an hour is expected"
    if _HOUR_OF_DAY.fullmatch(end):
        return "is an hour of any day, where an hour of a named day is expected"
    if re.fullmatch(r"\+.*|\d+\s*[dh]|tomorrow", end, re.IGNORECASE | re.ASCII):
        return "lies in the future: windows look back from as_of, as -7d and -24h do"
    return "is no day or hour that there is" if _LOOKS_TIMED.fullmatch(end) else "is not understood"


def _relative(text: str, as_of: datetime, where: str) -> tuple[datetime, _Unit] | None:
    """The first moment of the day or the hour that a text names in relation to `as_of`; None where it is none."""
    day = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    found = _RELATIVE.fullmatch(text)
    try:
        if text in _WORDS:
            return day - _WORDS[text] * _DAY, "d"
        if found is None:
            return None
        count = int(found[1] or 0)
        if (found[2] or found[3]) == "d":
            return day - count * _DAY, "d"
        return day.replace(hour=as_of.hour) - count * _HOUR, "h"
    except OverflowError:
        raise UsageError(f"{where} {text!r} reaches back before the year 1; give less") from None


def _calendar_day(text: str) -> datetime | None:
    return _iso(text) if _CALENDAR_DAY.fullmatch(text) else None


def _day_and_hour(text: str) -> datetime | None:
    return _iso(text) if _DAY_AND_HOUR.fullmatch(text) else None


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # February 30, say
        return None


def _utc(time: datetime) -> datetime:
    if time.utcoffset() is None:
        raise UsageError(f"{time.isoformat()}: a moment without a time zone; give one with, such as datetime.now(UTC)")
    return time.astimezone(UTC)


def _refuse_placeholder(what: str, text: str) -> None:
    """Raise UsageError for a text that the backend should have filled in."""
    if _PLACEHOLDER.search(text):
        raise UsageError(
            f"{what} {text!r} is a placeholder that the backend has not filled in (KFP fills in few, from 2.16 on, and "
            "in recurring runs only where they always use the latest version of the pipeline); leave as_of empty for "
            "the time at which the run starts, or give a date, and write windows as date=yesterday or -1d"
        )


def _folders(uri: str) -> tuple[str, ...]:
    """The folders of the datasets that `EmbeddingsDataset.open` would read, by their names alone."""
    base, selectors = selected_folders(uri)
    if not selectors and store.exists(store.join(base, MANIFEST_NAME)):
        return (base,)
    return tuple(store.join(base, name) for name in dataset_folders(base, selectors))


def _elsewhere(window: Window) -> tuple[str, str]:
    """Look for datasets of other days or hours than a window's, the newest first.

    Returns:
        One that differs from the window's in nothing else; or, where there is none, the newest of any kind. Both
        empty: there is no dataset.
    """
    tests = _tests(window.below)
    newest = ""
    for outer in reversed(store.list_folders(window.base)):
        if not tests[0](outer):
            continue
        for name in reversed(manifest_folders(window.base, outer)):
            levels = name.split("/")
            newest = newest or name
            if len(levels) >= len(tests) and all(test(level) for test, level in zip(tests, levels, strict=False)):
                return name, name
    return "", newest


def _tests(below: str) -> list[Callable[[str], bool]]:
    """What tells, level by level, whether a folder differs from those of a window in its day or hour at most."""
    tests: list[Callable[[str], bool]] = []
    for component in filter(None, below.split("/")):
        selector = Selector.parse(component)
        if selector is None:
            tests.append(component.__eq__)
        elif selector.name not in ("date", "hour"):
            tests.append(selector.takes)
        else:
            names = ("date", "hour") if selector.crosses_days else (selector.name,)
            tests += [Selector(name, "", LAST).takes for name in names]
    return tests
