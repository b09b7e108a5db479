"""An archive of a topic in memory: what its readers see is what the topic says."""

from __future__ import annotations

import random
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq
import pytest

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.sampling import step
from driftline.components.sampling.pooled import PooledSample
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.local import LocalStore
from driftline.components.storage.objects.store import ANY, Over, join
from driftline.components.storage.objects.values import read_value
from driftline.serving.archive import hourly_manifests
from driftline.serving.archive.layout import model_folder
from driftline.serving.archive.worker import index_folder
from driftline.serving.process import StopSignal
from driftline.serving.records.embeddings import EmbeddedText, write_embedding
from tests.serving.archive.archived import (
    FOLDER,
    HOUR_MS,
    MODEL,
    NOW_MS,
    REVISION,
    Driven,
    Log,
    archived,
    busy_log,
    driven,
    expected,
    files_of,
    named_files,
    settings_of,
    vector_of,
)
from tests.support.datasets import write_embeddings


@pytest.fixture(params=["local", "gs"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "archive")
    return join(request.getfixturevalue("gcs_bucket"), "archive")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_archive_is_the_latest_state_of_each_id(out: str, tmp_path: Path, seed: int):
    log = busy_log(seed, 200, partitions=2)
    run = driven(log, settings_of(out), tmp_path / "index")
    run.turn(30)
    assert archived(out) == expected(log)
    assert len(run.letters.letters) > 5
    assert {reason for _, reason in run.letters.letters} == {"not-json"}
    assert run.source.committed == log.ends
    # Of each hour that is over there is one file for each partition, and nothing else is left.
    assert files_of(out) == named_files(out)
    over = [name for name in files_of(out) if "hour=13" not in name]
    assert len(over) == 6
    assert EmbeddingsDataset.open(out).rows == len(expected(log))
    run.archiver.close()
    assert run.source.closed


def test_an_id_embedded_again_moves_to_its_new_hour_and_a_tombstone_takes_it_out(out: str, tmp_path: Path):
    log = Log()
    log.row("a", 1, time_ms=NOW_MS - 30 * HOUR_MS)
    log.row("b", 2, time_ms=NOW_MS - 30 * HOUR_MS)
    run = driven(log, settings_of(out), tmp_path / "index")
    run.turn(2)
    day = EmbeddingsDataset.open(join(out, "date=2025-11-24"))
    log.row("a", 3)
    log.add("b", None)
    log.add("unknown", None)
    log.add("c", None)
    log.row("c", 4)
    log.row("d", 5)
    log.add("d", None)
    run.turn(1)
    assert {name for _, name in archived(out)} == {"a", "c"}
    assert archived(out) == expected(log)
    assert EmbeddingsDataset.open(join(out, "date=2025-11-24")).rows == 0
    assert EmbeddingsDataset.open(join(out, "date=2025-11-25")).rows == 2
    # Of a, b and d.
    assert run.value("deletes_total") == 3
    assert run.value("rows_total") == 5
    # Who opened the day before goes on to read what was there.
    assert day.take([0, 1], ["id"]).column("id").to_pylist() == ["a", "b"]
    run.archiver.close()


def test_the_drift_steps_read_a_day_and_a_range_of_days(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log()
    for row in range(40):
        log.row(f"r{row}", row, time_ms=NOW_MS - row * 3 * HOUR_MS)
    run = driven(log, settings_of(out), tmp_path / "index")
    run.turn(20)
    run.archiver.close()
    week, yesterday = join(out, "date=2025-11-18..2025-11-23"), join(out, "date=2025-11-24")
    out = {"out": str(tmp_path / "out"), "sample_out": str(tmp_path / "sample.json")}
    step.run(reference=week, current=yesterday, pca_components=0, seed=1, **out)
    sample = read_value(str(tmp_path / "sample.json"), PooledSample)
    assert (sample.reference.rows, sample.current.rows) == (27, 8)
    ids = [name for names, _ in sample.batches() for name in names]
    assert sorted(ids, key=lambda name: int(name[1:])) == [f"r{row}" for row in range(5, 40)]
    assert sample.describe([0, 34])[0] == (ids[0], "a text")
    # A backfill of the same model is a reference as well.
    backfilled = write_embeddings(
        str(tmp_path / "backfill"),
        np.stack([vector_of(row) for row in range(20)]),
        model=MODEL,
        revision=REVISION,
        normalized=True,
    )
    step.run(reference=backfilled, current=yesterday, window_max_rows=5, pca_components=0, seed=1, **out)
    assert read_value(str(tmp_path / "sample.json"), PooledSample).n == 5


def test_each_revision_is_a_dataset_of_its_own_and_tombstones_hold_for_all(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log()
    for name in ("a", "b"):
        log.row(name, 1)
        log.row(name, 2, revision="sha256:new", dimension=6)
    run = driven(log, settings_of(out), tmp_path / "index")
    run.turn(2)
    assert len(archived(out)) == 4
    hour = join(out, "date=2025-11-25/hour=13")
    with pytest.raises(DataError, match="name the datasets of one model"):
        EmbeddingsDataset.open(hour)
    assert EmbeddingsDataset.open(join(hour, f"model={FOLDER}")).dimension == 4
    new = join(out, f"date=2025-11-25/hour=00..23/model={model_folder(MODEL, 'sha256:new')}")
    assert EmbeddingsDataset.open(new).dimension == 6
    assert EmbeddingsDataset.open(new).manifest.revision == "sha256:new"
    log.add("a", None)
    run.turn(1)
    assert {name for _, name in archived(out)} == {"b"}
    assert len(archived(out)) == 2
    run.archiver.close()


def test_vectors_unlike_their_models_others_are_dead_letters(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log()
    log.row("a", 1)
    log.row("b", 2, dimension=5)
    log.add("c", write_embedding(EmbeddedText("c", MODEL, REVISION, 3 * vector_of(1))))
    log.add("d", write_embedding(EmbeddedText("d", "long", REVISION, 3 * vector_of(1))))
    log.add("e", write_embedding(EmbeddedText("e", "long", REVISION, vector_of(2))))
    run = driven(log, settings_of(out), tmp_path / "index")
    run.turn(2)
    assert [(record.key, reason) for record, reason in run.letters.letters] == [
        (b"b", "dimension"),
        (b"c", "not-normalized"),
    ]
    assert {name for _, name in archived(out)} == {"a", "d", "e"}
    hour = join(out, "date=2025-11-25/hour=13")
    assert EmbeddingsDataset.open(join(hour, f"model={FOLDER}")).manifest.normalized
    assert not EmbeddingsDataset.open(join(hour, f"model={model_folder('long', REVISION)}")).manifest.normalized
    assert run.value("dead_letters_total", reason="dimension") == 1
    # Another worker, which has seen no vector yet, knows as much.
    log.row("f", 3, dimension=5)
    other = driven(log, settings_of(out), tmp_path / "other")
    other.turn(2)
    assert [reason for _, reason in other.letters.letters] == ["dimension"]
    run.archiver.close()
    other.archiver.close()


def test_late_rows_join_their_hour_and_its_files_are_compacted_again(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log()
    for row in range(5):
        log.row(f"early-{row}", row, time_ms=NOW_MS - 50 * HOUR_MS)
    run = driven(log, settings_of(out, compact_after_s=60.0, vacuum_after_s=3600.0), tmp_path / "index")
    run.turn(2)
    run.clock.now_s += 120
    run.turn(2)
    hour = join(out, "date=2025-11-23/hour=11")
    before = EmbeddingsDataset.open(hour)
    log.row("late", 9, time_ms=NOW_MS - 50 * HOUR_MS)
    run.turn(1)
    assert run.value("late_rows_total") == 6
    assert len(files_of(hour)) == 2
    run.turn(3)
    assert len(named_files(out)) == 2
    run.clock.now_s += 120
    run.turn(2)
    assert len(named_files(out)) == 1
    assert archived(out) == expected(log)
    # The old files stay for a while for those who opened the hour before, and no longer.
    assert len(files_of(hour)) == 3
    assert sum(len(batch.ids) for batch in before.batches()) == 5
    run.clock.now_s += 3600
    run.turn(3)
    assert files_of(out) == named_files(out)
    assert archived(out) == expected(log)
    run.archiver.close()


def test_few_deleted_rows_wait_until_they_are_purged(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log()
    for row in range(30):
        log.row(f"r{row}", row, time_ms=NOW_MS - 5 * HOUR_MS)
    run = driven(log, settings_of(out, compact_after_s=10.0, purge_after_s=86_400.0), tmp_path / "index")
    run.turn(10)
    log.add("r7", None)
    run.turn(20)
    (name,) = files_of(out)
    assert pq.read_metadata(join(out, name)).num_rows == 30
    assert archived(out) == expected(log)
    run.clock.now_s += 86_400
    run.turn(5)
    (name,) = files_of(out)
    assert pq.read_metadata(join(out, name)).num_rows == 29
    # A tenth of the rows is worth a new file at once.
    for row in range(3):
        log.add(f"r{row}", None)
    run.turn(20)
    (name,) = files_of(out)
    assert pq.read_metadata(join(out, name)).num_rows == 26
    assert archived(out) == expected(log)
    run.archiver.close()


def test_an_hour_that_lost_all_its_rows_is_an_empty_dataset(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log()
    log.row("a", 1, time_ms=NOW_MS - 5 * HOUR_MS)
    log.add("a", None)
    run = driven(log, settings_of(out, purge_after_s=0.0), tmp_path / "index")
    run.turn(8)
    assert archived(out) == {}
    assert EmbeddingsDataset.open(out).rows == 0
    log.row("b", 2, time_ms=NOW_MS - 5 * HOUR_MS)
    run.turn(8)
    assert archived(out) == expected(log)
    (name,) = files_of(out)
    assert pq.read_metadata(join(out, name)).num_rows == 1
    run.archiver.close()


def test_what_was_read_is_written_by_age_by_rows_by_bytes_and_at_the_end(tmp_path: Path):
    def rows_after(log: Log, turns: int, **limits: Any) -> Driven:
        run = driven(log, settings_of(str(tmp_path / fresh_name()), **limits), tmp_path / fresh_name())
        run.turn(turns)
        return run

    numbers = iter(range(100))

    def fresh_name() -> str:
        return f"a{next(numbers)}"

    log = Log(2)
    for row in range(20):
        log.row(f"r{row}", row, partition=row % 2)
    aged = rows_after(log, 3, max_delay_s=60.0)
    assert aged.value("rows_total") == 0
    assert aged.value("buffered_bytes") > 20 * 16
    assert aged.value("lag_records", partition="1") == 10
    aged.clock.now_s += 60
    aged.turn()
    assert aged.value("rows_total") == 20
    assert aged.value("lag_records", partition="1") == 0
    by_rows = rows_after(log, 3, max_delay_s=60.0, rows=10)
    assert by_rows.value("rows_total") == 20
    by_bytes = rows_after(log, 3, max_delay_s=60.0, bytes=2000)
    assert by_bytes.value("rows_total") == 20
    # Of both partitions together too much is held: one is written.
    together = rows_after(log, 3, max_delay_s=60.0, buffered_bytes=9000)
    assert together.value("rows_total") == 10
    ended = rows_after(log, 3, max_delay_s=60.0)
    stop = StopSignal()
    stop.set()
    ended.archiver.run(stop)
    assert ended.metrics.registry.get_sample_value("driftline_archive_rows_total") == 20
    assert ended.source.committed == {0: 10, 1: 10}
    for run in (aged, by_rows, by_bytes, together):
        run.archiver.close()


def test_partitions_that_are_given_back_go_on_and_those_that_moved_do_not(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log(2)
    one = driven(log, settings_of(out, max_delay_s=1000.0), tmp_path / "one")
    two = driven(log, settings_of(out, max_delay_s=1000.0), tmp_path / "two", mine=[])
    for row in range(10):
        log.row(f"r{row}", row, partition=row % 2)
    one.turn(3)
    # A rebalance that changes nothing: what was read is kept, and reading goes on where it was.
    one.source.revoked = {0, 1}
    one.source.positions = {0: 0, 1: 0}
    log.row("r10", 10)
    one.turn(2)
    assert one.value("lag_records", partition="0") == 6
    # Partition 1 goes over, and comes back after the other one has written.
    one.source.mine, two.source.mine = {0}, {1}
    one.turn()
    log.row("r11", 11, partition=1)
    two.turn(2)
    two.clock.now_s += 1000
    two.turn()
    two.source.mine, one.source.mine = set(), {0, 1}
    one.source.revoked = {1}
    log.row("r13", 13, partition=1)
    two.turn()
    one.turn(3)
    one.clock.now_s += 1000
    one.turn()
    assert archived(out) == expected(log)
    assert one.value("rows_total") + two.value("rows_total") == 13
    one.archiver.close()
    two.archiver.close()


def test_a_worker_that_lost_a_partition_without_a_word_changes_nothing(tmp_path: Path):
    out, log = str(tmp_path / "archive"), Log()
    old = driven(log, settings_of(out, max_delay_s=1000.0), tmp_path / "old")
    log.row("a", 1)
    old.turn(2)
    new = driven(log, settings_of(out), tmp_path / "new")
    log.row("b", 2)
    new.turn(2)
    before = archived(out)
    old.clock.now_s += 1000
    old.archiver.turn(0.0)
    assert old.value("fenced_total") == 1
    assert archived(out) == before == expected(log)
    # Its file is left, and goes when the hour is compacted.
    assert set(named_files(out)) < set(files_of(out))
    old.source.mine = set()
    new.clock.now_s += 3 * 3600
    log.row("c", 3)
    new.turn(8)
    assert files_of(out) == named_files(out)
    assert archived(out) == expected(log)
    old.archiver.close()
    new.archiver.close()


def test_a_store_that_is_away_holds_the_archive_up_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, log = str(tmp_path / "archive"), busy_log(5, 200, 2)
    run = driven(log, settings_of(out), tmp_path / "index")
    moments = random.Random(1)
    create = LocalStore.create
    away = True

    @contextmanager
    def unsteady(self: LocalStore, uri: str, over: Over = ANY) -> Generator[BinaryIO]:
        if away and moments.random() < 0.3:
            raise StorageError(f"{uri}: cannot write: away")
        with create(self, uri, over) as handle:
            yield handle
        if away and moments.random() < 0.1:
            raise StorageError(f"{uri}: cannot write: the answer was lost")

    monkeypatch.setattr(LocalStore, "create", unsteady)
    said: set[str | None] = set()
    for _ in range(60):
        run.clock.now_s += 60
        run.turn()
        said.add(run.archiver.health.ready())
    assert any(reason and "cannot write" in reason for reason in said)
    assert sum(run.value("failures_total", kind=kind) for kind in ("StorageError",)) > 5
    away = False
    run.clock.now_s += 60
    run.turn(20)
    assert run.archiver.health.ready() is None
    assert run.archiver.health.live() is None
    assert archived(out) == expected(log)
    assert set(named_files(out)) <= set(files_of(out))
    run.archiver.close()


@pytest.mark.slow
def test_workers_that_share_an_hour_lose_nothing_of_one_another(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hourly_manifests, "_LONGEST_PAUSE_S", 0.1)
    log = busy_log(8, 100, partitions=4)
    runs = [driven(log, settings_of(out, compact_files=3), tmp_path / f"{k}", mine=[k]) for k in range(4)]
    for run in runs:
        poll = run.source.poll
        run.source.poll = lambda timeout_s, records, poll=poll: poll(timeout_s, 12)  # pyright: ignore
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run.turn, 8) for run in runs]:
            done.result()
    assert archived(out) == expected(log)
    for run in runs:
        assert run.archiver.health.ready() is None
        run.archiver.close()


def test_a_lost_or_damaged_index_is_made_anew(tmp_path: Path):
    out, log = str(tmp_path / "archive"), busy_log(2, 150)
    for folder in ("a", "b"):
        run = driven(log, settings_of(out), tmp_path / folder)
        run.turn(10)
        run.archiver.close()
        for name in ("a", "b"):
            log.row(name, 7, time_ms=NOW_MS)
            log.add("t3", None)
    (index,) = (tmp_path / "a").glob("*.sqlite")
    index.write_bytes(b"no database" * 1000)
    run = driven(log, settings_of(out), tmp_path / "a")
    run.turn(10)
    assert archived(out) == expected(log)
    run.archiver.close()


def test_an_index_folder_is_for_one_worker(tmp_path: Path):
    with index_folder(str(tmp_path / "index")) as folder:
        assert folder.is_dir()
        with pytest.raises(UsageError, match="another worker has it"), index_folder(str(folder)):
            pass
    with index_folder(str(tmp_path / "index")), index_folder("") as temporary:
        assert temporary.is_dir()
    assert not temporary.exists()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="name a local folder"), index_folder(str(tmp_path / "file")):
        pass
