from __future__ import annotations

import shutil

import numpy as np
import pytest

from driftline.components import random_bits
from driftline.components.errors import DataError
from driftline.components.projection import step
from driftline.components.projection.pca import PCA, gather
from driftline.components.projection.projected import ProjectedSample, Projection
from driftline.components.random_bits import shuffled_order
from driftline.components.sampling import pooled
from driftline.components.sampling import step as sampling
from driftline.components.sampling.pooled import PooledSample
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.values import read_value
from tests.support.datasets import write_embeddings

N, M, D = 90, 70, 6


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.normal(size=(N + M, D)) @ np.diag([4, 3, 2, 1, 0.5, 0.1]) + 10).astype(np.float32)


def project(folder, vectors, components, *, size=0, seed=0, n=N, rows_per_shard=40):
    """Run the steps up to the projection; return what they wrote, and the projected vectors in pooled order."""
    for name, part in (("x", vectors[:n]), ("y", vectors[n:])):
        write_embeddings(str(folder / name), part, rows_per_shard=rows_per_shard, prefix=name)
    paths = {name: str(folder / f"{name}.json") for name in ("pooled", "fitted", "projected")}
    sampling.run(
        reference=f"{folder}/x",
        current=f"{folder}/y",
        out=str(folder / "out"),
        window_max_rows=size,
        pca_components=components,
        seed=seed,
        sample_out=paths["pooled"],
    )
    step.fit(sample=paths["pooled"], out=paths["fitted"])
    step.project(sample=paths["pooled"], projection=paths["fitted"], out=paths["projected"])
    projected = read_value(paths["projected"], ProjectedSample)
    batches = list(EmbeddingsDataset.open(projected.working_folder).batches())
    numbers = np.array([int(name) for batch in batches for name in batch.ids])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(len(numbers)))
    assert (np.sort(numbers[: projected.pooled.n]) < projected.pooled.n).all()
    return (
        read_value(paths["pooled"], PooledSample),
        read_value(paths["fitted"], Projection),
        projected,
        numbers,
        np.concatenate([batch.embeddings for batch in batches])[np.argsort(numbers)],
    )


def test_projected_vectors_are_those_of_a_pca_of_all_rows(tmp_path, vectors):
    pooled, fitted, projected, numbers, seen = project(tmp_path, vectors, 3)
    whole = vectors.astype(np.float64)
    values, directions = np.linalg.eigh(np.cov(whole.T))
    along = (whole - whole.mean(axis=0)) @ directions[:, ::-1][:, :3]
    np.testing.assert_allclose(np.abs(seen), np.abs(along), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fitted.explained_variance, values[::-1][:3], rtol=1e-9)
    assert projected.explained_variance_ratio == pytest.approx(tuple(values[::-1][:3] / values.sum()), rel=1e-9)
    np.testing.assert_array_equal(numbers, np.concatenate([shuffled_order(0, 0, N), shuffled_order(0, N, N + M)]))
    assert (projected.pooled.n, projected.pooled.rows, projected.components) == (N, N + M, 3)
    assert projected.largest_norm == pytest.approx(np.linalg.norm(seen.astype(np.float64), axis=1).max(), rel=1e-12)
    assert projected.working_folder == str(tmp_path / "out" / "work" / pooled.run.id)
    assert projected.picture_explained_variance_ratio == projected.explained_variance_ratio[:2]


def test_whole_vectors_are_centred_and_still_have_a_picture(tmp_path, vectors):
    _, fitted, projected, _, seen = project(tmp_path, vectors, 0)
    whole = vectors.astype(np.float64)
    np.testing.assert_allclose(seen, whole - whole.mean(axis=0), atol=1e-5)
    assert (projected.components, projected.explained_variance_ratio) == (0, ())
    picture = PCA.fit(gather([whole]), 2).project(whole)
    np.testing.assert_allclose(projected.reference_points, picture[:N], atol=1e-4)
    np.testing.assert_allclose(projected.current_points, picture[N:], atol=1e-4)
    assert len(fitted.directions) == 2


def test_vectors_of_one_dimension_have_a_picture_of_one_axis(tmp_path, vectors):
    _, _, projected, _, seen = project(tmp_path, vectors[:, :1], 1)
    assert np.shape(projected.reference_points) == (N, 1)
    assert np.shape(seen) == (N + M, 1)


def test_pictures_are_a_seeded_choice_of_each_side(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(step, "PICTURE_POINTS", 20)
    runs = [project(tmp_path / str(k), vectors, 2, seed=seed)[2:] for k, seed in enumerate([1, 1, 2])]
    (first, _, seen), (same, _, _), (other, _, _) = runs
    assert first.reference_points == same.reference_points
    assert first.reference_points != other.reference_points
    for points, side in ((first.reference_points, seen[:N]), (first.current_points, seen[N:])):
        assert len(set(points)) == 20
        assert set(points) <= {tuple(row) for row in side[:, :2].tolist()}


def test_only_sampled_rows_take_part(tmp_path, vectors):
    pooled, fitted, projected, _, seen = project(tmp_path, vectors, 2, size=50, seed=9)
    (_, from_reference), (_, from_current) = pooled.sides()
    chosen = np.concatenate([from_reference, N + from_current])
    assert len(chosen) == 100
    expected = PCA.fit(gather([vectors[chosen]]), 2).project(vectors[chosen])
    np.testing.assert_allclose(np.abs(seen), np.abs(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fitted.mean, vectors[chosen].astype(np.float64).mean(axis=0), rtol=1e-12)
    assert (projected.pooled.n, projected.pooled.rows) == (50, 100)


def test_same_bits_from_any_shards(tmp_path, vectors):
    seen = set()
    for rows_per_shard in (7, 64, 1000):
        found = project(tmp_path / str(rows_per_shard), vectors, 4, rows_per_shard=rows_per_shard)
        seen.add((found[1].mean, found[1].directions, found[2].largest_norm, found[4].tobytes()))
    assert len(seen) == 1


def test_written_shards_have_a_bound_of_their_own(tmp_path, vectors, monkeypatch):
    whole = project(tmp_path / "a", vectors, 2)
    for module in (step, random_bits):
        monkeypatch.setattr(module, "SHUFFLED_ROWS", 30)
    monkeypatch.setattr(pooled, "BATCH_ROWS", 10)
    cut = project(tmp_path / "b", vectors, 2)
    rows = [shard.rows for shard in EmbeddingsDataset.open(cut[2].working_folder).manifest.shards]
    assert rows == [30, 30, 30, 30, 30, 10]
    np.testing.assert_array_equal(whole[4], cut[4])


def test_workspace_is_said_before_anything_is_written(tmp_path, vectors, caplog):
    with caplog.at_level("INFO", logger="driftline"):
        projected = project(tmp_path, vectors, 2)[2]
    assert [message for message in caplog.messages if f'"workspace": "{projected.working_folder}"' in message]


def test_a_dataset_that_is_replaced_meanwhile_stops_the_run(tmp_path, vectors):
    project(tmp_path, vectors, 2)
    shutil.rmtree(tmp_path / "out")
    write_embeddings(str(tmp_path / "y"), vectors[N:] + 1, rows_per_shard=40, prefix="y")
    with pytest.raises(
        DataError, match=r"/y: the dataset was replaced while the run was reading it; start the run again"
    ):
        step.project(
            sample=str(tmp_path / "pooled.json"),
            projection=str(tmp_path / "fitted.json"),
            out=str(tmp_path / "second.json"),
        )
    assert not (tmp_path / "second.json").exists()
    assert not list((tmp_path / "out").rglob("manifest.json"))
