"""Windows that roll: what they mean as of a moment, what they take of an archive, and what is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import DataError, UsageError
from driftline.components.storage.dataset import windows
from driftline.components.storage.dataset.manifest import MANIFEST_NAME
from driftline.components.storage.dataset.partitions import dataset_folders, selected_folders
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.windows import (
    ARCHIVE_STATE,
    EmptyWindow,
    Window,
    missing_parts,
    open_window,
    parse_as_of,
    resolve_time,
    window_of,
)
from driftline.components.storage.iso_times import parse_time
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import join
from driftline.components.storage.objects.values import read_value, write_value
from driftline.serving.archive.layout import STATE_FOLDER
from tests.support.datasets import write_embeddings

AS_OF = datetime(2026, 11, 30, 13, 45, 10, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)

offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 12, 31), timezones=offsets)
days_back = st.integers(0, 800)
hours_back = st.integers(0, 2000)


def edges_of(moment: datetime) -> list[datetime]:
    """The first and last seconds of a moment's day in UTC."""
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [midnight, midnight + timedelta(seconds=1), midnight + DAY - timedelta(seconds=1)]


# What relative values mean


@pytest.mark.parametrize(
    ("asked", "uri", "first", "last", "count", "base"),
    [
        ("gs://lake/r/date=today", "gs://lake/r/date=2026-11-30", "2026-11-30", "2026-11-30", 1, "gs://lake/r"),
        ("gs://lake/date=-0d", "gs://lake/date=2026-11-30", "2026-11-30", "2026-11-30", 1, "gs://lake"),
        ("a/date=0d", "a/date=2026-11-30", "2026-11-30", "2026-11-30", 1, "a"),
        ("a/date=yesterday/", "a/date=2026-11-29/", "2026-11-29", "2026-11-29", 1, "a"),
        ("./a/date=-1d", "./a/date=2026-11-29", "2026-11-29", "2026-11-29", 1, "./a"),
        ("date=-30d", "date=2026-10-31", "2026-10-31", "2026-10-31", 1, "."),
        ("/date=-7d..-1d", "/date=2026-11-23..2026-11-29", "2026-11-23", "2026-11-29", 7, "/"),
        ("file:///a/date=-7d..today", "/a/date=2026-11-23..2026-11-30", "2026-11-23", "2026-11-30", 8, "/a"),
        ("a/date=2026-11-01..-1d", "a/date=2026-11-01..2026-11-29", "2026-11-01", "2026-11-29", 29, "a"),
        ("a/date=-2d..2026-11-30", "a/date=2026-11-28..2026-11-30", "2026-11-28", "2026-11-30", 3, "a"),
        ("a/date=-2d..-1d/model=M", "a/date=2026-11-28..2026-11-29/model=M", "2026-11-28", "2026-11-29", 2, "a"),
        ("a/x=1..3/date=-1d", "a/x=1..3/date=2026-11-29", "2026-11-29", "2026-11-29", 1, "a/x=1..3"),
        (
            "date=2026-01-01/x/date=-1d",
            "date=2026-01-01/x/date=2026-11-29",
            "2026-11-29",
            "2026-11-29",
            1,
            "date=2026-01-01/x",
        ),
        ("hour=13/date=-1d", "hour=13/date=2026-11-29", "2026-11-29", "2026-11-29", 1, "hour=13"),
        # Absolute ranges are windows as well.
        ("a/date=2027-01-01..2027-01-02", "a/date=2027-01-01..2027-01-02", "2027-01-01", "2027-01-02", 2, "a"),
    ],
)
def test_days(asked: str, uri: str, first: str, last: str, count: int, base: str):
    window = window_of(asked, AS_OF)
    assert (window.asked, window.uri, window.ranged, window.base) == (asked, uri, True, base)
    assert (window.expected[0], window.expected[-1], len(window.expected)) == (f"date={first}", f"date={last}", count)


