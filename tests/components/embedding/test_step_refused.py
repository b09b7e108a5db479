"""What is refused in the first step, before texts are read or a model is fetched, and what is left behind: nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.components.embedding import step
from driftline.components.embedding.encoding.tuning.tunings import EncoderTunings, write_tunings
from driftline.components.errors import DataError, DriftlineError, StorageError, UsageError
from driftline.components.storage.objects.store import join, list_files, write_bytes
from tests.components.embedding.backfill.test_settings import REFUSED
from tests.components.embedding.backfills import TEXTS, Backfill, one_line
from tests.support.command import listing
from tests.support.datasets import write_texts


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make what costs time fail."""

    def refuse(*names: str) -> None:
        def touched(*_: object, **__: object) -> Any:
            raise AssertionError("the work has begun")

        for name in names:
            monkeypatch.setattr(step, name, touched)

    return refuse


def refused(work: Backfill, kind: type[DriftlineError], message: str, *places: Any, **settings: Any) -> None:
    with pytest.raises(kind, match=one_line(message)):
        work.plan(*places, **settings)
    assert not Path(work.planned).exists()


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_settings_are_refused_before_anything_is_looked_at(
    work: Backfill, tmp_path: Path, untouched: Callable[..., None], settings: dict[str, Any], message: str
):
    untouched("find_texts", "scan_texts", "open_model", "check_writable")
    nowhere = tmp_path / "nowhere"
    refused(work, UsageError, message, [nowhere], nowhere, nowhere, **settings)
    assert listing(tmp_path) == ["work"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (([], "model", "out"), "text_files: expected files, folders or patterns of texts, got []"),
        ((["a.csv", " "], "model", "out"), "text_files: expected files, folders or patterns of texts, got ['a.csv', "),
        ((["a.csv"], "", "out"), "model: expected a folder, a gs:// prefix or a model's name, got nothing"),
        ((["a.csv"], " ", "out"), "model: expected a folder, a gs:// prefix or a model's name, got nothing"),
        ((["a.csv"], "model", "\n"), "output_folder: expected a gs:// or local folder, got nothing"),
        ((["a.csv"], "model", "x/{day}"), "output_folder 'x/{day}': {day} is no placeholder"),
    ],
)
def test_places_that_are_not_named(work: Backfill, untouched: Callable[..., None], places: Any, message: str):
    untouched("find_texts", "scan_texts", "open_model", "check_writable")
    refused(work, UsageError, message, *places)


def test_a_list_of_other_things_than_texts(work: Backfill, tmp_path: Path):
    work.folder.mkdir()
    with pytest.raises(UsageError, match=one_line("text_files: expected a list of texts, got 1 in it")):
        step.plan(texts=[1], model="m", out=str(tmp_path / "out"), plan_out=work.planned)  # pyright: ignore


def test_a_dataset_s_folder_that_cannot_be_written_to(
    work: Backfill, texts: Path, full: Path, out: Path, untouched: Callable[..., None]
):
    untouched("find_texts", "scan_texts", "open_model")
    out.write_text("in the way")
    refused(work, StorageError, f"{out}/_work/writable: cannot write: a part of the path is a file", [texts], full, out)
    assert out.read_text() == "in the way"


def test_a_bucket_that_is_not_there(
    work: Backfill, texts: Path, full: Path, gcs_endpoint: str, untouched: Callable[..., None]
):
    untouched("find_texts", "scan_texts", "open_model")
    refused(work, StorageError, "gs://driftline-nowhere/out", [texts], full, "gs://driftline-nowhere/out")


@pytest.mark.parametrize("place", ["local", "gs"])
def test_the_look_whether_a_folder_can_be_written_to_leaves_nothing(
    work: Backfill, tmp_path: Path, full: Path, place: str, request: pytest.FixtureRequest
):
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path / "lake")
    nowhere = tmp_path / "nowhere.jsonl"
    refused(work, DataError, str(nowhere), [nowhere], full, join(base, "a", "out"))
    assert list_files(base) == []
    assert listing(tmp_path) == ["work"]


def test_a_file_of_tunings_that_is_not_there(
    work: Backfill, texts: Path, full: Path, out: Path, tmp_path: Path, untouched: Callable[..., None]
):
    untouched("find_texts", "scan_texts", "open_model")
    tunings = str(tmp_path / "encoder.json")
    refused(
        work, UsageError, f"encoder_tunings: there is no file {tunings}; give what `driftline bench encode --tunings`",
        [texts], full, out, encoder_tunings=tunings,
    )  # fmt: skip
    Path(tunings).write_text("{torn")
    refused(work, DataError, tunings, [texts], full, out, encoder_tunings=tunings)
    assert not out.exists()


