"""The reference: sampled, projected by rows that are then left out, calibrated once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftline.components.errors import DataError, DriftlineError, UsageError
from driftline.components.mmd import calibration
from driftline.components.mmd.calibration import calibrate
from driftline.components.mmd.online import OnlineSettings
from driftline.components.projection.pca import PCA, Moments
from driftline.components.projection.projected import Projection
from driftline.components.random_bits import SAMPLE_REFERENCE, choose_rows
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import write_value
from driftline.serving.monitor.baseline import Baseline, stored_baseline
from driftline.serving.monitor.settings import ReferenceSettings
from tests.serving.monitor.conftest import Bench
from tests.serving.monitor.streams import SMALL, reference, vectors
from tests.support.datasets import write_embeddings


def test_the_projection_is_fitted_on_rows_that_are_then_left_out(bench: Bench) -> None:
    rows = vectors(4000, 1)
    fit = choose_rows(SMALL.seed, SAMPLE_REFERENCE, 4000, 1000)
    kept = np.setdiff1d(np.arange(4000), fit)
    pca = PCA.fit(Moments.of(rows[fit]), 8)
    found = bench.baseline
    np.testing.assert_allclose(found.project(rows[kept]), pca.project(rows[kept]), rtol=0, atol=1e-9)
    assert found.reference.sampled == found.calibration.rows == 3000
    expected = calibrate(pca.project(rows[kept]).astype(np.float32), SMALL)
    assert found.calibration.threshold == pytest.approx(expected.threshold, rel=1e-4)


def test_a_sample_of_a_large_reference(tmp_path: Path) -> None:
    dataset = reference(tmp_path / "reference")
    settings = ReferenceSettings(dataset, rows=2000, components=8, online=SMALL)
    made = stored_baseline(settings, str(tmp_path / "state"))
    assert (made.reference.rows, made.reference.sampled) == (4000, 1500)
    assert made.key != stored_baseline(replace(settings, rows=1999), str(tmp_path / "state")).key


def test_rows_are_projected_to_the_same_bits_alone_and_together(bench: Bench) -> None:
    rows = vectors(257, 9)
    together = bench.baseline.project(rows)
    for start, stop in ((0, 1), (1, 4), (4, 100), (100, 257)):
        np.testing.assert_array_equal(bench.baseline.project(rows[start:stop]), together[start:stop])


def test_a_restart_does_not_calibrate_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("calibrated again")

    monkeypatch.setattr(calibration, "calibrate", fail)
    again = stored_baseline(bench.settings.reference, bench.settings.state)
    assert again.to_bytes() == bench.baseline.to_bytes()
    with pytest.raises(AssertionError, match="calibrated again"):
        stored_baseline(replace(bench.settings.reference, online=replace(SMALL, seed=1)), bench.settings.state)


def test_a_restart_does_without_jax(bench: Bench) -> None:
    program = (
        "import sys\n"
        "from driftline.components.mmd.online import OnlineSettings\n"
        "from driftline.serving.monitor import worker\n"
        "from driftline.serving.monitor.baseline import stored_baseline\n"
        "from driftline.serving.monitor.settings import ReferenceSettings\n"
        f"online = {SMALL!r}\n"
        f"settings = ReferenceSettings({bench.settings.reference.dataset!r}, components=8, online=online)\n"
        f"print(stored_baseline(settings, {bench.settings.state!r}).key, 'jax' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [bench.baseline.key, "False"]


def test_two_monitors_that_calibrate_at_once_use_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = reference(tmp_path / "reference")
    settings = ReferenceSettings(dataset, components=8, online=SMALL)
    state = str(tmp_path / "state")
    other = stored_baseline(settings, state)
    exists = store.exists
    # As if the other's had come between the look and the write.
    monkeypatch.setattr(store, "exists", lambda uri: "baseline" not in uri and exists(uri))
    assert stored_baseline(settings, state).to_bytes() == other.to_bytes()


def test_a_projection_that_is_given(tmp_path: Path) -> None:
    dataset = reference(tmp_path / "reference")
    pca = PCA.fit(Moments.of(vectors(500, 33)), 8)
    place = str(tmp_path / "projection.json")
    write_value(place, Projection.of(pca, 6, 0.1))
    settings = ReferenceSettings(dataset, projection=place, online=SMALL)
    made = stored_baseline(settings, str(tmp_path / "state"))
    assert made.reference.sampled == 4000
    rows = vectors(10, 2)
    np.testing.assert_allclose(made.project(rows), pca.project(rows)[:, :6], atol=1e-12)
    with pytest.raises(UsageError, match=r"components: expected at most 6, as .*projection\.json has, got 7"):
        stored_baseline(replace(settings, components=7), str(tmp_path / "state"))
    other = write_embeddings(str(tmp_path / "narrow"), vectors(1000, 1)[:, :5])
    with pytest.raises(DataError, match=r"projects vectors of dimension 16, those of .*narrow have 5; give"):
        stored_baseline(replace(settings, dataset=other), str(tmp_path / "state"))


def test_whole_vectors(tmp_path: Path) -> None:
    dataset = reference(tmp_path / "reference", 1000)
    made = stored_baseline(ReferenceSettings(dataset, components=0, online=SMALL), str(tmp_path / "state"))
    rows = vectors(10, 2)
    np.testing.assert_array_equal(made.project(rows), rows.astype(np.float64))
    assert made.reference.sampled == 1000


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (300, {}, r"reference: expected 4 windows, 400 rows, to compare with, got 225 \(300 rows, 75 of them for the"),
        (300, {"components": 0}, r"got 300 \(300 rows\); give a larger dataset or a smaller window"),
        (
            540,
            {"online": OnlineSettings(ert=1e9, window=100, steps=10, features=32)},
            r"reference \(540 rows, 135 of them for the projection\): reference: 405 rows are too few for an ERT of",
        ),
        (1000, {"components": 17}, r"250 of whose rows are for the projection: components: expected from 1 to 16"),
    ],
)
def test_a_reference_that_will_not_do(tmp_path: Path, rows: int, changes: dict[str, object], message: str) -> None:
    dataset = reference(tmp_path / "reference", rows)
    settings = ReferenceSettings(**{"dataset": dataset, "components": 8, "online": SMALL, **changes})
    with pytest.raises(DriftlineError, match=message) as caught:
        stored_baseline(settings, str(tmp_path / "state"))
    assert "\n" not in str(caught.value)
    assert not store.exists(str(tmp_path / "state"))


def test_an_empty_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = reference(tmp_path / "reference", 3)
    monkeypatch.setattr(EmbeddingsDataset, "rows", 0)  # as when all of its rows are deleted
    with pytest.raises(DataError, match=r"400 rows, to compare with, got 0 \(0 rows\); give a larger dataset"):
        stored_baseline(ReferenceSettings(dataset, online=SMALL), str(tmp_path / "state"))


def test_no_reference(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no manifest\.json"):
        stored_baseline(ReferenceSettings(str(tmp_path), online=SMALL), str(tmp_path / "state"))


def test_a_damaged_baseline_says_what_to_do(bench: Bench) -> None:
    (place,) = [info.uri for info in store.list_files(bench.settings.state)]
    content = store.read_bytes(place)
    store.write_bytes(place, content[: len(content) // 2])
    with pytest.raises(DataError, match=r"baseline-\w+\.npz: driftline\.monitor-baseline: expected bytes"):
        stored_baseline(bench.settings.reference, bench.settings.state)
    moved = replace(Baseline.from_bytes(content), key="0" * 64)
    store.write_bytes(place, moved.to_bytes())
    with pytest.raises(DataError, match="is the baseline of other settings; remove it"):
        stored_baseline(bench.settings.reference, bench.settings.state)


def test_the_state_place_may_be_a_bucket(gcs_bucket: str, tmp_path: Path) -> None:
    dataset = reference(f"{gcs_bucket}/reference", 1000)
    settings = ReferenceSettings(dataset, components=4, online=SMALL)
    made = stored_baseline(settings, f"{gcs_bucket}/state")
    assert stored_baseline(settings, f"{gcs_bucket}/state").to_bytes() == made.to_bytes()
