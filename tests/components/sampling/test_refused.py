"""What a drift run refuses in its first step, before there is work, and that nothing is left behind by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.sampling import step
from driftline.components.sampling.pooled import PooledSample
from driftline.components.steps import Skipped
from driftline.components.storage.objects.store import exists, join, list_files, write_bytes
from driftline.components.storage.objects.values import read_value
from tests.components.test_drift_settings import REFUSED, UI_LETTERS, shown
from tests.support.command import listing
from tests.support.datasets import write_embeddings
from tests.support.unprivileged import closed_folder

ROWS, DIMENSION = 6, 4
SMALL = {"pca_components": 2}


def take(folder: str, reference: str, current: str, **changes: Any) -> PooledSample:
    """Run the step with its artifact in a folder and its output below it, and return what it hands on."""
    place = join(folder, "sample.json")
    given: dict[str, Any] = {"out": join(folder, "out"), **SMALL} | changes
    step.run(reference=reference, current=current, sample_out=place, **given)
    return read_value(place, PooledSample)


def dataset(uri: str, columns: Sequence[str] = (), rows: int = ROWS, seed: int = 0) -> str:
    """Write a dataset that carries some columns, and return its folder."""
    vectors = np.random.default_rng(seed).normal(size=(rows, DIMENSION))
    return write_embeddings(uri, vectors, carried={name: [f"{name} {row}" for row in range(rows)] for name in columns})


def week(base: str, days: Mapping[str, Sequence[str]]) -> str:
    """Write an archive by day, each with its columns, and return a window of all of its days."""
    for number, (day, columns) in enumerate(days.items()):
        dataset(f"{base}/date=2026-11-{day}", columns, seed=number)
    return f"{base}/date=2026-11-{min(days)}..2026-11-{max(days)}"


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """Two datasets that carry texts."""
    return dataset(str(tmp_path / "x"), ["text"]), dataset(str(tmp_path / "y"), ["text"], seed=1)


Left = Callable[[], list[str]]


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """Tell what has come to be below the test's folder since now."""
    before = set(listing(tmp_path))
    return lambda: [name for name in listing(tmp_path) if name not in before]


# Settings ----------------------------------------------------------------------------------------------------------

ELSEWHERE: list[tuple[dict[str, Any], str]] = [
    ({"window_as_of": "the 30th"}, "window_as_of 'the 30th': expected a date or a date-time"),
    ({"window_as_of": "{{$.pipeline_job_create_time_utc}}"}, "window_as_of '{{$.pipeline_job_create_time_utc}}' is"),
    ({"out": "/tmp/{day}"}, "output_folder '/tmp/{day}': {day} is no placeholder"),
    ({"out": "/tmp/{date"}, "output_folder '/tmp/{date': a brace stands alone"),
    ({"out": "/tmp/{run}"}, "output_folder '/tmp/{run}': {run} is filled in with the run's id"),
    ({"out": ""}, "output_folder: expected a folder"),
    ({"reference": ""}, "reference: expected a folder"),
    ({"current": " "}, "current: expected a folder"),
    ({"out": "s3://lake/out"}, "s3://lake/out: s3:// is not supported"),
    ({"output_history": "s3://lake/past"}, "s3://lake/past: s3:// is not supported"),
    ({"notify_url": "events.example.org"}, "notify_url: expected "),
    ({"notify_url": "ftp://events.example.org/drift"}, "notify_url: expected "),
    ({"notify_url": "https://"}, "notify_url: expected "),
]
"""What is refused beside the settings' own ranges."""


@pytest.mark.parametrize(("changes", "begins"), [*REFUSED, *ELSEWHERE], ids=shown)
def test_a_wrong_setting_is_refused_before_anything_is_read_or_written(
    tmp_path: Path, changes: dict[str, Any], begins: str
):
    """Neither dataset is there, nor can the output be written: what is said is what is wrong with the setting."""
    (tmp_path / "file").write_text("a file where a folder is wanted")
    given = {
        "reference": f"{tmp_path}/nowhere",
        "current": f"{tmp_path}/neither",
        "out": f"{tmp_path}/file/out",
    } | changes
    with pytest.raises(UsageError) as caught:
        take(str(tmp_path), **given)
    assert len(begins) <= UI_LETTERS
    assert str(caught.value).startswith(begins)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == ["file"]


@pytest.mark.parametrize("url", ["", "https://events.example.org/drift", "http://events:8080"])
def test_a_url_that_can_be_told_is_taken(tmp_path: Path, two: tuple[str, str], url: str):
    assert take(str(tmp_path), *two, notify_url=url).rows == 2 * ROWS


@pytest.mark.parametrize("components", [5, 32, 200])
def test_more_components_than_dimensions_are_refused(tmp_path: Path, two: tuple[str, str], left: Left, components: int):
    message = rf"\Apca_components: expected at most 4 for 12 vectors of dimension 4, [^\n]+ got {components}\Z"
    with pytest.raises(UsageError, match=message):
        take(str(tmp_path), *two, pca_components=components)
    assert left() == []


