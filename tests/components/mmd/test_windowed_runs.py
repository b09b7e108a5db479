"""Whole drift runs over windows: what they say that they compared, and what they leave when there was too little."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.components.errors import DataError
from driftline.components.mmd import step
from driftline.components.mmd.report.data import ReportData
from driftline.components.mmd.result import DriftResult, FoundWindow, SkippedResult
from driftline.components.mmd.step import Reported, Verdict
from driftline.components.storage.objects.json_history import read_history
from driftline.components.storage.objects.store import exists, join, list_files, read_bytes, read_json
from tests.support.archives import write_days
from tests.support.command import listing
from tests.support.steps import report, run_steps, run_to_report

DAYS = {f"2026-11-{day}": 12 for day in range(20, 31) if day != 25}
AS_OF = "2026-11-30T06:00:00Z"
SETTINGS: dict[str, Any] = {"pca_components": 2, "window_as_of": AS_OF}
OWN = ("run", "created", "steps", "report_uri", "job", "as_of")
"""What two runs of the same windows tell differently."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten days of eleven, of which the 29th is another; to be read only."""
    folder = tmp_path_factory.mktemp("archive") / "reviews"
    return write_days(str(folder), DAYS, shift={"2026-11-29": 3.0})


@pytest.fixture(params=["local", "gs"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("gcs_bucket") if request.param == "gs" else str(tmp_path / "lake")


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "driftline"]


def text_of(page: bytes) -> str:
    """Return what a page shows: words between its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.decode()).split())


def test_result_report_history_and_log_name_what_the_windows_became(
    archive: str, base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = join(base, "out")
    with caplog.at_level("INFO", logger="driftline"):
        told = run_steps(tmp_path / "a", f"{archive}/date=-8d..-2d", f"{archive}/date=yesterday", out, **SETTINGS)
    week, night = f"{archive}/date=2026-11-22..2026-11-28", f"{archive}/date=2026-11-29"
    result = DriftResult.from_json(read_json(join(out, "result.json")))
    assert (result.reference.uri, result.reference.asked) == (week, f"{archive}/date=-8d..-2d")
    assert (result.current.uri, result.current.asked) == (night, f"{archive}/date=yesterday")
    assert (result.reference.missing, result.current.missing) == (("date=2026-11-25",), ())
    assert (result.as_of, result.job, result.status) == ("2026-11-30T06:00:00+00:00", "job-1", "compared")
    assert (result.reference.rows, result.current.rows) == (72, 12)
    assert told == Reported(True, join(out, "report.html"))
    assert result.report_uri == told.report_uri
    [record] = read_history(join(out, "history"))
    for name in ("reference", "current", "as_of", "job", "run", "status", "report_uri"):
        assert record[name] == read_json(join(out, "result.json"))[name]
    page = text_of(read_bytes(join(out, "report.html")))
    for shown in (
        f"Asked for {archive}/date=-8d..-2d {archive}/date=yesterday",
        f"Dataset {week} {night}",
        "Missing from the window date=2026-11-25 nothing",
        "Windows as of 30 November 2026, 06:00 UTC",
        f"Run {result.run}",
        "Run's name in the backend job-1".replace("'", "&#39;"),
    ):
        assert shown in page
    lines = logged(caplog)
    assert {"run": result.run, "job": "job-1", "as_of": result.as_of, "out": out}.items() <= lines[1].items()
    assert [(line["asked"], line["window"], line["missing"]) for line in lines if "side" in line] == [
        (f"{archive}/date=-8d..-2d", week, ["date=2026-11-25"]),
        (f"{archive}/date=yesterday", night, []),
    ]
    [last] = [line for line in lines if line["step"] == "report" and "status" in line]
    assert (last["status"], last["drift"], last["report"]) == ("compared", True, told.report_uri)


class Then(datetime):
    """A clock that stands still, one second into the first of December."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC).astimezone(tz)


def test_a_late_run_gives_what_it_would_have_given_then(archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    windows = f"{archive}/date=-8d..-3d", f"{archive}/date=-2d..yesterday"
    with monkeypatch.context() as patch:
        patch.setattr("driftline.components.sampling.step.datetime", Then)
        run_steps(tmp_path / "then", *windows, str(tmp_path / "out-then"), pca_components=2)
    late = {"window_as_of": "2026-12-01T23:59:59+00:00"}
    run_steps(tmp_path / "late", *windows, str(tmp_path / "out-late"), pca_components=2, kernel_tasks=3, **late)
    then, later = (read_json(str(tmp_path / name / "result.json")) for name in ("out-then", "out-late"))
    assert then["created"] == then["as_of"] == "2026-12-01T00:00:01+00:00"
    assert later["as_of"] == "2026-12-01T23:59:59+00:00"
    assert then["current"]["uri"] == f"{archive}/date=2026-11-29..2026-11-30"
    assert then["run"] != later["run"]
    assert {name: value for name, value in then.items() if name not in OWN} == {
        name: value for name, value in later.items() if name not in OWN
    }
    witness = [(tmp_path / name / "witness.parquet").read_bytes() for name in ("out-then", "out-late")]
    assert witness[0] == witness[1]


def test_the_history_of_a_schedule_is_one_whatever_the_folder_of_the_report(archive: str, base: str, tmp_path: Path):
    out = f"{base}/reports/{{date}}"
    for day in (28, 29):
        as_of = f"2026-11-{day}T00:00:01Z"
        windows = f"{archive}/date=-5d..-2d", f"{archive}/date=-1d"
        run_steps(tmp_path / f"{day}", *windows, out, pca_components=2, window_as_of=as_of)
    # Both may have begun in the same second.
    records = sorted(read_history(join(base, "reports", "history")), key=lambda record: record["as_of"])
    assert [record["report_uri"] for record in records] == [
        f"{base}/reports/2026-11-{day}/report.html" for day in (28, 29)
    ]
    assert [record["current"]["uri"] for record in records] == [f"{archive}/date=2026-11-{day}" for day in (27, 28)]


def test_a_skipped_run_goes_through_all_steps_and_reports(
    archive: str, base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = join(base, "out")
    with caplog.at_level("INFO", logger="driftline"):
        tested = run_to_report(
            tmp_path / "a", f"{archive}/date=-8d..-2d", f"{archive}/date=-5d", out, kernel_tasks=5, **SETTINGS
        )
        told = report(tmp_path / "a")
    place, why = join(out, "report.html"), f"current {archive}/date=2026-11-25: the window is empty"
    assert tested == step.Tested(Verdict(False, 1.0, 0.0, 0.0, "skipped"), {"Verdict": "skipped"})
    assert told == Reported(False, place)
    result = SkippedResult.from_json(read_json(join(out, "result.json")))
    assert result == SkippedResult(
        created=result.created,
        reason=why,
        reference=FoundWindow(
            f"{archive}/date=2026-11-22..2026-11-28", f"{archive}/date=-8d..-2d", 72, ("date=2026-11-25",)
        ),
        current=FoundWindow(f"{archive}/date=2026-11-25", f"{archive}/date=-5d", 0, ("date=2026-11-25",)),
        run=result.run,
        job="job-1",
        as_of="2026-11-30T06:00:00+00:00",
        report_uri=place,
        status="skipped",
    )
    assert [record["status"] for record in read_history(join(out, "history"))] == ["skipped"]
    [record] = read_history(join(out, "history"))
    assert (record["run"], record["reason"], record["job"]) == (result.run, why, "job-1")
    page = text_of(read_bytes(place))
    for shown in ("There was not enough to compare", why, f"Asked for {archive}/date=-8d..-2d", "Texts 72 0"):
        assert shown in page
    assert "<script" not in read_bytes(place).decode()
    for artifact in ("result.json", "report.html"):
        assert (tmp_path / "a" / artifact).read_bytes() == read_bytes(join(out, artifact))
    assert sorted(info.uri.removeprefix(out + "/").partition("/")[0] for info in list_files(out)) == [
        "history",
        "report.html",
        "result.json",
    ]
    lines = logged(caplog)
    assert [line["step"] for line in lines if line.get("skipped") == why] == [
        *("sample", "fit", "project", "plan", "kernel", "test"),
    ]
    [last] = [line for line in lines if line["step"] == "report" and "status" in line]
    assert (last["status"], last["why"], last["report"]) == ("skipped", why, place)


@pytest.mark.parametrize("artifact", ["pooled", "fitted", "projected", "plan", "outcome"])
def test_every_artifact_of_a_skipped_run_says_so_and_why(archive: str, tmp_path: Path, artifact: str):
    run_steps(tmp_path / "a", f"{archive}/date=-2d", f"{archive}/date=-5d", str(tmp_path / "out"), **SETTINGS)
    marker = read_json(str(tmp_path / "a" / f"{artifact}.json"))
    assert marker == read_json(str(tmp_path / "a" / "pooled.json"))
    assert marker["driftline.skipped"].endswith("date=2026-11-25: the window is empty")


def test_the_trend_leaves_skipped_runs_out(archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown: list[list[str]] = []
    render = step.render_report

    def keep(data: ReportData) -> str:
        shown.append([point.created for point in data.history])
        return render(data)

    monkeypatch.setattr(step, "render_report", keep)
    out = str(tmp_path / "out")
    statuses = []
    for number, current in enumerate(("date=-2d", "date=-5d", "date=-1d", "date=-9d..-5d")):
        changes = {"window_when_partial": "skip"} if number == 3 else {}
        told = run_steps(
            tmp_path / f"{number}", f"{archive}/date=-4d..-3d", f"{archive}/{current}", out, **SETTINGS, **changes
        )
        statuses.append(read_json(join(told.report_uri.rpartition("/")[0], "result.json"))["status"])
    assert statuses == ["compared", "skipped", "compared", "skipped"]
    records = read_history(join(out, "history"))
    assert sorted(record["status"] for record in records) == sorted(statuses)
    compared = [record["created"] for record in records if record["status"] == "compared"]
    assert [len(points) for points in shown] == [1, 2]
    assert sorted(shown[-1]) == sorted(compared)


def test_a_skipped_run_needs_no_history_that_can_be_read(archive: str, tmp_path: Path):
    past = tmp_path / "past"
    past.mkdir()
    (past / "20250301T060000.000000Z-old.json").write_text("{torn")
    windows = f"{archive}/date=-2d", f"{archive}/date=-5d"
    told = run_steps(tmp_path / "a", *windows, str(tmp_path / "out"), output_history=str(past), **SETTINGS)
    assert told == Reported(False, str(tmp_path / "out" / "report.html"))
    assert read_json(str(tmp_path / "out" / "result.json"))["status"] == "skipped"
    assert len(listing(past)) == 2


def test_a_skipped_run_that_is_reported_again_tells_the_same_once(archive: str, tmp_path: Path):
    out = str(tmp_path / "out")
    told = run_steps(tmp_path / "a", f"{archive}/date=-2d", f"{archive}/date=-5d", out, **SETTINGS)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("result.json", "report.html")}
    assert report(tmp_path / "a") == told
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    assert len(read_history(join(out, "history"))) == 1


def test_a_refused_run_leaves_nothing(archive: str, base: str, tmp_path: Path):
    out = join(base, "out")
    message = rf"\Acurrent {re.escape(archive)}/date=2026-11-25: the window is empty\Z"
    with pytest.raises(DataError, match=message):
        run_steps(
            tmp_path / "a", f"{archive}/date=-2d", f"{archive}/date=-5d", out, window_when_small="refuse", **SETTINGS
        )
    assert not exists(out)
    assert list((tmp_path / "a").iterdir()) == []