def test_a_file_of_tunings_that_is_there_is_taken(work: Backfill, texts: Path, full: Path, out: Path, gcs_bucket: str):
    tunings = join(gcs_bucket, "encoder.json")
    write_tunings(tunings, EncoderTunings())
    assert work.run([texts], full, out, encoder_tunings=tunings)["texts"] == 11


def test_texts_that_are_not_there_are_refused_before_a_model_is_fetched(
    work: Backfill, texts: Path, full: Path, out: Path, tmp_path: Path, untouched: Callable[..., None]
):
    untouched("scan_texts", "open_model")
    (tmp_path / "notes.txt").write_text("no texts")
    for given, message in (
        ("misspelt.jsonl", "there is no such file"),
        ("*.csv", "no file matches the pattern"),
        ("notes.txt", "its name does not tell the format"),
    ):
        refused(work, DataError, f"{tmp_path / given}: {message}", [texts, tmp_path / given], full, out)


def test_a_model_that_is_none_is_refused_before_texts_are_read(
    work: Backfill, texts: Path, out: Path, tmp_path: Path, untouched: Callable[..., None]
):
    untouched("scan_texts")
    (tmp_path / "empty").mkdir()
    refused(work, DataError, f"model {tmp_path / 'empty'}: neither", [texts], tmp_path / "empty", out)
    refused(
        work, DriftlineError, f"model {tmp_path / 'none'}: there is no such folder", [texts], tmp_path / "none", out
    )


def test_a_model_that_is_none_is_refused_on_a_quiet_day_too(work: Backfill, tmp_path: Path, full: Path):
    write_texts(tmp_path / "texts" / "date=2026-11-27" / "a.jsonl", TEXTS)
    place = [tmp_path / "texts" / "date=yesterday"]
    refused(
        work, DriftlineError, f"model {tmp_path / 'none'}: there is no such folder", place, tmp_path / "none",
        tmp_path / "out", window_as_of="2026-11-30",
    )  # fmt: skip
    assert work.plan(place, full, tmp_path / "out", window_as_of="2026-11-30") == [0]
    assert work.finished().status == "skipped"


# Columns


def as_jsonl(folder: Path, columns: dict[str, list[str]]) -> Path:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "in.jsonl"


def as_csv(folder: Path, columns: dict[str, list[str]]) -> Path:
    rows = [",".join(row) for row in (columns, *zip(*columns.values(), strict=True))]
    (folder / "in.csv").write_text("\n".join(rows) + "\n")
    return folder / "in.csv"


def as_parquet(folder: Path, columns: dict[str, list[str]]) -> Path:
    pq.write_table(pa.table(columns), folder / "in.parquet")
    return folder / "in.parquet"


@pytest.mark.parametrize("write", [as_jsonl, as_csv, as_parquet])
@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"text_column": "body"}, "body"),
        ({"text_id_column": "key"}, "key"),
        ({"window_since": "2026-11-29"}, "time"),
        ({"window_since": "2026-11-29", "window_time_column": "days"}, "days"),
        ({"text_where": ["rating >= 7"]}, "rating"),
        ({"text_where": ["rating = null"]}, "rating"),
        ({"text_where": ["day = 2026-11-30", "rating = null"]}, "rating"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_column_that_is_asked_for_and_absent_is_refused_with_those_that_are_there(
    work: Backfill, tmp_path: Path, full: Path, out: Path, write: Any, settings: dict[str, Any], absent: str
):
    columns = {"id": ["a", "b"], "text": ["one", "two"], "day": ["2026-11-29", "2026-11-30"]}
    path = write(tmp_path, columns)
    with pytest.raises(DriftlineError) as caught:
        work.plan([path], full, out, **settings)
    message = str(caught.value)
    assert f"column {absent!r}" in message
    assert all(repr(name) in message for name in columns)
    assert "\n" not in message
    assert not out.exists()


def test_a_column_that_single_rows_lack_is_there(work: Backfill, tmp_path: Path, full: Path, out: Path):
    path = tmp_path / "in.jsonl"
    rows = [{"id": "a", "text": "one"}, {"id": "b", "text": "two", "day": "2026-11-30", "rating": 9}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    window = {"window_since": "2026-11-29", "window_time_column": "day"}
    with pytest.raises(DataError, match=one_line(f"{path}: column 'day', row 1: null is not a time")):
        work.plan([path], full, out, **window)
    assert work.run([path], full, out, **window, text_where=["rating = 9"])["texts"] == 1


def test_a_condition_that_does_not_go_with_its_column(work: Backfill, tmp_path: Path, full: Path, out: Path):
    path = as_jsonl(tmp_path, {"id": ["a"], "text": ["one"], "rating": ["good"]})
    write_bytes(str(path), path.read_bytes().replace(b'"good"', b"7"))
    message = "text_where 'rating = good': column 'rating' holds int64, which cannot be compared so; expected a number"
    refused(work, UsageError, message, [path], full, out, text_where=["rating = good"])
