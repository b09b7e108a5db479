"""Two tasks on one shard, and tasks that sleep while others finish: the dataset is right, or the task is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftline.components.embedding.backfill import chunks, shard_embedding
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.text import Encoding
from driftline.components.errors import DataError
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.store import exists, join, list_files
from tests.components.embedding.backfills import Backfill, contents, one_line, rows
from tests.components.embedding.driven import DrivenBackfill, Driver
from tests.components.embedding.tiny_models import SCRIPTS, by_hand
from tests.support.datasets import write_texts

TEXTS = [f"{SCRIPTS[number % 7]} {number}" for number in range(16)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts.jsonl", TEXTS)


@pytest.fixture(params=["local", "gs"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = request.getfixturevalue("gcs_bucket") if request.param == "gs" else str(tmp_path)
    return join(folder, "out")


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Let the next task sleep once its n-th chunk is encoded, from 1, and something else happen meanwhile."""
    monkeypatch.setattr(chunks, "CHUNK_TEXTS", 2)
    encode_chunks = Encoder.encode_chunks

    def sleep_at(number: int, meanwhile: Callable[[], object]) -> None:
        def sleeping(self: Encoder, chunks: Iterable[Sequence[str]]) -> Iterator[Encoding]:
            for count, encoding in enumerate(encode_chunks(self, chunks), start=1):
                if count == number:
                    Encoder.encode_chunks = encode_chunks
                    meanwhile()
                yield encoding

        Encoder.encode_chunks = sleeping  # pyright: ignore

    yield sleep_at
    Encoder.encode_chunks = encode_chunks


Asleep = Callable[[int, Callable[[], object]], None]


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_a_task_whose_twin_finished_meanwhile_takes_its_shard(
    tmp_path: Path, texts: Path, full: Path, out: str, asleep: Asleep, chunk: int
):
    one, whole = Backfill(tmp_path / "one"), Backfill(tmp_path / "whole")
    whole.run([texts], full, tmp_path / "whole-out", output_rows_per_shard=8)
    one.plan([texts], full, out, output_rows_per_shard=8)
    asleep(chunk, lambda: one.embed(0))
    late = one.embed(0)
    assert late.rows == 2 * (chunk - 1), "only the chunks before it slept are its own"
    one.finish()
    assert contents(out) == contents(tmp_path / "whole-out")


def test_a_task_that_wakes_after_the_manifest_was_written_changes_nothing(
    tmp_path: Path, texts: Path, full: Path, out: str, asleep: Asleep
):
    work, replacement = Backfill(tmp_path / "one"), Backfill(tmp_path / "replacement")
    work.plan([texts], full, out, output_rows_per_shard=8)
    finished: dict[str, bytes] = {}

    def meanwhile() -> None:
        replacement.run([texts], full, out, output_rows_per_shard=8)
        finished.update(contents(out))

    asleep(2, meanwhile)
    work.embed(0)
    assert contents(out) == finished
    np.testing.assert_allclose(rows(out)[1], by_hand(full, TEXTS), rtol=0, atol=1e-5)


def test_a_task_that_wakes_after_another_run_replaced_the_dataset_is_refused(
    tmp_path: Path, texts: Path, full: Path, out: str, asleep: Asleep
):
    work, other = Backfill(tmp_path / "one"), Backfill(tmp_path / "other")
    others = write_texts(tmp_path / "others.jsonl", TEXTS[::-1])
    work.plan([texts], full, out, output_rows_per_shard=8)
    finished: dict[str, bytes] = {}

    def meanwhile() -> None:
        other.run([others], full, out, output_rows_per_shard=8)
        finished.update(contents(out))

    asleep(2, meanwhile)
    with pytest.raises(DataError, match=one_line(join(out, "part-00000.parquet"), "another run wrote there meanwhile")):
        work.embed(0)
    assert contents(out) == finished
    np.testing.assert_allclose(rows(out)[1], by_hand(full, TEXTS[::-1]), rtol=0, atol=1e-5)


