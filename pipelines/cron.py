"""Cron lines as Kubeflow's controller of schedules reads them: robfig/cron v1.2, six fields, seconds first.

The server takes five fields too, and reads the first as seconds: ``5 0 * * *``, daily at 00:05 to everybody else, runs
24 times a day, and ``30 2 * * 1`` first in January. So five fields are what Unix means by them here, and six are sent.
The rules are those of robfig/cron where they differ from Unix's: no day 7, no ``L``; a star, also one with a step, in
either of the two days means that both must hold; times that a clock change leaves out are left out, and those that it
repeats come twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from driftline.components.errors import UsageError

_YEARS: Final = 5  # the controller looks no further ahead
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Range:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def value(self, text: str) -> int | None:
        """Return the number that a number or a name stands for; None where it is out of range or neither."""
        if text.lower() in self.names:
            return self.low + self.names.index(text.lower())
        return int(text) if text.isdecimal() and self.low <= int(text) <= self.high else None


_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    _Range("second", 0, 59),
    _Range("minute", 0, 59),
    _Range("hour", 0, 23),
    _Range("day of the month", 1, 31),
    _Range("month", 1, 12, _MONTHS),
    _Range("day of the week", 0, 6, _DAYS),
)
_ITEM: Final = re.compile(r"(?:(?P<star>[*?])|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d{1,4}))?", re.ASCII)
_WORDS: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_EVERY: Final = re.compile(r"@every ((?:\d+(?:\.\d+)?[hms])+)")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([hms])")
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1}
_EXPECTED: Final = (
    "expected five fields, minute hour day month weekday, such as '5 0 * * *' for 00:05 each day; or six, seconds "
    "first; or @daily, @hourly, @weekly, @monthly, @every 12h"
)


@dataclass(frozen=True, slots=True)
class Cron:
    """When a schedule starts runs.

    Attributes:
        line: as it is sent.
        note: what the user should know of it; empty for nothing.
    """

    line: str
    note: str = ""
    _fields: tuple[frozenset[int], ...] = ()
    _both_days: bool = True
    _every_s: int = 0

    def next(self, after: datetime) -> datetime | None:
        """Return the first time after another, in its zone; None where none comes within five years."""
        zone = after.tzinfo or UTC
        if self._every_s:
            # Seconds that pass, whatever the clock says meanwhile.
            later = after.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=self._every_s)
            return later.astimezone(zone)
        return next((one for one in self._times(after, zone) if one.astimezone(UTC) > after.astimezone(UTC)), None)

    def next_times(self, after: datetime, count: int = 3) -> list[datetime]:
        """Return the first times after another, as many as come."""
        times: list[datetime] = []
        while len(times) < count:
            following = self.next(times[-1] if times else after)
            if following is None:
                break
            times.append(following)
        return times

    def _times(self, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Yield the times from a day's beginning on."""
        seconds, minutes, hours, _, _, _ = self._fields
        day = after.date()
        while day.year <= after.year + _YEARS:
            if self._on(day):
                # By the minutes that pass, not by those on the clock: a change of it leaves some out, repeats others.
                minute = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) - timedelta(hours=3)
                for _ in range(31 * 60):
                    local = minute.astimezone(zone)
                    if local.date() == day and local.hour in hours and local.minute in minutes:
                        yield from (local.replace(second=second) for second in sorted(seconds))
                    minute += _MINUTE
            day += timedelta(days=1)

    def _on(self, day: date) -> bool:
        _, _, _, days, months, weekdays = self._fields
        if day.month not in months:
            return False
        of_month, of_week = day.day in days, day.isoweekday() % 7 in weekdays
        return of_month and of_week if self._both_days else of_month or of_week


def parse_cron(given: str) -> Cron:
    """Read a cron line as typed; five fields are Unix's.

    Raises:
        UsageError: the controller would not take it, or never run it.
    """
    words = given.split()
    line = " ".join(words)
    if line.startswith("@"):
        return _word(line)
    if words and words[0].upper().startswith(("TZ=", "CRON_TZ=")):
        raise UsageError(
            f"cron {line!r}: a time zone cannot be set for one schedule; leave {words[0]} out: the controller's zone, "
            "its CRON_SCHEDULE_TIMEZONE, holds for all"
        )
    note = ""
    match len(words):
        case 5:
            words = ["0", *words]
        case 6 if words[0].isdecimal():
            if int(words[0]):
                note = f"six fields: the first is the second; for Unix's five fields of {line!r}, leave one out"
        case 6:
            note = f"six fields: the first is the second, so that {words[0]} runs it more than once a minute"
        case count:
            raise UsageError(f"cron {line!r}: {_EXPECTED}; got {count} field{'' if count == 1 else 's'}")
    fields = tuple(_field(text, allowed, line) for text, allowed in zip(words, _FIELDS, strict=True))
    starred = any(text.startswith(("*", "?")) for place in (3, 5) for text in words[place].split(","))
    cron = Cron(" ".join(words), note, fields, starred)
    if cron.next(datetime.now(UTC)) is None:
        raise UsageError(f"cron {line!r}: no such day comes within {_YEARS} years; check the day and the month")
    return cron


def parse_zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"zone: expected a name such as UTC or Europe/Berlin, got {name!r}") from error


def _word(line: str) -> Cron:
    if line in _WORDS:
        fields = tuple(_field(text, allowed, line) for text, allowed in zip(_WORDS[line].split(), _FIELDS, strict=True))
        return Cron(line, "", fields)
    every = _EVERY.fullmatch(line)
    if every is None:
        raise UsageError(f"cron {line!r}: {_EXPECTED}")
    seconds = int(sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(every[1])))
    if seconds < 1:
        raise UsageError(f"cron {line!r}: expected a second at least")
    return Cron(line, "counted from when the schedule is made, not from midnight", _every_s=seconds)


def _field(text: str, allowed: _Range, line: str) -> frozenset[int]:
    """Return the values of a field."""
    return frozenset(value for item in text.split(",") for value in _item(item, allowed, line))


def _item(item: str, allowed: _Range, line: str) -> range:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise _wrong(item, allowed, line)
    step = int(found["step"] or 1)
    if found["star"]:
        low, high = allowed.low, allowed.high
    else:
        low = _number(found["low"], item, allowed, line)
        # "5/20" is "from 5 on, each 20th".
        alone = allowed.high if found["step"] else low
        high = alone if found["high"] is None else _number(found["high"], item, allowed, line)
    if step == 0 or low > high:
        raise _wrong(item, allowed, line)
    return range(low, high + 1, step)


def _number(text: str, item: str, allowed: _Range, line: str) -> int:
    value = allowed.value(text)
    if value is None:
        raise _wrong(item, allowed, line)
    return value


def _wrong(item: str, allowed: _Range, line: str) -> UsageError:
    names = f" or {', '.join(allowed.names).upper()}" if allowed.names else ""
    return UsageError(
        f"cron {line!r}: {allowed.name}: expected numbers from {allowed.low} to {allowed.high}{names}, *, lists, "
        f"ranges and steps, got {item!r}"
    )