@pytest.mark.parametrize(
    ("asked", "uri", "first", "last", "count", "base"),
    [
        ("a/hour=-1h", "a/date=2026-11-30/hour=12", "2026-11-30/hour=12", "2026-11-30/hour=12", 1, "a"),
        ("a/hour=0h/model=M", "a/date=2026-11-30/hour=13/model=M", "2026-11-30/hour=13", "2026-11-30/hour=13", 1, "a"),
        (
            "gs://lake/r/hour=-24h..-1h/model=M",
            "gs://lake/r/hour=2026-11-29T13..2026-11-30T12/model=M",
            "2026-11-29/hour=13",
            "2026-11-30/hour=12",
            24,
            "gs://lake/r",
        ),
        (
            "hour=2026-11-29T23..-0h",
            "hour=2026-11-29T23..2026-11-30T13",
            "2026-11-29/hour=23",
            "2026-11-30/hour=13",
            15,
            ".",
        ),
        (
            "a/date=yesterday/hour=00..11",
            "a/date=2026-11-29/hour=00..11",
            "2026-11-29/hour=00",
            "2026-11-29/hour=11",
            12,
            "a",
        ),
        (
            "a/date=-2d..-1d/hour=22..23",
            "a/date=2026-11-28..2026-11-29/hour=22..23",
            "2026-11-28/hour=22",
            "2026-11-29/hour=23",
            4,
            "a",
        ),
        (
            "a/date=-2d..-1d/hour=13",
            "a/date=2026-11-28..2026-11-29/hour=13",
            "2026-11-28/hour=13",
            "2026-11-29/hour=13",
            2,
            "a",
        ),
        (
            "a/date=2026-11-25/hour=00..23",
            "a/date=2026-11-25/hour=00..23",
            "2026-11-25/hour=00",
            "2026-11-25/hour=23",
            24,
            "a",
        ),
    ],
)
def test_hours(asked: str, uri: str, first: str, last: str, count: int, base: str):
    window = window_of(asked, AS_OF)
    assert (window.uri, window.ranged, window.base) == (uri, True, base)
    assert (window.expected[0], window.expected[-1], len(window.expected)) == (f"date={first}", f"date={last}", count)


@pytest.mark.parametrize(
    "uri",
    [
        "gs://lake/reviews",
        "gs://lake/reviews/",
        "./a/../b//c",
        "a/date=2026-11-25",
        "a/date=2026-11-25/hour=13/model=M",
        "a/hour=2026-11-25T13",
        "a/updated=yesterday",
        "a/my-date=yesterday",
        "a/Date=yesterday",
        "a/date=yesterday.bak",
        "a/yesterday",
        "a/version=1..3",
        "a/date=20261101..20261107",  # folders of another layout, compared as strings as ever
        "a/date=__HIVE_DEFAULT_PARTITION__",
        "file:///a/b%20c",
    ],
)
def test_what_only_looks_alike_stays_as_it_is(uri: str):
    assert window_of(uri, AS_OF) == Window(uri, uri, False, (), "", "")


def test_a_window_survives_the_way_from_step_to_step(tmp_path: Path):
    window = window_of("gs://lake/date=-7d..-1d/model=M", AS_OF)
    write_value(str(tmp_path / "window.json"), window)
    assert read_value(str(tmp_path / "window.json"), Window) == window


# Properties


@given(moments, days_back, days_back, hours_back, hours_back)
def test_only_the_instant_counts_not_its_zone(moment: datetime, days: int, fewer: int, hours: int, less: int):
    first, last = max(days, fewer), min(days, fewer)
    early, late = max(hours, less), min(hours, less)
    for uri in (f"a/date=-{first}d..-{last}d", f"a/hour=-{early}h..-{late}h", "a/date=yesterday", f"a/hour=-{late}h"):
        assert window_of(uri, moment) == window_of(uri, moment.astimezone(UTC))
    for text in ("today", f"-{first}d", f"-{early}h"):
        assert resolve_time(text, moment) == resolve_time(text, moment.astimezone(UTC))


@given(moments, days_back, days_back)
def test_days_are_contiguous_and_end_when_they_say(moment: datetime, one: int, other: int):
    first, last = max(one, other), min(one, other)
    today = moment.astimezone(UTC).date()
    for as_of in [moment, *edges_of(moment)]:
        window = window_of(f"a/date=-{first}d..-{last}d", as_of)
        days = [date.fromisoformat(part.removeprefix("date=")) for part in window.expected]
        assert days == [today - number * DAY for number in range(first, last - 1, -1)]
        assert window.uri == f"a/date={days[0]}..{days[-1]}"