def test_more_components_than_sampled_rows_span_are_refused(tmp_path: Path, two: tuple[str, str], left: Left):
    assert take(str(tmp_path / "a"), *two, pca_components=3, window_max_rows=2).rows == 4
    with pytest.raises(UsageError, match=r"\Apca_components: expected at most 3 for 4 vectors of dimension 4, "):
        take(str(tmp_path / "b"), *two, pca_components=4, window_max_rows=2)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kernel", ["linear", "polynomial"])
def test_a_kernel_without_features_is_refused_where_the_size_asks_for_them(
    tmp_path: Path, two: tuple[str, str], left: Left, monkeypatch: pytest.MonkeyPatch, kernel: str
):
    monkeypatch.setattr("driftline.components.drift_settings.EXACT_ROWS", 2 * ROWS - 1)
    with pytest.raises(UsageError, match=rf"\Akernel: {kernel} takes the test_method exact or cross, [^\n]+\(12\)"):
        take(str(tmp_path), *two, kernel=kernel)
    assert left() == []
    for number, changes in enumerate(({"test_method": "exact"}, {"test_method": "cross"}, {"window_max_rows": 5})):
        assert take(str(tmp_path / f"{number}"), *two, kernel=kernel, **changes).settings.kernel == kernel


def test_cross_without_rows_for_its_halves_is_refused(tmp_path: Path, two: tuple[str, str], left: Left):
    with pytest.raises(UsageError, match=r"\Atest_method: cross [^\n]+ 3 and 3"):
        take(str(tmp_path), *two, test_method="cross", window_max_rows=3)
    assert left() == []


# Columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "asked", "side", "there"),
    [
        ((["text", "stars"], ["text", "stars"]), "body", 0, "text, stars"),
        ((["text"], ["body"]), "text", 1, "body"),
        ((["text"], ["body"]), "body", 0, "text"),
        ((["text"], []), "text", 1, "none beside ids and vectors"),
        (([], []), "text", 0, "none beside ids and vectors"),
        ((["text"], ["text"]), "Text", 0, "text"),
        ((["text"], ["text"]), "id", 0, "text"),
        ((["text"], ["text"]), "embedding", 0, "text"),
    ],
)
@pytest.mark.parametrize("windows", [False, True], ids=["datasets", "windows"])
def test_a_column_that_is_asked_for_and_absent_is_refused_with_those_that_exist(
    tmp_path: Path,
    left: Left,
    columns: tuple[list[str], list[str]],
    asked: str,
    side: int,
    there: str,
    windows: bool,
):
    if windows:
        sides = tuple(
            week(str(tmp_path / name), dict.fromkeys(("23", "24", "25"), each))
            for name, each in zip("xy", columns, strict=True)
        )
    else:
        sides = tuple(dataset(str(tmp_path / name), each) for name, each in zip("xy", columns, strict=True))
    before = listing(tmp_path)
    with pytest.raises(UsageError) as caught:
        take(str(tmp_path), *sides, text_column=asked)
    message = str(caught.value)
    assert re.fullmatch(
        rf"text_column: no column '{asked}' is there; columns: {there}; [^\n]*{re.escape(sides[side])}", message
    )
    assert "columns: " in message[:UI_LETTERS]
    assert listing(tmp_path) == before


def test_days_that_carry_different_columns_are_refused_as_ever(tmp_path: Path):
    window = week(str(tmp_path / "x"), {"23": ["text"], "24": ["body"]})
    with pytest.raises(DataError, match="columns"):
        take(str(tmp_path), window, window, text_column="text")


@pytest.mark.parametrize(
    ("columns", "shown_column", "carried"),
    [
        ((["text"], ["text"]), "text", ("text",)),
        ((["text"], []), "text", ("text",)),
        (([], ["stars", "text"]), "text", ("stars", "text")),
        ((["stars"], ["text", "stars", "time"]), "text", ("stars", "text", "time")),
        (([], []), "", ()),
        ((["body"], ["review"]), "", ("body", "review")),
    ],
)
@pytest.mark.parametrize("windows", [False, True], ids=["datasets", "windows"])
def test_unless_asked_otherwise_text_is_shown_where_it_is_carried(
    tmp_path: Path, columns: tuple[list[str], list[str]], shown_column: str, carried: tuple[str, ...], windows: bool
):
    sides = [
        week(str(tmp_path / name), dict.fromkeys(("23", "24"), each))
        if windows
        else dataset(str(tmp_path / name), each)
        for name, each in zip("xy", columns, strict=True)
    ]
    sample = take(str(tmp_path), *sides)
    assert (sample.text_column, sample.carried) == (shown_column, carried)
    rows = sample.reference.sampled
    for (_, text), side in zip(sample.describe([0, rows]), columns, strict=True):
        assert text == ("text 0" if shown_column and "text" in side else None)


