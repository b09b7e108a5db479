"""Cron lines are read as Kubeflow's controller reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.pipelines.cron import parse_cron, parse_zone

TIMES = [
    tuple(line.split("\t"))
    for line in (Path(__file__).parent / "cron_times.tsv").read_text(encoding="utf-8").splitlines()
]
"""Line, zone, start and the next three times, or an error, as the controller's robfig/cron v1.2.0 itself gives them."""
MONDAY = datetime(2026, 8, 3, 12, tzinfo=UTC)


def test_the_times_are_the_controllers() -> None:
    assert len(TIMES) >= 100
    wrong = []
    for line, zone, start, expected in TIMES:
        after = datetime.fromisoformat(start).astimezone(ZoneInfo(zone))
        try:
            got = [one.isoformat() for one in parse_cron(line).next_times(after)]
        except UsageError:
            got = []
        refused = not expected or expected.startswith("error")
        if got != ([] if refused else [one.replace("Z", "+00:00") for one in expected.split()]):
            wrong.append((line, zone, start, expected, got))
    assert wrong == []


@pytest.mark.parametrize(
    ("typed", "sent", "first"),
    [
        ("5 0 * * *", "0 5 0 * * *", "2026-08-04T00:05:00"),  # of the server's own reading: 24 times a day
        ("30 2 * * 1", "0 30 2 * * 1", "2026-08-10T02:30:00"),  # first in January
        ("*/15 * * * *", "0 */15 * * * *", "2026-08-03T12:15:00"),  # each 15 seconds
        ("  5  0 * * MON-FRI", "0 5 0 * * MON-FRI", "2026-08-04T00:05:00"),
        ("0 5 0 * * ?", "0 5 0 * * ?", "2026-08-04T00:05:00"),
        ("@daily", "@daily", "2026-08-04T00:00:00"),
        ("@every 1h30m", "@every 1h30m", "2026-08-03T13:30:00"),
    ],
)
def test_five_fields_are_unixs_and_six_are_sent(typed: str, sent: str, first: str) -> None:
    cron = parse_cron(typed)
    assert cron.line == sent
    assert cron.next_times(MONDAY)[0].isoformat() == first + "+00:00"


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("0 5 0 * * *", ""),
        ("5 0 * * *", ""),
        ("5 0 * * * *", "six fields: the first is the second; for Unix's five fields of '5 0 * * * *', leave one out"),
        ("*/15 * * * * *", "six fields: the first is the second, so that */15 runs it more than once a minute"),
        ("@every 24h", "counted from when the schedule is made, not from midnight"),
    ],
)
def test_six_fields_that_look_like_unixs_are_explained(typed: str, note: str) -> None:
    assert parse_cron(typed).note == note


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "cron '': expected five fields, minute hour day month weekday, .*; got 0 fields$"),
        ("5 0 * *", "got 4 fields$"),
        ("daily", "got 1 field$"),
        ("TZ=Europe/Berlin 0 5 0 * * *", "a time zone cannot be set for one schedule; leave TZ=Europe/Berlin out"),
        ("@noon", "cron '@noon': expected five fields"),
        ("@every 0.5s", "expected a second at least"),
        ("60 0 * * *", "minute: expected numbers from 0 to 59, .* got '60'"),
        ("0 0 * * 7", "day of the week: expected numbers from 0 to 6 or SUN, MON, .* got '7'"),
        ("0 0 L * *", "day of the month: expected numbers from 1 to 31, .* got 'L'"),
        ("0 0 5-2 * *", "got '5-2'"),
        ("0 0 */0 * *", r"got '\*/0'"),
        ("0 0 1,, * *", "got ''"),
        ("0 0 31 2 *", "no such day comes within 5 years; check the day and the month"),
        ("٣ 0 * * *", "minute: expected numbers from 0 to 59"),
    ],
)
def test_what_the_controller_would_not_take_is_one_line(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_cron(typed)
    assert "\n" not in str(caught.value)


@given(
    fields=st.tuples(*(st.integers(low, high) for low, high in ((0, 59), (0, 23), (1, 28), (1, 12)))),
    start=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
)
def test_a_day_of_the_year_comes_once_a_year(fields: tuple[int, int, int, int], start: datetime) -> None:
    minute, hour, day, month = fields
    times = parse_cron(f"{minute} {hour} {day} {month} *").next_times(start.replace(tzinfo=UTC), 2)
    assert [(one.minute, one.hour, one.day, one.month, one.second) for one in times] == [(*fields, 0)] * 2
    assert times[1].year - times[0].year == 1
    assert 0 < (times[0] - start.replace(tzinfo=UTC)).total_seconds() <= 366 * 86_400


def test_zones() -> None:
    assert parse_zone("Europe/Berlin").key == "Europe/Berlin"
    for name in ("Middle/Earth", "", "../etc/passwd"):
        with pytest.raises(UsageError, match="zone: expected a name such as UTC or Europe/Berlin, got"):
            parse_zone(name)