@given(moments)
def test_a_week_is_seven_days_that_end_yesterday(moment: datetime):
    for as_of in edges_of(moment):
        window = window_of("a/date=-7d..-1d", as_of)
        assert len(window.expected) == 7
        assert window.expected[-1:] == window_of("a/date=yesterday", as_of).expected


@given(moments, hours_back, hours_back)
def test_hours_are_contiguous_across_midnights(moment: datetime, one: int, other: int):
    first, last = max(one, other), min(one, other)
    now = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    expected = window_of(f"a/hour=-{first}h..-{last}h", moment).expected
    hours = [datetime.strptime(f"{part} +0000", "date=%Y-%m-%d/hour=%H %z") for part in expected]
    assert hours == [now - number * HOUR for number in range(first, last - 1, -1)]


@given(moments, moments, days_back, hours_back)
def test_what_was_resolved_is_absolute(moment: datetime, other: datetime, days: int, hours: int):
    uris = [
        f"a/date=-{days}d..-0d/model=M",
        f"a/date=-{days}d",
        f"a/date=-{days}d..today/hour=00..11",
        f"a/hour=-{hours}h..-0h/model=M",
        f"a/hour=-{hours}h",
    ]
    for window in [window_of(uri, moment) for uri in uris]:
        again = window_of(window.uri, other)
        assert again.uri == again.asked == window.uri
        assert (again.expected, again.base) == ((window.expected, "a") if again.ranged else ((), ""))
        assert again.ranged == (".." in window.uri)
    for text in ("today", f"-{days}d", f"-{hours}h"):
        resolved = resolve_time(text, moment)
        assert parse_time(resolved) is not None
        assert resolve_time(resolved, other) == resolved


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"])
@pytest.mark.parametrize("night", ["2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01", "2026-04-05", "2011-12-30"])
def test_nights_on_which_clocks_change(zone: str, night: str):
    midnight = datetime.fromisoformat(f"{night}T00:00").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    for half_hours in range(60):
        as_of = (midnight + half_hours * timedelta(minutes=30)).astimezone(ZoneInfo(zone))
        assert window_of("a/hour=-24h..-1h", as_of) == window_of("a/hour=-24h..-1h", as_of.astimezone(UTC))
        assert len(set(window_of("a/hour=-24h..-1h", as_of).expected)) == 24
        assert len(set(window_of("a/date=-7d..-1d", as_of).expected)) == 7
        # The instant as its zone writes it, which is written twice where clocks are set back: told apart by the offset.
        assert parse_as_of(as_of.isoformat(), AS_OF) == as_of.astimezone(UTC)


@pytest.mark.parametrize(
    ("as_of", "asked", "resolved"),
    [
        ("2026-12-01T00:00:00Z", "a/date=-1d", "a/date=2026-11-30"),
        ("2026-12-01T00:00:01Z", "a/date=yesterday", "a/date=2026-11-30"),
        ("2026-11-30T23:59:59Z", "a/date=yesterday", "a/date=2026-11-29"),
        ("2027-01-01T00:00:01Z", "a/date=-7d..-1d", "a/date=2026-12-25..2026-12-31"),
        ("2028-03-01T00:00:01Z", "a/date=-2d..-1d", "a/date=2028-02-28..2028-02-29"),
        ("2026-03-01T23:59:59Z", "a/date=-2d..-1d", "a/date=2026-02-27..2026-02-28"),
        ("2028-02-29T00:00:00Z", "a/hour=-24h..-1h", "a/hour=2028-02-28T00..2028-02-28T23"),
        ("2028-03-01T00:30:00+01:00", "a/hour=-24h..-1h", "a/hour=2028-02-28T23..2028-02-29T22"),
        ("2026-12-01T00:00:01Z", "a/hour=-1h", "a/date=2026-11-30/hour=23"),
        ("2100-03-01", "a/date=yesterday", "a/date=2100-02-28"),
        ("0900-01-02", "a/date=yesterday", "a/date=0900-01-01"),
    ],
)
def test_ends_of_days_months_and_years(as_of: str, asked: str, resolved: str):
    assert window_of(asked, parse_as_of(as_of, AS_OF)).uri == resolved