def test_a_column_that_is_asked_for_and_there_is_shown(tmp_path: Path):
    sides = [dataset(str(tmp_path / name), ["text", "body"]) for name in "xy"]
    sample = take(str(tmp_path), *sides, text_column=" body ")
    assert (sample.text_column, sample.settings.text_column, sample.carried) == ("body", "body", ("text", "body"))
    assert [text for _, text in sample.describe([1, ROWS + 2])] == ["body 1", "body 2"]


# Folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["file", "file/out", "file/{date}/x"])
def test_an_output_below_a_file_is_refused(tmp_path: Path, two: tuple[str, str], out: str):
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(StorageError, match=r"\A[^\n]*/file[^\n]*: cannot write: a part of the path is a file [^\n]+\Z"):
        take(str(tmp_path), *two, out=f"{tmp_path}/{out}")
    assert listing(tmp_path) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_without_permission_is_refused(tmp_path: Path, two: tuple[str, str]):
    no_permission = r"\A[^\n]*/closed/[^\n]*: cannot write: no permission; [^\n]+\Z"
    with closed_folder() as closed, pytest.raises(StorageError, match=no_permission):
        take(str(tmp_path), *two, out=str(closed / "out"))


def test_an_output_in_no_bucket_that_there_is_is_refused(tmp_path: Path, two: tuple[str, str], gcs_bucket: str):
    nowhere = gcs_bucket.replace("gs://", "gs://no-such-")
    with pytest.raises(StorageError, match=rf"\A{re.escape(nowhere)}/out/[^\n]+\Z"):
        take(str(tmp_path), *two, out=f"{nowhere}/out")


@pytest.mark.parametrize("out", ["{0}/out", "{0}/out/{{date}}/{{run}}"])
@pytest.mark.parametrize("asked", [False, True], ids=["below the output", "asked for"])
@pytest.mark.parametrize("place", ["local", "gs"])
def test_a_damaged_history_is_refused_before_any_work(
    tmp_path: Path, two: tuple[str, str], place: str, asked: bool, out: str, request: pytest.FixtureRequest
):
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else f"{tmp_path}/lake"
    history = join(base, "past" if asked else "out/history")
    write_bytes(join(history, "20260301T060000.000000Z-old.json"), b"{torn")
    with pytest.raises(DataError, match=rf"\Ahistory record {re.escape(history)}/2026[^\n]+ is not JSON [^\n]+\Z"):
        take(str(tmp_path), *two, out=out.format(base), job="job-1", output_history=history if asked else "")
    assert [info.uri for info in list_files(base)] == [join(history, "20260301T060000.000000Z-old.json")]
    assert not exists(join(base, "out/work"))


def test_a_history_that_is_a_file_is_refused(tmp_path: Path, two: tuple[str, str]):
    (tmp_path / "past").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(StorageError, match=r"\A[^\n]*/past[^\n]*: cannot write: a part of the path is a file [^\n]+\Z"):
        take(str(tmp_path), *two, output_history=str(tmp_path / "past"))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "reports"])
def test_what_a_refused_or_a_skipped_run_leaves_is_what_was_there(tmp_path: Path, there: str):
    out = tmp_path / "out"
    if there != "nothing":
        out.mkdir()
    if there == "reports":
        for name in ("report.html", "work/mine/notes.txt", "history/readme.txt"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text("mine")
    archive = str(tmp_path / "x")
    week(archive, {"23": ["text"], "24": ["text"]})
    window, empty = f"{archive}/date=2026-11-23..2026-11-24", f"{archive}/date=2026-11-25..2026-11-26"
    before = listing(tmp_path)
    for windows, changes in (
        ((window, empty), {"window_when_small": "refuse"}),
        ((window, f"{tmp_path}/nowhere"), {}),
        ((window, window), {"text_column": "body"}),
        ((window, window), {"pca_components": 32}),
    ):
        with pytest.raises((DataError, UsageError)):
            take(str(tmp_path), *windows, **changes)
        assert listing(tmp_path) == before
    with pytest.raises(Skipped):
        take(str(tmp_path), window, empty)
    assert listing(tmp_path) == sorted([*before, "sample.json"])


def test_nothing_is_left_on_gs_either(tmp_path: Path, two: tuple[str, str], gcs_bucket: str):
    with pytest.raises(UsageError):
        take(str(tmp_path), *two, out=gcs_bucket, text_column="body")
    assert list_files(gcs_bucket) == []
    take(str(tmp_path), *two, out=gcs_bucket)
    assert list_files(gcs_bucket) == []


def test_a_run_that_goes_on_leaves_nothing_that_is_not_its_own(tmp_path: Path, two: tuple[str, str]):
    before = listing(tmp_path)
    take(str(tmp_path), *two)
    assert [name for name in listing(tmp_path) if name not in before and not name.startswith("out")] == ["sample.json"]
    assert [name for name in listing(tmp_path) if (tmp_path / name).is_file() and name.startswith("out")] == []
