"""What a failed drift run leaves behind, and the next run with the same `out` that removes it."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from driftline.components.storage.dataset.outputs import WORK_KEPT
from driftline.components.storage.objects.store import join, list_folders, read_json
from tests.support.archives import write_days
from tests.support.command import listing
from tests.support.steps import run_steps, run_to_report

AS_OF = "2026-11-30T06:00:00Z"


class Died(Exception):  # noqa: N818 - it stands for the end of a pod
    """The pod is gone."""


def age(folder: Path, days: float) -> None:
    """Let everything in a folder be as if written some days ago."""
    written = time.time() - timedelta(days=days).total_seconds()
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (written, written))


@pytest.fixture
def windows(tmp_path: Path) -> tuple[str, str]:
    archive = write_days(str(tmp_path / "reviews"), {"2026-11-28": 30, "2026-11-29": 30})
    return f"{archive}/date=-2d", f"{archive}/date=-1d"


def fail_after_project(folder: Path, windows: tuple[str, str], out: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run until the projected sample is written, and return the name of the run's working folder."""

    def die(**_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr("tests.support.steps.kernel.plan", die)
        with pytest.raises(Died):
            run_to_report(folder, *windows, out, pca_components=2, window_as_of=AS_OF)
    return json.loads((folder / "pooled.json").read_text())["run"]["id"]


@pytest.mark.parametrize("out", ["{0}/out", "{0}/out/{{date}}", "{0}/out/{{date}}/{{run}}/x"])
def test_the_next_run_removes_it_once_it_is_old_and_no_sooner(
    tmp_path: Path, windows: tuple[str, str], out: str, monkeypatch: pytest.MonkeyPatch
):
    out, work = out.format(tmp_path), tmp_path / "out" / "work"
    left = fail_after_project(tmp_path / "failed", windows, out, monkeypatch)
    assert "manifest.json" in listing(work / left)
    age(work / left, WORK_KEPT.days - 1)
    run_steps(tmp_path / "next", *windows, out, pca_components=2, window_as_of=AS_OF)
    assert list_folders(str(work)) == [left]
    age(work / left, WORK_KEPT.days + 1)
    run_steps(tmp_path / "third", *windows, out, pca_components=2, window_as_of=AS_OF)
    assert list_folders(str(work)) == []


def test_a_run_whose_newest_file_is_young_is_still_at_work(
    tmp_path: Path, windows: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    """A kernel task of days wrote its sums an hour ago; all else is older than a week."""
    out = str(tmp_path / "out")
    left = fail_after_project(tmp_path / "failed", windows, out, monkeypatch)
    folder = tmp_path / "out" / "work" / left
    age(folder, WORK_KEPT.days + 3)
    (folder / "sums").mkdir()
    (folder / "sums" / "task.npz").write_bytes(b"sums")
    run_steps(tmp_path / "next", *windows, out, pca_components=2, window_as_of=AS_OF)
    assert list_folders(str(folder.parent)) == [left]


def test_what_is_not_a_run_s_own_stays_whatever_its_age(tmp_path: Path, windows: tuple[str, str]):
    out = tmp_path / "out"
    for name in ("work/mine/notes.txt", "other/00000000000000000000000000000000/x", "work/short-id/x"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    age(out, 400)
    run_steps(tmp_path / "run", *windows, str(out), pca_components=2, window_as_of=AS_OF)
    assert list_folders(str(out / "work")) == ["mine", "short-id"]
    assert (out / "other" / ("0" * 32) / "x").read_text() == "mine"


def test_a_skipped_run_sweeps_too_and_says_what_it_removed(
    tmp_path: Path, windows: tuple[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    out = str(tmp_path / "out")
    left = fail_after_project(tmp_path / "failed", windows, out, monkeypatch)
    age(tmp_path / "out" / "work" / left, WORK_KEPT.days + 1)
    with caplog.at_level("INFO", logger="driftline"):
        run_steps(tmp_path / "next", windows[0], windows[1].replace("-1d", "-3d"), out, window_as_of=AS_OF)
    assert read_json(join(out, "result.json"))["status"] == "skipped"
    assert list_folders(join(out, "work")) == []
    assert [json.loads(line)["swept"] for line in caplog.messages if '"swept"' in line] == [[join(out, "work", left)]]


def test_on_gs_work_of_today_stays(
    tmp_path: Path, windows: tuple[str, str], gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
):
    out = join(gcs_bucket, "out")
    left = fail_after_project(tmp_path / "failed", windows, out, monkeypatch)
    run_steps(tmp_path / "next", *windows, out, pca_components=2, window_as_of=AS_OF)
    assert list_folders(join(out, "work")) == [left]


def test_on_gs_old_work_goes(
    tmp_path: Path, windows: tuple[str, str], gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
):
    out = join(gcs_bucket, "out")
    fail_after_project(tmp_path / "failed", windows, out, monkeypatch)
    # An object's time is the service's: the limit moves instead.
    monkeypatch.setattr("driftline.components.storage.dataset.outputs.WORK_KEPT", timedelta(days=-1))
    run_steps(tmp_path / "next", *windows, out, pca_components=2, window_as_of=AS_OF)
    assert list_folders(join(out, "work")) == []
