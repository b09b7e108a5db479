"""What goes wrong on the way: damaged files, full disks, lost records, jumping clocks."""

from __future__ import annotations

import dataclasses
import errno
import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from driftline.components.embedding.backfill import chunks, shard_texts
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.backfill.shard_embedding import RowProgress
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.text import Encoding
from driftline.components.errors import DataError, StorageError
from driftline.components.steps import StepClock
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.writer import write_shard
from driftline.components.storage.objects import local
from driftline.components.storage.objects.store import list_files
from driftline.components.storage.objects.values import read_value, write_value
from tests.components.embedding.backfills import TEXTS, Backfill, contents, one_line
from tests.support.datasets import write_texts

SHARDS = [f"part-0000{number}.parquet" for number in range(3)]


@pytest.fixture
def whole(tmp_path: Path, texts: Path, full: Path) -> dict[str, bytes]:
    """The files of the finished dataset."""
    Backfill(tmp_path / "whole").run([texts], full, tmp_path / "whole-out")
    return contents(tmp_path / "whole-out")


def flip(path: Path, at: float) -> None:
    """Change a bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


class Stopped(Exception):  # noqa: N818
    """Stands for the end of a process."""


def stop_after(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Stop a task when it asks for the encoding after so many."""
    encode_chunks = Encoder.encode_chunks

    def stopping(self: Encoder, texts: Iterable[Sequence[str]]) -> Iterator[Encoding]:
        for count, encoding in enumerate(encode_chunks(self, texts)):
            if count == chunks:
                raise Stopped
            yield encoding

    monkeypatch.setattr(Encoder, "encode_chunks", stopping)


@pytest.mark.parametrize("at", [0.01, 0.3, 0.5, 0.7, 0.99])
def test_a_shard_damaged_between_embed_and_finish_is_refused_and_made_again_alone(
    work: Backfill, texts: Path, full: Path, out: Path, whole: dict[str, bytes], at: float
):
    work.plan([texts], full, out)
    work.embed(0)
    flip(out / SHARDS[1], at)
    with pytest.raises(DataError, match=one_line(out / SHARDS[1], "run the backfill again")):
        work.finish()
    assert not (out / "manifest.json").exists()
    work.plan([texts], full, out)
    assert work.embed(0).rows == 4
    work.finish()
    assert contents(out) == whole


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        (4, "another key", "the shard comes from other texts, another model or other settings"),
        (3, "", "the shard has 3 rows, 4 were planned"),
    ],
)
def test_what_is_there_counts_not_what_a_task_says(
    work: Backfill, texts: Path, full: Path, out: Path, rows: int, key: str, message: str
):
    work.plan([texts], full, out)
    report = work.embed(0)
    table = pq.read_table(out / SHARDS[1]).slice(0, rows)
    planned = read_value(work.planned, BackfillPlan)
    settings: dict[str, Any] = {"dimension": 8, "dtype": "float32", "key": key or planned.shard_key(1)}
    forged = write_shard(str(out), SHARDS[1], table.to_batches(), **settings)
    shards = dict(report.shards)
    shards[1] = dataclasses.replace(shards[1], shard=forged)
    write_value(work.report_uri(0), dataclasses.replace(report, shards=tuple(shards.items())))
    with pytest.raises(DataError, match=one_line(out / SHARDS[1], message)):
        work.finish()
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("at", [0.01, 0.3, 0.5, 0.7, 0.99])
def test_a_shard_damaged_long_after_is_made_again_alone(
    work: Backfill, texts: Path, full: Path, out: Path, whole: dict[str, bytes], at: float
):
    work.run([texts], full, out)
    flip(out / SHARDS[1], at)
    work.plan([texts], full, out)
    assert not (out / "manifest.json").exists()
    assert work.embed(0).rows == 4
    work.finish()
    assert contents(out) == whole


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_chunk_is_embedded_again_alone(
    work: Backfill,
    tmp_path: Path,
    texts: Path,
    full: Path,
    out: Path,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(chunks, "CHUNK_TEXTS", 2)
    work.plan([texts], full, out, output_rows_per_shard=0)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stopped):
            work.embed(0)
    files = sorted(path for path in out.rglob("chunk-*.bin"))
    assert len(files) == 4
    content = files[1].read_bytes()
    if damage == "flipped":
        flip(files[1], 0.5)
    else:
        files[1].write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    assert work.embed(0).rows == 2 + 3
    work.finish()
    Backfill(work.folder.with_name("other")).run([texts], full, tmp_path / "other-out", output_rows_per_shard=0)
    assert contents(out) == contents(tmp_path / "other-out")


def test_rows_beyond_what_is_held_are_read_again(
    work: Backfill, texts: Path, full: Path, out: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_texts, "_HELD_BYTES", 100)
    monkeypatch.setattr(shard_texts, "BATCH_ROWS", 2)
    work.run([texts], full, out)
    assert contents(out) == whole


def test_texts_that_change_between_the_two_readings_are_refused(
    work: Backfill, texts: Path, full: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_texts, "_HELD_BYTES", 100)
    encode_chunks = Encoder.encode_chunks

    def changing(self: Encoder, chunks: Iterable[Sequence[str]]) -> Iterator[Encoding]:
        yield from encode_chunks(self, chunks)
        write_texts(texts, [text.swapcase() for text in TEXTS])

    monkeypatch.setattr(Encoder, "encode_chunks", changing)
    work.plan([texts], full, out)
    with pytest.raises(DataError, match=one_line(out / SHARDS[0], "its texts changed while they were embedded")):
        work.embed(0)
    assert not (out / SHARDS[0]).exists()


