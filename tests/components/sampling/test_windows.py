"""The windows of a drift run in its first step: what they become, and what becomes of one that holds too little."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.errors import DataError, DriftlineError, UsageError
from driftline.components.sampling import step
from driftline.components.sampling.pooled import PooledSample
from driftline.components.steps import Skipped
from driftline.components.storage.objects.store import exists, join, read_bytes
from driftline.components.storage.objects.values import read_value
from tests.support.archives import write_days

DAYS = {f"2026-11-{day}": 5 + day % 3 for day in range(20, 31)}
AS_OF = "2026-11-30T06:00:00Z"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eleven days, to be read only."""
    return write_days(str(tmp_path_factory.mktemp("archive") / "reviews"), DAYS)


def taken(folder: str, reference: str, current: str, **changes: Any) -> PooledSample:
    """Run the step and return what it hands on."""
    place = join(folder, "sample.json")
    settings: dict[str, Any] = {"out": join(folder, "out"), "window_as_of": AS_OF, "pca_components": 2} | changes
    step.run(reference=reference, current=current, sample_out=place, **settings)
    return read_value(place, PooledSample)


def rows_of(first: int, last: int) -> int:
    return sum(DAYS[f"2026-11-{day}"] for day in range(first, last + 1))


Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level("INFO", logger="driftline")
    return lambda: [json.loads(record.getMessage()) for record in caplog.records if record.name == "driftline"]


class Fixed(datetime):
    """A clock that stands still."""

    at = datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.at.astimezone(tz)


def test_relative_days_become_days_and_the_sample_and_the_log_say_so(archive: str, tmp_path: Path, lines: Lines):
    week, night = f"{archive}/date=-8d..-2d", f"{archive}/date=yesterday"
    sample = taken(str(tmp_path), week, night, job="nightly-7")
    reference, current, run = sample.reference, sample.current, sample.run
    assert (reference.asked, reference.uri) == (week, f"{archive}/date=2026-11-22..2026-11-28")
    assert (current.asked, current.uri) == (night, f"{archive}/date=2026-11-29")
    assert (reference.rows, current.rows) == (rows_of(22, 28), rows_of(29, 29))
    assert (reference.missing, current.missing) == ((), ())
    assert (run.as_of, run.job) == ("2026-11-30T06:00:00+00:00", "nightly-7")
    ids = [name for names in sample.ids() for name in names]
    assert {name.rpartition("-")[0] for name in ids} == {f"2026-11-{day}" for day in range(22, 30)}
    logged = [line for line in lines() if line["driftline"] == "progress"]
    assert {name: logged[0][name] for name in ("run", "job", "as_of", "out")} == {
        "run": run.id,
        "job": "nightly-7",
        "as_of": "2026-11-30T06:00:00+00:00",
        "out": str(tmp_path / "out"),
    }
    fields = ("side", "asked", "window", "rows", "missing")
    assert [[line[name] for name in fields] for line in logged if "side" in line] == [
        ["reference", week, reference.uri, reference.rows, []],
        ["current", night, current.uri, current.rows, []],
    ]


def test_relative_hours_cross_the_day(tmp_path: Path):
    hours = {f"2026-11-{day}/hour={hour:02d}": 3 for day in (29, 30) for hour in range(24) if (day, hour) != (29, 23)}
    archive = write_days(str(tmp_path / "stream"), hours)
    at = "2026-11-30T02:30:00Z"
    sample = taken(str(tmp_path), f"{archive}/hour=-5h..-2h", f"{archive}/hour=-1h", window_as_of=at)
    assert sample.reference.uri == f"{archive}/hour=2026-11-29T21..2026-11-30T00"
    assert sample.reference.missing == ("date=2026-11-29/hour=23",)
    assert (sample.reference.rows, sample.current.rows) == (9, 3)
    assert sample.current.uri == f"{archive}/date=2026-11-30/hour=01"


