"""Folders of datasets by date, hour and model, read as one dataset."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.drift_settings import DriftSettings
from driftline.components.errors import DataError
from driftline.components.sampling.identity import Run
from driftline.components.sampling.pooled import pair
from driftline.components.storage.dataset.deletion_vectors import write_deletion_vectors
from driftline.components.storage.dataset.manifest import Manifest
from driftline.components.storage.dataset.partitions import Selector, dataset_folders, selected_folders
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.writer import write_manifest
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import join
from tests.support.datasets import write_embeddings

DAYS = ("2026-11-17", "2026-11-18", "2026-11-24", "2026-11-25")


def vectors_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 4)).astype(np.float32)


def write_hours(out: str, model: str = "tiny") -> dict[str, list[str]]:
    """Two hours a day of five rows each, in two shards; the ids by folder."""
    found: dict[str, list[str]] = {}
    for day in DAYS:
        for hour in ("00", "13"):
            name = f"date={day}/hour={hour}/model={model}-0"
            write_embeddings(join(out, name), vectors_of(5), model=model, prefix=f"{day}-{hour}", rows_per_shard=3)
            found[name] = [f"{day}-{hour}-{row}" for row in range(5)]
    return found


def ids_of(uri: str) -> list[str]:
    return [
        name for batch in EmbeddingsDataset.open(uri).batches(("id", "embedding"), batch_rows=4) for name in batch.ids
    ]


def left_out(folder: str, rows: dict[str, list[int]]) -> None:
    deletes = write_deletion_vectors(folder, {name: np.array(numbers, np.int64) for name, numbers in rows.items()})
    write_manifest(folder, replace(EmbeddingsDataset.open(folder).manifest, deletes=deletes))


def test_every_level_can_be_opened(place: str):
    hours = write_hours(place)
    everything = [name for ids in hours.values() for name in ids]
    assert ids_of(place) == everything
    assert ids_of(f"{place}/") == everything
    day = join(place, "date=2026-11-24")
    assert ids_of(day) == everything[20:30]
    assert ids_of(join(day, "hour=13")) == everything[25:30]
    assert ids_of(join(day, "hour=13", "model=tiny-0")) == everything[25:30]
    dataset = EmbeddingsDataset.open(day)
    assert (dataset.rows, dataset.dimension, dataset.manifest.model, dataset.uri) == (10, 4, "tiny", day)


def test_ranges_take_both_ends(place: str):
    everything = [name for ids in write_hours(place).values() for name in ids]
    assert ids_of(join(place, "date=2026-11-18..2026-11-24")) == everything[10:30]
    assert ids_of(join(place, "date=2026-11-18..2026-11-24/hour=13")) == everything[15:20] + everything[25:30]
    assert ids_of(join(place, "date=2026-11-18..2026-11-24/hour=00..12/model=tiny-0")) == (
        everything[10:15] + everything[20:25]
    )
    assert ids_of(join(place, "date=2026-11-25/hour=00..23")) == everything[30:]
    with pytest.raises(DataError, match=r"2026-12-01\.\.2026-12-31: there is no manifest.json"):
        EmbeddingsDataset.open(join(place, "date=2026-12-01..2026-12-31"))
    with pytest.raises(DataError, match="'shards' stands behind a range; expected folders such as hour=13"):
        EmbeddingsDataset.open(join(place, "date=2026-11-18..2026-11-24/shards"))


def test_hours_of_several_days_are_named_by_their_days(place: str):
    everything = [name for ids in write_hours(place).values() for name in ids]
    assert ids_of(join(place, "hour=2026-11-18T00..2026-11-24T00")) == everything[10:25]
    assert ids_of(join(place, "hour=2026-11-18T01..2026-11-24T13/model=tiny-0")) == everything[15:30]
    assert ids_of(join(place, "hour=2026-11-24T13")) == everything[25:30]
    for nothing in (
        "hour=2026-11-18T01..2026-11-18T12",
        "hour=2026-11-24T13/model=other",
        "date=2026-11-24/hour=2026-11-24T13",
    ):
        with pytest.raises(DataError, match=r"there is no manifest.json"):
            EmbeddingsDataset.open(join(place, nothing))
        assert EmbeddingsDataset.find(join(place, nothing)) is None


@given(st.datetimes(), st.datetimes(), st.datetimes())
def test_an_hour_named_by_its_day_takes_two_levels(low: datetime, high: datetime, hour: datetime):
    span = [f"{time.isoformat()[:13]}" for time in (low, high)]
    selector = Selector.parse(f"hour={span[0]}..{span[1]}")
    assert selector == Selector("hour", *span)
    assert selector.width == 2
    wanted = span[0] <= hour.isoformat()[:13] <= span[1]
    day = f"date={hour.date().isoformat()}"
    assert selector.takes(f"{day}/hour={hour.hour:02d}") == wanted
    assert selector.outermost.takes(day) == (low.date() <= hour.date() <= high.date())
    for other in (
        day,
        f"hour={hour.hour:02d}",
        f"hour={hour.hour:02d}/{day}",
        f"{day}/hour={hour.hour:02d}/model=M",
        f"{day}/x",
    ):
        assert not selector.takes(other)


def test_levels_that_are_none():
    assert Selector.parse("shards") is None
    assert Selector.parse("date=") is None
    assert Selector.parse("date=2026-11-25") == Selector("date", "2026-11-25", "2026-11-25")
    assert selected_folders("a/date=2026-11-25/hour=13") == ("a/date=2026-11-25/hour=13", ())
    assert selected_folders("/date=a..b") == ("/", (Selector("date", "a", "b"),))
    assert selected_folders("date=a..b/model=M") == (".", (Selector("date", "a", "b"), Selector("model", "M", "M")))


def test_what_is_read_is_named(place: str):
    hours = write_hours(place)
    assert EmbeddingsDataset.open(place).folders == tuple(join(place, name) for name in hours)
    one = join(place, next(iter(hours)))
    assert EmbeddingsDataset.open(one).folders == (one,)
    assert dataset_folders(*selected_folders(join(place, "date=2026-11-24..2026-11-25/hour=13"))) == [
        f"date=2026-11-{day}/hour=13/model=tiny-0" for day in (24, 25)
    ]


def test_a_folder_spelled_otherwise_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    everything = [name for ids in write_hours(str(tmp_path / "archive")).values() for name in ids]
    monkeypatch.chdir(tmp_path)
    assert ids_of("./archive") == everything
    assert ids_of("archive/date=2026-11-17..2026-11-17") == everything[:10]
    monkeypatch.chdir(tmp_path / "archive")
    assert ids_of(".") == everything
    assert ids_of("date=2026-11-17..2026-11-17") == everything[:10]
    assert ids_of((tmp_path / "archive").as_uri()) == everything


def test_deletes_of_every_part_hold_and_rows_are_numbered_through(tmp_path: Path):
    out = str(tmp_path)
    hours = write_hours(out)
    names = [*hours]
    left_out(join(out, names[1]), {"part-000000.parquet": [1], "part-000003.parquet": [0, 1]})
    left_out(join(out, names[2]), {"part-000000.parquet": [0, 1, 2], "part-000003.parquet": [0, 1]})
    left = [*hours[names[0]], hours[names[1]][0], hours[names[1]][2], *[i for name in names[3:] for i in hours[name]]]
    dataset = EmbeddingsDataset.open(out)
    assert dataset.rows == len(left)
    assert ids_of(out) == left
    table = dataset.take([6, 0, 7], ("id", "embedding"))
    assert table.column("id").to_pylist() == [left[6], left[0], left[7]]
    vectors = np.concatenate([batch.embeddings for batch in dataset.batches(rows=np.array([5, 6]))])
    np.testing.assert_array_equal(vectors, vectors_of(5)[[0, 2]])
    assert dataset.take([], ("id",)).num_rows == 0


def test_the_identity_is_that_of_the_content(tmp_path: Path):
    out = str(tmp_path / "a")
    hours = write_hours(out)
    before = EmbeddingsDataset.open(out).manifest.digest
    assert EmbeddingsDataset.open(out).manifest.digest == before
    left_out(join(out, next(iter(hours))), {"part-000000.parquet": [1]})
    after = EmbeddingsDataset.open(out).manifest.digest
    assert after != before
    settings = DriftSettings(pca_components=0, seed=1)
    run = Run("r", "", "2026-11-30T00:00:00+00:00", "2026-11-30T00:00:00+00:00", out, out, join(out, "history"))
    assert pair(run, settings, EmbeddingsDataset.open(out), EmbeddingsDataset.open(out)).reference.digest == after
    # Nobody takes a joined dataset's JSON for a manifest.
    with pytest.raises(DataError, match=r"the format is 'driftline\.embeddings\.joined'"):
        Manifest.from_json(EmbeddingsDataset.open(out).manifest.to_json())


def test_what_is_not_a_level_is_not_looked_at(tmp_path: Path):
    out = str(tmp_path)
    everything = [name for ids in write_hours(out).values() for name in ids]
    write_embeddings(join(out, "elsewhere"), vectors_of(3))
    store.write_json(join(out, "_archive/manifest.json"), {})
    store.write_json(join(out, "date=2026-11-25/_work/manifest.json"), {})
    assert ids_of(out) == everything
    write_embeddings(out, vectors_of(2))
    assert ids_of(out) == ["id-0", "id-1"]


def test_datasets_of_two_models_are_told_apart(tmp_path: Path):
    out = str(tmp_path)
    write_hours(out)
    other = join(out, "date=2026-11-25/hour=13/model=other-0")
    write_embeddings(other, vectors_of(2), model="other", prefix="o")
    with pytest.raises(DataError, match=r"model is tiny, but other in .*name the datasets of one model"):
        EmbeddingsDataset.open(join(out, "date=2026-11-25/hour=13"))
    assert ids_of(join(out, "date=2026-11-25/hour=00..23/model=other-0")) == ["o-0", "o-1"]
    store.write_json(join(other, "manifest.json"), {"format": "driftline.embeddings"})
    with pytest.raises(DataError, match=r"model=other-0/manifest.json: manifest: version None"):
        EmbeddingsDataset.open(out)


def test_a_shard_of_a_manifest_is_a_plain_name(tmp_path: Path):
    out = write_embeddings(str(tmp_path / "d"), vectors_of(2))
    record = store.read_json(join(out, "manifest.json"))
    record["shards"][0]["name"] = "date=2026-11-25/part-000000.parquet"
    with pytest.raises(DataError, match="expected a plain file name"):
        Manifest.from_json(record)
