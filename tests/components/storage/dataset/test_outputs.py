"""Where runs of a schedule write, and how what failed runs left is swept."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import StorageError, UsageError
from driftline.components.storage.dataset.outputs import WORK, WORK_KEPT, OutputPlace, history_folder, sweep_work
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import join
from tests.support.faulty_proxy import Fault, FaultyProxy, Seen

AS_OF = datetime(2026, 11, 30, 9, 5, tzinfo=UTC)
JOB = "6f1a0b1c-1111-4222-8333-444455556666"
RUNS = [f"{number:032x}" for number in range(1, 9)]
SOON = timedelta(minutes=1)


# Where a run writes


@pytest.mark.parametrize(
    ("out", "base", "folder"),
    [
        ("gs://lake/reports", "gs://lake/reports", "gs://lake/reports"),
        ("reports/", "reports/", "reports/"),
        ("gs://lake/reports/{date}", "gs://lake/reports", "gs://lake/reports/2026-11-30"),
        ("gs://lake/{date}/{hour}/{run}/", "gs://lake", f"gs://lake/2026-11-30/09/{JOB}/"),
        ("gs://lake/a/reports-{date}T{hour}/b", "gs://lake/a", "gs://lake/a/reports-2026-11-30T09/b"),
        ("{date}", ".", "2026-11-30"),
        ("./{date}", ".", "./2026-11-30"),
        ("/{date}/x", "/", "/2026-11-30/x"),
        ("/data/{run}{run}", "/data", f"/data/{JOB}{JOB}"),
        ("file:///data/{date}", "/data", "file:///data/2026-11-30"),
    ],
)
def test_placeholders(out: str, base: str, folder: str):
    place = OutputPlace.of(out)
    assert (place.out, place.base) == (out, base)
    assert place.folder(AS_OF, JOB) == folder
    assert place.folder(AS_OF.astimezone(timezone(timedelta(hours=-10))), JOB) == folder
    assert history_folder(out, "") == join(base, "history")
    assert history_folder(out, "gs://lake/all") == "gs://lake/all"


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.integers(-1439, 1439),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True),
)
def test_each_hour_and_each_run_has_a_folder_of_its_own(moment: datetime, offset: int, job: str):
    zone = timezone(timedelta(minutes=offset))
    place = OutputPlace.of("gs://lake/{date}/{hour}/{run}")
    folder = place.folder(moment.replace(tzinfo=zone), job)
    date, hour, run = folder.removeprefix("gs://lake/").split("/")
    assert run == job
    told = datetime.fromisoformat(f"{date}T{hour}:00:00+00:00")
    assert timedelta(0) <= moment.replace(tzinfo=zone) - told < timedelta(hours=1)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("a/{day}", "{day} is no placeholder; {date}, {hour} and {run} are filled in; no other braces may be in it"),
        ("a/{Date}", "{Date} is no placeholder"),
        ("a/{}", "{} is no placeholder"),
        ("a/{ date }", "{ date } is no placeholder"),
        ("a/{date/b", "a brace stands alone; {date}, {hour} and {run}"),
        ("a/date}/{run}", "a brace stands alone"),
        ("a/{{date}}", "{{date}} is a placeholder that the backend has not filled in; write {date}, {hour} or {run}"),
        (
            "a/{{$.pipeline_job_uuid}}/{run}",
            "{{$.pipeline_job_uuid}} is a placeholder that the backend has not filled in",
        ),
        ("a/[[CurrentTime]]", "[[CurrentTime]] is a placeholder that the backend has not filled in"),
        ("gs://{date}/a", "is not a bucket's name"),
        ("s3://lake/{date}", "s3:// is not supported"),
        ("", "does not name a file or folder"),
    ],
)
def test_outputs_that_are_refused(out: str, said: str):
    for refused in (OutputPlace.of, lambda out: history_folder(out, "")):
        with pytest.raises(UsageError) as refusal:
            refused(out)
        assert said in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "job", ["", " ", "a/b", "..", ".hidden", "-x", "a b", "{{$.pipeline_job_uuid}}", "ü", "a\n", "x" * 129]
)
def test_an_id_that_cannot_be_part_of_a_path(job: str):
    with pytest.raises(UsageError) as refusal:
        OutputPlace.of("a/{date}/{run}").folder(AS_OF, job)
    assert f"{{run}} is filled in with the run's id, which is {job!r}; expected 1 to 128 letters" in str(refusal.value)
    assert OutputPlace.of("a/{date}").folder(AS_OF, job) == "a/2026-11-30"  # not asked for


# What failed runs left


def leave(base: str, runs: Sequence[str]) -> None:
    for run in runs:
        for name in ("sample.bin", "sums/0.npz"):
            store.write_bytes(join(base, "work", run, name), b"left")


def left(base: str) -> set[str]:
    return set(store.list_folders(join(base, "work")))


def test_old_work_is_swept(place: str):
    leave(place, RUNS[:3])
    leave(place, ["notes", RUNS[3].upper().replace("0", "A"), f"{RUNS[4]}-kept", RUNS[5][:31]])
    store.write_bytes(join(place, "history/record.json"), b"{}")
    store.write_bytes(join(place, "work", RUNS[6]), b"a file")
    now = datetime.now(UTC)
    before = store.list_files(place)
    assert sweep_work(place, RUNS[1], now + WORK_KEPT - SOON) == ()
    assert store.list_files(place) == before
    removed = sweep_work(place, RUNS[1], now + WORK_KEPT + SOON)
    assert removed == (join(place, "work", RUNS[0]), join(place, "work", RUNS[2]))
    assert store.list_files(place) == [
        info for info in before if not any(info.uri.startswith(f"{folder}/") for folder in removed)
    ]
    assert RUNS[1] in left(place)
    assert sweep_work(f"{place}/", RUNS[1], now + WORK_KEPT + SOON) == ()


def test_nothing_is_there_to_sweep(place: str):
    assert sweep_work(place, RUNS[0], AS_OF) == ()
    assert sweep_work(place, "", AS_OF) == ()


def test_the_newest_file_counts(tmp_path: Path):
    base, now = str(tmp_path), datetime.now(UTC)
    leave(base, RUNS[:3])
    old = (now - WORK_KEPT - SOON).timestamp()
    for path in tmp_path.rglob("*"):
        os.utime(path, (old, old))
    fresh = (now - WORK_KEPT + SOON).timestamp()
    os.utime(tmp_path / "work" / RUNS[0] / "sums/0.npz", (fresh, fresh))
    # A run that writes just now: its file is not listed yet.
    part = tmp_path / "work" / RUNS[1] / ".projected.0a1b.part"
    part.touch()
    assert sweep_work(base, "", now) == (join(base, "work", RUNS[2]),)
    # One that was killed while writing.
    for path in (tmp_path / "work" / RUNS[1]).rglob("*"):
        os.utime(path, (old, old))
    assert sweep_work(base, "", now) == (join(base, "work", RUNS[1]),)
    assert left(base) == {RUNS[0]}


def test_a_folder_without_files_goes_by_its_own_age(tmp_path: Path):
    folder = tmp_path / "work" / RUNS[0]
    folder.mkdir(parents=True)
    now = datetime.now(UTC)
    assert sweep_work(str(tmp_path), "", now) == ()
    assert sweep_work(str(tmp_path), "", now + WORK_KEPT + SOON) == (str(folder),)


def test_a_link_named_like_a_run_is_not_followed(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").touch()
    (tmp_path / "out/work").mkdir(parents=True)
    (tmp_path / "out/work" / RUNS[0]).symlink_to(tmp_path / "elsewhere")
    assert sweep_work(str(tmp_path / "out"), "", datetime.now(UTC) + 2 * WORK_KEPT) == ()
    assert (tmp_path / "elsewhere/precious").exists()


def test_runs_that_sweep_at_once(place: str):
    leave(place, RUNS)
    sweepers, now = 4, datetime.now(UTC) + WORK_KEPT + SOON
    ready = Barrier(sweepers)

    def sweep(number: int) -> tuple[str, ...]:
        ready.wait(60)  # seconds: a thread that failed before must not hang the test
        return sweep_work(place, RUNS[number], now)

    with ThreadPoolExecutor(sweepers) as threads:
        removed = list(threads.map(sweep, range(sweepers)))
    assert left(place) == set()  # each one's own was swept by the others, whose own it is not
    assert {folder for folders in removed for folder in folders} == {join(place, "work", run) for run in RUNS}
    assert all(join(place, "work", RUNS[number]) not in folders for number, folders in enumerate(removed))


def test_a_folder_that_cannot_be_removed_is_warned_of(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    leave(place, RUNS[:3])
    stuck, remove = join(place, "work", RUNS[1]), store.remove_tree

    def remove_tree(uri: str) -> None:
        if uri == stuck:
            raise StorageError(f"{uri}: cannot remove: no permission; let this user write to its folder")
        remove(uri)

    monkeypatch.setattr(store, "remove_tree", remove_tree)
    with caplog.at_level(logging.WARNING, "driftline"):
        removed = sweep_work(place, "", datetime.now(UTC) + WORK_KEPT + SOON)
    assert removed == (join(place, "work", RUNS[0]), join(place, "work", RUNS[2]))
    assert left(place) == {RUNS[1]}
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"{stuck}: what earlier runs may have left there was not removed ({stuck}: cannot"
    )


def test_a_bucket_that_lets_nobody_delete(
    proxy: FaultyProxy, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from driftline.components.storage.objects import gcs

    leave(gcs_bucket, RUNS[:2])

    def plan(seen: Seen) -> Fault | None:
        return Fault("status", 403) if seen.method == "DELETE" else None

    proxy.plan = plan
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.endpoint)
    gcs.default_store.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "driftline"):
            assert sweep_work(gcs_bucket, "", datetime.now(UTC) + WORK_KEPT + SOON) == ()
    finally:
        gcs.default_store.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert all(f"{gcs_bucket}/{WORK}/" in record.getMessage() for record in caplog.records)


def test_a_place_that_cannot_be_listed_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def list_folders(uri: str) -> list[str]:
        raise StorageError(f"{uri}: cannot list: no permission")

    monkeypatch.setattr(store, "list_folders", list_folders)
    with caplog.at_level(logging.WARNING, "driftline"):
        assert sweep_work(str(tmp_path), "", AS_OF) == ()
    assert f"{tmp_path}/work: what earlier runs may have left" in caplog.records[0].getMessage()