def test_without_as_of_it_is_now_also_one_second_into_a_month(
    archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(step, "datetime", Fixed)
    sample = taken(
        str(tmp_path),
        f"{archive}/date=-2d",
        f"{archive}/date=yesterday",
        window_as_of="",
        out=f"{tmp_path}/lake/{{date}}-{{hour}}",
    )
    assert (sample.reference.uri, sample.current.uri) == (f"{archive}/date=2026-11-29", f"{archive}/date=2026-11-30")
    assert sample.run.as_of == sample.run.created == "2026-12-01T00:00:01+00:00"
    assert (sample.run.base, sample.run.folder) == (f"{tmp_path}/lake", f"{tmp_path}/lake/2026-12-01-00")
    assert sample.run.history == f"{tmp_path}/lake/history"


moments = st.builds(
    lambda minute, offset: (
        datetime(2026, 11, 30, tzinfo=UTC).astimezone(timezone(timedelta(minutes=offset))) + timedelta(minutes=minute)
    ),
    st.integers(0, 24 * 60 - 1),
    st.integers(-14 * 60, 14 * 60),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments)
def test_a_run_of_any_moment_of_the_day_takes_the_same_rows(archive: str, tmp_path: Path, moment: datetime):
    """Late, repeated, from any zone: the windows are those of the day in UTC."""
    first = taken(str(tmp_path), f"{archive}/date=-8d..-2d", f"{archive}/date=yesterday", window_max_rows=4, seed=3)
    again = taken(
        str(tmp_path),
        f"{archive}/date=-8d..-2d",
        f"{archive}/date=yesterday",
        window_max_rows=4,
        seed=3,
        window_as_of=moment.isoformat(),
    )
    assert (again.reference, again.current) == (first.reference, first.current)
    assert [list(ids) for ids in again.ids()] == [list(ids) for ids in first.ids()]
    assert datetime.fromisoformat(again.run.as_of) == moment.replace(microsecond=0)


@pytest.mark.parametrize("place", ["local", "gs"])
def test_an_out_by_day_and_run(archive: str, tmp_path: Path, place: str, request: pytest.FixtureRequest):
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path)
    out = f"{base}/reports/{{date}}T{{hour}}/{{run}}"
    sample = taken(str(tmp_path), f"{archive}/date=-3d", f"{archive}/date=-1d", out=out, job="job.1")
    assert sample.run.base == f"{base}/reports"
    assert sample.run.folder == f"{base}/reports/2026-11-30T06/job.1"


def test_an_out_by_run_without_a_name_of_the_run_is_refused(archive: str, tmp_path: Path):
    with pytest.raises(
        UsageError, match=r"\Aoutput_folder [^\n]*\{run\} is filled in with the run's id, which is ''[^\n]*\Z"
    ):
        taken(str(tmp_path), f"{archive}/date=-3d", f"{archive}/date=-1d", out=f"{tmp_path}/{{run}}")


# What holds too little ---------------------------------------------------------------------------------------------