# The moment that a run is made for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-30", "2026-11-30T00:00:00+00:00"),
        ("20261130", "2026-11-30T00:00:00+00:00"),
        ("20261130000500", "2026-11-30T00:05:00+00:00"),
        ("202611300005", "2026-11-30T00:05:00+00:00"),
        ("20261130T000500Z", "2026-11-30T00:05:00+00:00"),
        ("2026-11-30T00:05", "2026-11-30T00:05:00+00:00"),
        ("2026-11-30 00:05:00", "2026-11-30T00:05:00+00:00"),
        ("2026-11-30T00:05:00Z", "2026-11-30T00:05:00+00:00"),
        ("2026-11-30t00:05:00z", "2026-11-30T00:05:00+00:00"),
        (" 2026-11-30T00:05:00+05:30 ", "2026-11-29T18:35:00+00:00"),
        ("2026-11-30T00:05:00-0800", "2026-11-30T08:05:00+00:00"),
        ("2026-11-30T00:05:00.123456789Z", "2026-11-30T00:05:00.123456+00:00"),
    ],
)
def test_as_of(text: str, expected: str):
    moment = parse_as_of(text, AS_OF)
    assert moment.isoformat() == expected
    assert moment.tzinfo is UTC


def test_as_of_is_now_by_default():
    there = AS_OF.astimezone(timezone(timedelta(hours=9)))
    assert parse_as_of("", there) == AS_OF
    assert parse_as_of("  ", there).tzinfo is UTC


@given(moments)
def test_as_of_is_read_as_it_is_written(moment: datetime):
    assert parse_as_of(moment.isoformat(), AS_OF) == moment
    assert parse_as_of(moment.astimezone(UTC).strftime("%Y%m%d%H%M%S"), AS_OF) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "-1d",
        "2026-02-30",
        "2026-11-30T25:00",
        "2026-11-30T",
        "1764460800",
        "٢٠٢٦١١٣٠",
        "2026-W48-1",
        "30.11.2026",
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59-10:00",
    ],
)
def test_an_as_of_that_is_none(text: str):
    with pytest.raises(
        UsageError, match=r"^as_of '.*': expected a date .*such as 2026-11-30, .* leave it empty for now$"
    ):
        parse_as_of(text, AS_OF)


@pytest.mark.parametrize(
    "text", ["[[CurrentTime]]", "[[ScheduledTime.2006-01-02]]", "{{$.pipeline_job_schedule_time_utc}}"]
)
def test_placeholders_that_no_backend_filled_in(text: str):
    match = r"is a placeholder that the backend has not filled in .* leave as_of empty for the time at which the run"
    for refused in (
        lambda: parse_as_of(text, AS_OF),
        lambda: window_of(f"lake/date={text}", AS_OF),
        lambda: window_of(f"lake/date=-7d..{text}/model=M", AS_OF),
        lambda: resolve_time(text, AS_OF, "since"),
    ):
        with pytest.raises(UsageError, match=match):
            refused()


# Bounds of time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("today", "2026-11-30T00:00:00Z"),
        ("0d", "2026-11-30T00:00:00Z"),
        ("yesterday", "2026-11-29T00:00:00Z"),
        ("-1d", "2026-11-29T00:00:00Z"),
        ("-30d", "2026-10-31T00:00:00Z"),
        ("0h", "2026-11-30T13:00:00Z"),
        ("-14h", "2026-11-29T23:00:00Z"),
        ("2026-11-30", "2026-11-30"),
        ("20261130", "20261130"),
        ("2026-11-30T12:00+01:00", "2026-11-30T12:00+01:00"),
    ],
)
def test_bounds_of_time(text: str, expected: str):
    assert resolve_time(text, AS_OF) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("-7", "is not understood"),
        ("-7D", "is not understood"),
        ("-1w", "is not understood"),
        ("-1d..today", "is not understood"),
        ("last week", "is not understood"),
        ("2026-02-30", "is no day or hour that there is"),
        ("+1d", "lies in the future"),
        ("1d", "lies in the future"),
        ("tomorrow", "lies in the future"),
    ],
)
def test_a_bound_of_time_that_is_none(text: str, fault: str):
    with pytest.raises(UsageError) as refused:
        resolve_time(text, AS_OF, "since")
    assert str(refused.value).startswith(f"since {text!r} {fault}")
    assert "write today, yesterday, -7d, -24h, or an ISO 8601 date" in str(refused.value)