@pytest.mark.parametrize("ending", [".bin", ".parquet", ".json"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_full_disk_is_said_and_the_run_goes_on_once_there_is_room(
    work: Backfill,
    texts: Path,
    full: Path,
    out: Path,
    whole: dict[str, bytes],
    ending: str,
    nth: int,
    monkeypatch: pytest.MonkeyPatch,
):
    work.plan([texts], full, out)
    written = local.written_file
    count = 0

    def filling(path: Path, shown: str | Path):
        nonlocal count
        if str(shown).startswith(str(out)) and str(shown).endswith(ending):
            count += 1
            if count == nth:
                path.write_bytes(b"as much as there was room for")
                path.unlink()
                raise local.local_error(shown, "write", OSError(errno.ENOSPC, "No space left on device"))
        return written(path, shown)

    with monkeypatch.context() as patch:
        patch.setattr(local, "written_file", filling)
        with pytest.raises(StorageError, match=one_line(out, "no space is left on the device")):
            work.embed(0)
    assert not (out / "manifest.json").exists()
    work.embed(0)
    work.finish()
    assert contents(out) == whole


def test_records_that_are_lost_cost_nothing_but_a_look(
    work: Backfill, texts: Path, full: Path, out: Path, whole: dict[str, bytes]
):
    work.plan([texts], full, out)
    work.embed(0)
    for record in out.glob("_work/*.json"):
        record.unlink()
    assert work.embed(0).rows == 0
    work.finish()  # learns from the model itself how long vectors are
    assert contents(out) == whole


def test_a_record_of_another_version_counts_as_none(
    work: Backfill, texts: Path, full: Path, out: Path, whole: dict[str, bytes]
):
    work.plan([texts], full, out)
    work.embed(0)
    for record in out.glob("_work/*.json"):
        record.write_text('{"from": "another version"}')
    assert work.embed(0).rows == 0
    work.finish()
    assert contents(out) == whole


def test_no_model_is_loaded_where_nothing_is_to_be_encoded(
    work: Backfill, texts: Path, full: Path, out: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    work.run([texts], full, out)

    def refused(*_: object, **__: object) -> Encoder:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Encoder, "load", refused)
    assert work.run([texts], full, out)["texts_encoded"] == 0
    assert work.run([texts], full, out, output_incremental=True)["texts_encoded"] == 0
    assert contents(out) == whole


def test_a_clock_that_jumps_changes_nothing(
    work: Backfill, texts: Path, full: Path, out: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 4e9))
    monkeypatch.setattr(time, "time_ns", lambda: jumps.randrange(1 << 62))
    metrics = work.run([texts], full, out, embed_tasks=2)
    assert contents(out) == whole
    assert 0 < metrics["task_seconds"] < 600


def test_two_rows_of_one_id_are_refused_at_the_end(
    work: Backfill, tmp_path: Path, full: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where a file that no checksum guards is changed between the plan and a task."""
    path = tmp_path / "texts.csv"
    path.write_text("id,text\n" + "".join(f"t{number},text {number}\n" for number in range(8)))
    work.plan([path], full, out)
    path.write_text(path.read_text().replace("t6,", "t1,"))
    work.embed(0)
    with pytest.raises(DataError, match=one_line(out, "id 't1' is that of row 2 and of row 7")):
        work.finish()
    assert not (out / "manifest.json").exists()


def test_tasks_that_do_not_agree_are_refused(work: Backfill, texts: Path, full: Path, out: Path):
    work.plan([texts], full, out, embed_tasks=2)
    for task in (0, 1):
        work.embed(task)
    path = Path(work.report_uri(1))
    path.write_text(
        path.read_text().replace('"dimension":8', '"dimension":16').replace('"dimension": 8', '"dimension": 16')
    )
    with pytest.raises(DataError, match=one_line(out, "its tasks' vectors have the lengths 8, 16")):
        work.finish()


def test_a_run_leaves_nothing_but_the_dataset(work: Backfill, texts: Path, full: Path, out: Path):
    work.run([texts], full, out, embed_tasks=2)
    assert sorted(info.uri for info in list_files(str(out))) == [str(out / name) for name in ("manifest.json", *SHARDS)]
    assert EmbeddingsDataset.open(str(out)).rows == 11


class Clock(StepClock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        super().__init__("embed")
        self.now = 0.0

    @property
    def seconds(self) -> float:
        return self.now


def test_rows_that_were_there_do_not_count_into_the_rate(caplog: pytest.LogCaptureFixture):
    clock = Clock()
    with caplog.at_level("INFO", logger="driftline"):
        progress = RowProgress(clock, 1000)
        clock.now = 5.0
        progress.keep(400)
        clock.now = 10.0
        progress.begin()
        clock.now = 14.0
        progress.embed(100)
        progress.embed(50)  # within two seconds of the last line
        clock.now = 16.0
        progress.embed(50)
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    fields = ("done", "of", "unit", "resumed", "per_second", "seconds_left")
    assert [[line[name] for name in fields] for line in lines] == [
        [400, 1000, "texts", 400, 0.0, None],
        [500, 1000, "texts", 400, 25.0, 20.0],
        [600, 1000, "texts", 400, 33.3, 12.0],
    ]
    assert progress.embedded == 200
