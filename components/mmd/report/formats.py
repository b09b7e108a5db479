"""Numbers, dates and foreign texts as the report writes them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

ABSENT = "\N{EN DASH}"
"""Stands where a number is not finite."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
# Control characters, lone surrogates and the non-characters of the first plane: none may stand in an HTML
# file, and a lone surrogate cannot be written as UTF-8. Tab, line feed and carriage return are white space.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def power_of_ten(exponent: int) -> str:
    """Return ``×10ⁿ``."""
    return f"\N{MULTIPLICATION SIGN}10{str(exponent).translate(_SUPERSCRIPT)}"


def signed(text: str) -> str:
    """Return a formatted number with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def number(value: float, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits.

    Plain from 0.0001 to a million, else with a power of ten.
    A value that is not finite is written as :data:`ABSENT`.
    """
    if not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    mantissa, _, exponent_text = f"{value:.{digits - 1}e}".partition("e")
    exponent = int(exponent_text)
    if not -4 <= exponent < 6:
        return signed(f"{mantissa}{power_of_ten(exponent)}")
    return signed(f"{value:,.{max(0, digits - 1 - exponent)}f}")


def between(interval: tuple[float, float], digits: int = 3) -> str:
    """Return an interval's ends in words: ``0.00012 to 0.00034``."""
    low, high = interval
    return f"{number(low, digits)} to {number(high, digits)}"


def exact(value: float) -> str:
    """Return a number with up to nine significant digits in plain ASCII, fit to be copied into a program."""
    return f"{value:.9g}" if math.isfinite(value) else ABSENT


def about(value: float) -> str:
    """Return an expected count: two significant digits below ten, a whole number above."""
    if not math.isfinite(value):
        return ABSENT
    return f"{value:.2g}" if value < 9.95 else count(round(value))


def count(value: int) -> str:
    """Return a whole number with a comma every three digits."""
    return signed(f"{value:,}")


def plural(value: int, noun: str) -> str:
    """Return a count with its noun: ``1 run``, ``1,000 runs``."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def share(value: float) -> str:
    """Return a share in [0, 1] as a percentage with one decimal."""
    if not math.isfinite(100 * value):
        return ABSENT
    if 0 < value < 0.0005:
        return "< 0.1%"
    if value == 1:
        return "100%"
    return signed(f"{100 * value:.1f}%")


def level_percent(level: float) -> str:
    """Return a level as a percentage with no digit that is not there: 0.05 is ``5%``, 0.0125 is ``1.25%``."""
    if not math.isfinite(level):
        return ABSENT
    percent = 100 * level
    decimals = 0 if percent == 0 else max(0, 3 - math.floor(math.log10(abs(percent))))
    text = f"{percent:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"


def one_in(rate: float) -> str:
    """Return a rate of runs in words: 0.05 is ``about 1 run in 20``.

    Rates above 1 in 5 are written by the hundred, since "1 in 3" would be too coarse there.
    """
    if not math.isfinite(rate) or rate <= 0:
        return "no run"
    if rate <= 0.2:
        return f"about 1 run in {count(round(1 / rate))}"
    hundredths = round(100 * rate)
    return "nearly every run" if hundredths >= 100 else f"about {hundredths} runs in 100"


def p_value(value: float) -> str:
    """Return a p-value: two significant digits below 0.01, three decimals above."""
    if not math.isfinite(value):
        return ABSENT
    if 0 < value < 0.01:
        return number(value, digits=2)
    if 0.9995 <= value < 1:
        return "> 0.999"
    return "1" if value == 1 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, whichever reads best."""
    if not math.isfinite(seconds):
        return ABSENT
    if seconds < 59.95:
        return f"{seconds:.2f} s" if 0 < seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{count(whole // 3600)} h {whole % 3600 // 60:02d} min"


def clean(text: str, limit: int) -> str:
    """Return the head of a foreign text on one line, cut with an ellipsis after ``limit`` characters.

    Runs of white space become one space, and what HTML forbids becomes U+FFFD. Reads O(limit) characters,
    however long the text. Escaping is the template's work.
    """
    head = text[: 4 * limit]
    line = " ".join(_UNSHOWABLE.sub("\ufffd", head).split())
    if len(line) <= limit and len(head) == len(text):
        return line
    # A cut behind a zero-width joiner would glue the ellipsis to an emoji.
    return line[:limit].rstrip("\u200d ") + "…"


def short_digest(digest: str) -> str:
    """Return ``algorithm:`` and the first twelve characters of a digest."""
    algorithm, colon, value = digest.partition(":")
    head = f"{algorithm[:12]}:{value[:12]}" if colon else algorithm[:12]
    return clean(head if len(head) == len(digest) else head + "…", 40)


def parse_time(created: str) -> datetime | None:
    """Return an ISO 8601 time in UTC, or None where it is not one. A time without a zone is UTC."""
    try:
        time = datetime.fromisoformat(created)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def long_time(created: str) -> str:
    """Return ``14 March 2026, 06:00 UTC``, or the text itself where it is no ISO 8601 time."""
    time = parse_time(created)
    if time is None:
        return clean(created, 40)
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}, {time:%H:%M} UTC"


def short_times(created: list[str]) -> list[str]:
    """Return labels for the ticks of a time axis, only as long as is needed to tell them apart.

    Hours where all stand on one day, the year where there is more than one year; the texts themselves, cut,
    where one of them is no ISO 8601 time.
    """
    times = [time for time in map(parse_time, created) if time is not None]
    if len(times) != len(created):
        return [clean(text, 16) for text in created]
    if len({time.date() for time in times}) == 1:
        return [f"{time:%H:%M}" for time in times]
    labels = [f"{time.day} {_MONTHS[time.month - 1][:3]}" for time in times]
    if len({time.year for time in times}) > 1:
        return [f"{label} {time.year}" for label, time in zip(labels, times, strict=True)]
    if len(set(labels)) < len(labels):
        return [f"{label} {time:%H:%M}" for label, time in zip(labels, times, strict=True)]
    return labels


def missing(parts: tuple[str, ...]) -> str:
    """Return which parts a window lacks, the first few by name."""
    if not parts:
        return "nothing"
    more = f" and {count(len(parts) - 3)} more" if len(parts) > 3 else ""
    return clean(", ".join(parts[:3]), 200) + more