GAPS = {"2026-11-20": 3, "2026-11-21": 1, "2026-11-22": 2, "2026-11-25": 6, "2026-11-26": 1, "2026-11-28": 4}


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six days of nine, to be read only."""
    return write_days(str(tmp_path_factory.mktemp("gaps") / "reviews"), GAPS)


def outcome(folder: str, gaps: str, reference: str, current: str, **changes: Any) -> str:
    try:
        taken(folder, f"{gaps}/date={reference}", f"{gaps}/date={current}", **changes)
    except Skipped:
        return "skipped"
    except DataError:
        return "refused"
    return "compared"


def expected(window: tuple[int, int], min_rows: int, when_small: str, when_partial: str) -> str:
    """Return what is to become of a run for the sake of one window alone."""
    days = [f"2026-11-{day}" for day in range(window[0], window[1] + 1)]
    there = [day for day in days if day in GAPS]
    if sum(GAPS[day] for day in there) < max(min_rows, 2):
        return when_small
    return "compare" if there == days else when_partial


spans = st.tuples(st.integers(20, 28), st.integers(0, 8)).map(lambda pair: (pair[0], min(28, pair[0] + pair[1])))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spans,
    spans,
    st.integers(0, 12),
    st.sampled_from(["skip", "refuse"]),
    st.sampled_from(["compare", "skip", "refuse"]),
)
def test_outcomes_are_those_that_the_settings_say(
    gaps: str, tmp_path: Path, left: tuple[int, int], right: tuple[int, int], min_rows: int, small: str, partial: str
):
    wanted = {expected(window, min_rows, small, partial) for window in (left, right)}
    worst = next(name for name in ("refuse", "skip", "compare") if name in wanted)
    windows = [f"2026-11-{first}..2026-11-{last}" for first, last in (left, right)]
    found = outcome(
        str(tmp_path), gaps, *windows, window_min_rows=min_rows, window_when_small=small, window_when_partial=partial
    )
    assert found == {"refuse": "refused", "skip": "skipped", "compare": "compared"}[worst]


@pytest.mark.parametrize(
    ("reference", "current", "changes", "why"),
    [
        ("date=-2d", "date=-6d", {}, "current {base}/date=2026-11-24: the window is empty"),
        ("date=-7d..-6d", "date=-2d", {}, "reference {base}/date=2026-11-23..2026-11-24: the window is empty"),
        (
            "date=-10d..-8d",
            "date=-4d",
            {},
            "current {base}/date=2026-11-26: 1 rows, of the 2 that a comparison is to have",
        ),
        (
            "date=-10d..-8d",
            "date=-2d",
            {"window_min_rows": 5},
            "current {base}/date=2026-11-28: 4 rows, of the 5 that a comparison is to have",
        ),
        (
            "date=-10d..-2d",
            "date=-2d",
            {"window_when_partial": "skip"},
            "reference {base}/date=2026-11-20..2026-11-28: 3 of 9 parts are missing: date=2026-11-23, date=2026-11-24, "
            "date=2026-11-27",
        ),
    ],
)
def test_a_skipped_run_hands_on_why_and_what_was_found(
    gaps: str, tmp_path: Path, lines: Lines, reference: str, current: str, changes: dict[str, Any], why: str
):
    with pytest.raises(Skipped) as caught:
        taken(str(tmp_path), f"{gaps}/{reference}", f"{gaps}/{current}", job="job", **changes)
    skipped = caught.value
    assert skipped.why == why.format(base=gaps)
    run = skipped.fields["run"]
    assert (run["job"], run["as_of"], run["folder"]) == ("job", "2026-11-30T06:00:00+00:00", str(tmp_path / "out"))
    for side, asked in (("reference", reference), ("current", current)):
        found = skipped.fields[side]
        assert found["asked"] == f"{gaps}/{asked}"
        assert set(found) == {"uri", "asked", "rows", "missing"}
        assert f"{gaps}/date=2026-11-" in found["uri"]
    assert lines()[-1]["driftline"] == "done"
    assert lines()[-1]["skipped"] == skipped.why


@pytest.mark.parametrize("place", ["local", "gs"])
def test_each_is_refused_in_one_line_where_the_run_is_told_to(
    tmp_path: Path, place: str, request: pytest.FixtureRequest
):
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path)
    archive = write_days(join(base, "reviews"), {"2026-11-27": 4, "2026-11-29": 3})
    refusals = [
        ({"current": "date=-2d", "window_when_small": "refuse"}, "current {0}/date=2026-11-28: the window is empty"),
        (
            {"window_min_rows": 4, "window_when_small": "refuse"},
            "current {0}/date=2026-11-29: 3 rows, of the 4 that .*",
        ),
        (
            {"reference": "date=-4d..-1d", "window_when_partial": "refuse"},
            "reference {0}/date=2026-11-26..2026-11-29: 2 of 4 parts are missing: date=2026-11-26, date=2026-11-28",
        ),
    ]
    for changes, message in refusals:
        windows = {"reference": "date=-3d", "current": "date=-1d"} | {
            name: str(changes.pop(name)) for name in ("reference", "current") if name in changes
        }
        with pytest.raises(DataError, match=rf"\A{message.format(re.escape(archive))}\Z"):
            taken(base, f"{archive}/{windows['reference']}", f"{archive}/{windows['current']}", **changes)
    assert not exists(join(base, "sample.json"))


def test_a_partly_missing_window_is_compared_and_named(gaps: str, tmp_path: Path, lines: Lines):
    sample = taken(str(tmp_path), f"{gaps}/date=-10d..-2d", f"{gaps}/date=-2d")
    assert sample.reference.missing == ("date=2026-11-23", "date=2026-11-24", "date=2026-11-27")
    assert sample.reference.rows == sum(GAPS.values())
    [partial] = [line["partial"] for line in lines() if "partial" in line]
    assert "3 of 9 parts are missing: date=2026-11-23" in partial


@pytest.mark.parametrize("small", ["skip", "refuse"])
@pytest.mark.parametrize(
    "misspelt", ["reviews2/date=yesterday", "reviews/date=yesterday/model=m", "reviews/dates=2026"]
)
def test_a_misspelt_folder_is_refused_and_never_skipped(gaps: str, tmp_path: Path, small: str, misspelt: str):
    parent = gaps.rpartition("/")[0]
    with pytest.raises(DataError, match=rf"\A{re.escape(parent)}/[^\n]+\Z") as caught:
        taken(
            str(tmp_path),
            f"{gaps}/date=-10d",
            f"{parent}/{misspelt}",
            window_when_small=small,
            window_when_partial="skip",
        )
    assert not isinstance(caught.value, Skipped)
    assert not (tmp_path / "sample.json").exists()


def test_a_dataset_that_is_no_window_is_refused_when_it_holds_too_little(gaps: str, tmp_path: Path):
    """Waiting brings it no rows: only what is asked of windows by name may skip it."""
    one = f"{gaps}/date=2026-11-21"
    with pytest.raises(DataError, match=rf"\A{re.escape(one)}: expected at least 2 rows to compare, got 1; [^\n]+\Z"):
        taken(str(tmp_path), f"{gaps}/date=2026-11-20", one)
    with pytest.raises(Skipped, match="1 rows, of the 3 that a comparison is to have"):
        taken(str(tmp_path), f"{gaps}/date=2026-11-20", one, window_min_rows=3)


@pytest.mark.parametrize(
    "windows", [("date=-1d", "date=tomorrow"), ("date=-1d..-8d", "date=-1d"), ("hour=-1d", "date=-1d")]
)
def test_windows_that_mean_nothing_are_refused_in_one_line(archive: str, tmp_path: Path, windows: tuple[str, str]):
    with pytest.raises(UsageError, match=rf"\A{re.escape(archive)}[^\n]+\Z"):
        taken(str(tmp_path), *(f"{archive}/{window}" for window in windows))


def test_a_skipped_run_is_no_error(gaps: str, tmp_path: Path):
    with pytest.raises(Skipped):
        taken(str(tmp_path), f"{gaps}/date=-2d", f"{gaps}/date=-6d")
    assert not issubclass(Skipped, DriftlineError)
    marker = json.loads(read_bytes(str(tmp_path / "sample.json")))
    assert set(marker) == {"driftline.skipped", "run", "reference", "current"}