# What is refused


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "a/date=-7",
            "a/date=-7: date '-7' is not understood; write date=yesterday, date=-7d..-1d or date=2026-11-18..",
        ),
        ("a/date=-7D..", "date '-7D' is not understood; write date=yesterday"),
        ("a/date=-7d..", "date '' is empty, where a day or an hour is expected; write"),
        ("a/date=..-1d", "date '' is empty"),
        ("a/date=", "date '' is empty"),
        ("a/date=-7d..-4d..-1d", "date '-4d..-1d' is not understood"),
        ("a/date=-7d...-1d", "date '.-1d' is not understood"),
        ("a/date=Yesterday", "date 'Yesterday' is not understood; write date=yesterday"),
        ("a/date=now", "date 'now' is not understood"),
        ("a/date=2026-11-01..yesterdy", "date 'yesterdy' is not understood"),
        ("a/date=2026-11..2026-11-30", "date '2026-11' is not understood"),
        ("a/date=2026-02-28..2026-02-30", "date '2026-02-30' is no day or hour that there is"),
        ("a/date=2026-11-29T13..-1d", "date '2026-11-29T13' is no day or hour that there is"),
        ("a/date=-3h", "date '-3h' counts hours, where days are expected; write date=yesterday"),
        ("a/hour=-1d", "hour '-1d' counts days, where hours are expected; write hour=-24h..-1h"),
        ("a/hour=yesterday", "hour 'yesterday' counts days, where hours are expected"),
        ("a/date=+1d", "date '+1d' lies in the future: windows look back from as_of, as -7d and -24h do"),
        ("a/date=7d", "date '7d' lies in the future"),
        ("a/date=tomorrow", "date 'tomorrow' lies in the future"),
        ("a/date=-7d..2026-12-01", "date ends at 2026-12-01, in the future as of 2026-11-30; write"),
        ("a/hour=-2h..2026-11-30T14", "hour ends at 2026-11-30T14, in the future as of 2026-11-30T13:45:10+00:00"),
        ("a/date=-1d..-7d", "date begins at 2026-11-29, after its end 2026-11-23; put the earlier end first: write"),
        ("a/date=2026-11-02..2026-11-01", "date begins at 2026-11-02, after its end 2026-11-01"),
        ("a/hour=-1h..-3h", "hour begins at 2026-11-30T12, after its end 2026-11-30T10"),
        ("a/date=-1d/hour=22..03", "hour begins at 22, after its end 03"),
        ("a/date=-1d/hour=0..5", "hour '0' is none of a day's hours, 00 to 23; write"),
        ("a/date=-1d/hour=00..24", "hour '24' is none of a day's hours, 00 to 23"),
        ("a/hour=00..-1h", "hour '00' is an hour of any day, where an hour of a named day is expected"),
        ("a/hour=2026-11-29T24..-1h", "hour '2026-11-29T24' is no day or hour that there is"),
        (
            "a/date=2026-11-29/hour=-3h",
            "hour=-3h names its days itself, and date=2026-11-29 is a level for days or hours as well; write ",
        ),
        ("a/date=-2d/hour=-3h..-1h", "hour=-3h..-1h names its days itself, and date=-2d is a level"),
        ("a/date=2026-11-29/hour=2026-11-29T01..2026-11-29T02", "names its days itself"),
        ("a/hour=-3h..-1h/date=2026-11-30", "names its days itself"),
        ("a/date=-1d/date=-2d", "date is a window at two levels; give one of them"),
        ("a/date=-9999999d", "date '-9999999d' reaches back before the year 1; give less"),
        ("a/hour=-9999999d", "hour '-9999999d' reaches back before the year 1"),
        ("a/date=0001-01-01..9999-12-31", "at most 100,000 days or hours, got 3,652,059; name the folder itself"),
        ("a/date=1900-01-01..2026-01-01/hour=00..23", "at most 100,000 days or hours, got 1,104,"),
        ("a/hour=1900-01-01T00..2026-01-01T00", "at most 100,000 days or hours, got 1,104,"),
        ("s3://lake/date=-1d", "s3:// is not supported"),
        ("gs://", "is not a bucket's name"),
        ("", "does not name a file or folder"),
    ],
)
def test_what_is_refused(uri: str, said: str):
    with pytest.raises(UsageError) as refused:
        window_of(uri, AS_OF)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_moment_without_a_zone_is_refused():
    naive = AS_OF.replace(tzinfo=None)
    refusals: list[Callable[[], object]] = [
        lambda: window_of("a", naive),
        lambda: resolve_time("-1d", naive),
        lambda: parse_as_of("", naive),
    ]
    for refused in refusals:
        with pytest.raises(UsageError, match="a moment without a time zone"):
            refused()