def test_a_task_that_wakes_within_another_run_does_not_end_up_in_its_dataset(
    tmp_path: Path, texts: Path, full: Path, out: str, asleep: Asleep
):
    work, other = Backfill(tmp_path / "one"), Backfill(tmp_path / "other")
    others = write_texts(tmp_path / "others.jsonl", TEXTS[::-1])
    work.plan([texts], full, out, output_rows_per_shard=8)
    asleep(2, lambda: other.plan([others], full, out, output_rows_per_shard=8))
    work.embed(0)
    other.embed(0)
    work.embed(0)  # after the other run's tasks reported their shards
    with pytest.raises(DataError, match=one_line(join(out, "part-00000.parquet"), "run the backfill again")):
        other.finish()
    assert not exists(join(out, "manifest.json"))
    other.run([others], full, out, output_rows_per_shard=8)
    np.testing.assert_allclose(rows(out)[1], by_hand(full, TEXTS[::-1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("same", [True, False], ids=["twin", "other-run"])
def test_a_task_that_sleeps_while_it_writes_its_shard(
    tmp_path: Path, texts: Path, full: Path, out: str, same: bool, monkeypatch: pytest.MonkeyPatch
):
    work, other = Backfill(tmp_path / "one"), Backfill(tmp_path / "other")
    others = texts if same else write_texts(tmp_path / "others.jsonl", TEXTS[::-1])
    finished: dict[str, bytes] = {}
    write_shard = shard_embedding.write_shard

    def sleeping(folder: str, name: str, batches: Iterable[pa.RecordBatch], **settings: Any) -> Shard:
        def read() -> Iterator[pa.RecordBatch]:
            yield from batches
            monkeypatch.undo()  # only this once
            other.run([others], full, out, output_rows_per_shard=8)
            finished.update(contents(out))

        return write_shard(folder, name, read(), **settings)

    work.plan([texts], full, out, output_rows_per_shard=8)
    monkeypatch.setattr(shard_embedding, "write_shard", sleeping)
    if same:
        assert [entry.encoded for _, entry in work.embed(0).shards] == [None, None]
    else:
        with pytest.raises(DataError, match=one_line(join(out, "part-0000"), "another run wrote there meanwhile")):
            work.embed(0)
    assert finished
    assert contents(out) == finished


def test_two_runs_of_different_texts_at_once_do_not_mix(
    tmp_path: Path, texts: Path, full: Path, out: str, asleep: Asleep
):
    one, other = Backfill(tmp_path / "one"), Backfill(tmp_path / "other")
    others = write_texts(tmp_path / "others.jsonl", TEXTS[::-1])
    one.plan([texts], full, out, output_rows_per_shard=8)
    other.plan([others], full, out, output_rows_per_shard=8)
    asleep(3, lambda: other.embed(0))
    with pytest.raises(DataError, match=one_line(join(out, "part-0000"), "another run wrote there meanwhile")):
        one.embed(0)
    other.finish()
    np.testing.assert_allclose(rows(out)[1], by_hand(full, TEXTS[::-1]), rtol=0, atol=1e-5)


def test_tasks_of_one_shard_at_once_leave_no_chunks_behind(
    tmp_path: Path, texts: Path, full: Path, out: str, asleep: Asleep
):
    work = Backfill(tmp_path / "one")
    work.plan([texts], full, out, output_rows_per_shard=8)
    asleep(2, lambda: work.embed(0))
    work.embed(0)
    left = [info.uri for info in list_files(out) if "/chunk-" in info.uri]
    assert left == []


@pytest.mark.slow
def test_a_process_stopped_and_continued_after_its_replacement_finished_changes_nothing(
    tmp_path: Path, texts: Path, full: Path, driver: Driver
):
    out = str(tmp_path / "out")
    settings = {"output_rows_per_shard": 8, "chunk_texts": 2}
    slow = DrivenBackfill(driver, tmp_path / "slow", [str(texts)], full, out, settings)
    stopped = slow.start(stop_at=3)
    assert stopped["state"] == "stopped"
    replacement = DrivenBackfill(driver, tmp_path / "replacement", [str(texts)], full, out, settings)
    assert replacement.start()["code"] == 0, driver.errors
    finished = contents(out)
    # Its two chunks were there already.
    assert replacement.begun().total() == 6
    woken = driver.ask(do="continue", pid=stopped["pid"])
    assert (woken["state"], woken["code"]) == ("ended", 0), driver.errors
    assert contents(out) == finished
    assert EmbeddingsDataset.open(out).rows == 16
    np.testing.assert_allclose(rows(out)[1], by_hand(full, TEXTS), rtol=0, atol=1e-5)