# What windows take of an archive

FIRST_HOUR = datetime(2028, 2, 25, tzinfo=UTC)
HOURS = 9 * 24
MODELS = ("new-0", "old-0")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every hour of nine days around February 29, of two models, but for some hours; their manifests are empty."""
    out = tmp_path_factory.mktemp("archive")
    for number in range(HOURS):
        time = FIRST_HOUR + number * HOUR
        for model in MODELS[number % 5 == 0 :]:
            if number % 7 and not 100 <= number < 130:
                place = out / f"date={time:%Y-%m-%d}/hour={time:%H}/model={model}"
                place.mkdir(parents=True)
                (place / MANIFEST_NAME).touch()
    return str(out)


@functools.cache
def every_dataset(archive: str) -> list[tuple[datetime, str, str]]:
    """The hour, the model and the name of each, found by looking at every folder."""
    found: list[tuple[datetime, str, str]] = []
    for path in Path(archive).glob(f"*/*/*/{MANIFEST_NAME}"):
        day, hour, model = path.parent.relative_to(archive).parts
        time = datetime.strptime(f"{day}/{hour} +0000", "date=%Y-%m-%d/hour=%H %z")
        found.append((time, model.removeprefix("model="), f"{day}/{hour}/{model}"))
    return sorted(found)


def there(archive: str, wanted: Callable[[datetime], bool], models: tuple[str, ...] = MODELS) -> list[str]:
    return [name for time, model, name in every_dataset(archive) if wanted(time) and model in models]


def taken(window: Window) -> list[str]:
    base, selectors = selected_folders(window.uri)
    prefix = base.removeprefix(window.base).strip("/")
    return [f"{prefix}/{name}".strip("/") for name in dataset_folders(base, selectors)]


nearby = st.datetimes(
    datetime(2028, 2, 24), datetime(2028, 3, 6), timezones=st.sampled_from([UTC, timezone(timedelta(hours=9))])
)


@given(nearby, st.integers(0, 5), st.integers(0, 5))
def test_days_take_the_folders_of_their_days(archive: str, as_of: datetime, one: int, other: int):
    first, last = max(one, other), min(one, other)
    today = as_of.astimezone(UTC).date()
    window = window_of(f"{archive}/date=-{first}d..-{last}d", as_of)
    wanted = there(archive, lambda time: today - first * DAY <= time.date() <= today - last * DAY)
    assert taken(window) == wanted
    days = {name.partition("/")[0] for name in wanted}
    assert missing_parts(window) == tuple(day for day in window.expected if day not in days)


@given(nearby, st.integers(0, 60), st.integers(0, 60), st.sampled_from(MODELS))
def test_hours_take_the_folders_of_their_hours(archive: str, as_of: datetime, one: int, other: int, model: str):
    first, last = max(one, other), min(one, other)
    now = as_of.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    window = window_of(f"{archive}/hour=-{first}h..-{last}h/model={model}", as_of)
    wanted = there(archive, lambda time: now - first * HOUR <= time <= now - last * HOUR, (model,))
    assert taken(window) == wanted
    hours = {name.rpartition("/")[0] for name in wanted}
    assert missing_parts(window) == tuple(hour for hour in window.expected if hour not in hours)


@given(nearby, st.integers(0, 4), st.integers(0, 23), st.integers(0, 23))
def test_hours_of_days_take_both(archive: str, as_of: datetime, days: int, one: int, other: int):
    early, late = min(one, other), max(one, other)
    today = as_of.astimezone(UTC).date()
    for asked, first in ((f"date=-{days}d", days), (f"date=-{days}d..-{days}d", days)):
        window = window_of(f"{archive}/{asked}/hour={early:02d}..{late:02d}", as_of)
        wanted = there(archive, lambda time, day=today - first * DAY: time.date() == day and early <= time.hour <= late)
        assert taken(window) == wanted
        hours = {name.rpartition("/")[0] for name in wanted}
        assert missing_parts(window) == tuple(hour for hour in window.expected if hour not in hours)


# Opening, on both stores


def vectors_of(rows: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)


def write_hour(out: str, day: str, hour: str, model: str = "M") -> list[str]:
    place = join(out, f"date={day}/hour={hour}/model={model}")
    write_embeddings(place, vectors_of(2), model=model, prefix=f"{day}-{hour}-{model}")
    return [f"{day}-{hour}-{model}-{row}" for row in range(2)]


def ids_of(dataset: EmbeddingsDataset) -> list[str]:
    return [name for batch in dataset.batches(("id",)) for name in batch.ids]


def test_windows_of_an_archive_are_opened(place: str):
    before = [*write_hour(place, "2026-11-27", "23"), *write_hour(place, "2026-11-29", "12")]
    during = [*write_hour(place, "2026-11-29", "13"), *write_hour(place, "2026-11-29", "23")]
    during += [*write_hour(place, "2026-11-30", "00"), *write_hour(place, "2026-11-30", "12")]
    after = write_hour(place, "2026-11-30", "13")

    week = window_of(join(place, "date=-7d..-1d"), AS_OF)
    dataset = open_window(week)
    assert ids_of(dataset) == before + during[:4]
    assert dataset.uri == week.uri == join(place, "date=2026-11-23..2026-11-29")
    assert dataset.folders[0] == join(place, "date=2026-11-27/hour=23/model=M")
    missing = [f"date=2026-11-{day}" for day in (23, 24, 25, 26, 28)]
    assert [*missing_parts(week)] == [*missing_parts(week, dataset)] == missing

    hours = window_of(join(place, "hour=-24h..-1h/model=M"), AS_OF)
    dataset = open_window(hours)
    assert ids_of(dataset) == during
    assert len(missing_parts(hours)) == 20
    assert missing_parts(hours) == missing_parts(hours, dataset)
    assert ids_of(EmbeddingsDataset.open(hours.uri)) == during
    assert EmbeddingsDataset.open(hours.uri).manifest.digest == dataset.manifest.digest

    for asked, ids in (
        ("date=yesterday", before[2:] + during[:4]),
        ("date=yesterday/", before[2:] + during[:4]),
        ("date=today/hour=00..12", during[4:]),
        ("hour=-0h", after),
        ("hour=2026-11-29T23", during[2:4]),
        ("date=2026-11-30", during[4:] + after),
    ):
        window = window_of(f"{place}/{asked}", AS_OF)
        assert ids_of(open_window(window)) == ids
    assert missing_parts(window_of(f"{place}/date=yesterday", AS_OF)) == ()
    assert len(missing_parts(window_of(f"{place}/date=today/hour=00..12", AS_OF))) == 11
    assert missing_parts(window_of(f"{place}/date=2026-11-30", AS_OF)) == ()
    # Late, repeated or caught up: the window of that time.
    assert ids_of(open_window(window_of(join(place, "date=yesterday"), AS_OF - 2 * DAY))) == before[:2]


def test_a_quiet_night_is_told_from_a_misspelt_path(place: str):
    write_hour(place, "2026-11-27", "23")
    for asked in (
        "date=yesterday",
        "date=-2d..-1d/hour=23",
        "date=yesterday/hour=23/model=M",
        "hour=-1h",
        "hour=-24h..-1h/model=M",
    ):
        window = window_of(join(place, asked), AS_OF)
        with pytest.raises(EmptyWindow) as quiet:
            open_window(window)
        assert f"{window.asked} (now {window.uri}): no dataset lies in this window, though {place} holds" in str(
            quiet.value
        )
        assert "such as date=2026-11-27/hour=23/model=M; nothing was written in that time" in str(quiet.value)
        assert missing_parts(window) == window.expected
    with pytest.raises(EmptyWindow, match=r"date=2026-11-01\.\.2026-11-02: no dataset lies in this window"):
        open_window(window_of(join(place, "date=2026-11-01..2026-11-02"), AS_OF))


def test_a_misspelt_path_is_no_quiet_night(place: str):
    write_hour(place, "2026-11-27", "23")
    write_embeddings(join(place, "elsewhere"), vectors_of(2))
    nothing = "holds no dataset at all in folders such as"
    other = "which holds date=2026-11-27/hour=23/model=M; check the levels"
    wrong = [
        (f"{place}-misspelt/date=yesterday", f"{place}-misspelt {nothing} date=2026-11-29 (there is no manifest.json)"),
        (join(place, "elsewhere/date=-2d..-1d"), f"elsewhere {nothing} date=2026-11-28"),
        (join(place, "elsewhere/hour=-2h..-1h"), f"elsewhere {nothing} date=2026-11-30/hour=11"),
        (join(place, "date=-1d/hour=23/model=N"), f"like date=2026-11-29/hour=23/model=N below {place}, {other}"),
        (join(place, "date=-2d..-1d/hour=23/model=N"), other),
        (join(place, "date=yesterday/model=M"), other),  # without the level between
        (join(place, "date=yesterday/embeddings"), other),
        (join(place, "date=2026-11-30"), "there is no manifest.json: the dataset is unfinished"),
    ]
    for asked, said in wrong:
        with pytest.raises(DataError) as refused:
            open_window(window_of(asked, AS_OF))
        assert not isinstance(refused.value, EmptyWindow)
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)


def test_days_of_single_datasets_below_folders_of_any_name(place: str):
    write_embeddings(join(place, "date=2026-11-29"), vectors_of(2), prefix="whole")
    write_embeddings(join(place, "date=2026-11-27/embeddings"), vectors_of(2), prefix="below")
    window = window_of(join(place, "date=yesterday"), AS_OF)
    assert ids_of(open_window(window)) == ["whole-0", "whole-1"]
    assert missing_parts(window) == missing_parts(window, open_window(window)) == ()
    window = window_of(join(place, "date=-3d/embeddings"), AS_OF)
    assert ids_of(open_window(window)) == ["below-0", "below-1"]
    with pytest.raises(EmptyWindow, match="such as date=2026-11-27/embeddings"):
        open_window(window_of(join(place, "date=yesterday/embeddings"), AS_OF))


def test_an_archive_that_has_only_begun_is_quiet(place: str):
    assert ARCHIVE_STATE == STATE_FOLDER
    store.write_json(join(place, STATE_FOLDER, "reviews/00000.json"), {})
    with pytest.raises(EmptyWindow, match=r"the archive .* holds none yet"):
        open_window(window_of(join(place, "date=yesterday"), AS_OF))


def test_only_the_days_of_a_window_are_listed(place: str, monkeypatch: pytest.MonkeyPatch):
    for day in range(20, 31):
        write_hour(place, f"2026-11-{day}", "12")
    listed: list[str] = []
    whole = store.list_files
    monkeypatch.setattr(store, "list_files", lambda uri: listed.append(uri) or whole(uri))
    dataset = open_window(window_of(join(place, "hour=-48h..-1h"), AS_OF))
    assert sorted(listed) == [join(place, f"date=2026-11-{day}") for day in (28, 29, 30)]
    assert dataset.rows == 4
    listed.clear()
    assert missing_parts(window_of(join(place, "hour=-48h..-1h"), AS_OF), dataset)
    assert listed == []


def test_windows_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ids = write_hour(str(tmp_path / "a"), "2026-11-29", "13")
    monkeypatch.chdir(tmp_path)
    for base in ("./a", "a", (tmp_path / "a").as_uri(), "./a/"):
        for asked in ("date=yesterday", "date=-2d..-1d", "hour=-24h", "hour=-30h..-1h"):
            window = window_of(f"{base}/{asked}", AS_OF)
            dataset = open_window(window)
            assert ids_of(dataset) == ids
            written = {"date=2026-11-29", "date=2026-11-29/hour=13"}
            assert missing_parts(window, dataset) == missing_parts(window)
            assert missing_parts(window) == tuple(part for part in window.expected if part not in written)
    monkeypatch.chdir(tmp_path / "a")
    window = window_of("date=-2d..-1d", AS_OF)
    assert ids_of(open_window(window)) == ids
    with pytest.raises(EmptyWindow, match=r"though \. holds others"):
        open_window(window_of("date=today", AS_OF))


def test_nothing_is_asked_of_the_clock(monkeypatch: pytest.MonkeyPatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            raise AssertionError("the clock was asked")

    monkeypatch.setattr(windows, "datetime", Stopped)
    assert window_of("a/date=-7d..-1d", AS_OF).uri == "a/date=2026-11-23..2026-11-29"
