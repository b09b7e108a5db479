"""The steps that fit the projection on the pooled sample and write the projected sample."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.projection.pca import PCA, gather
from driftline.components.projection.projected import PICTURE_AXES, ProjectedSample, Projection
from driftline.components.random_bits import SAMPLE_PICTURE, SHUFFLED_ROWS, choose_rows, shuffled_order
from driftline.components.sampling.pooled import PooledSample
from driftline.components.steps import StepClock, logged_step
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.dataset.outputs import WORK
from driftline.components.storage.dataset.prefetch import waits_logged
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects.store import join
from driftline.components.storage.objects.values import read_value, write_value

PICTURE_POINTS = 1000
"""Points of each sample that the report draws."""


def fit(*, sample: str, out: str) -> None:
    """Fit a PCA on the pooled sample, which is symmetric in the two sides and so keeps the test exact.

    Args:
        sample: path of the pooled sample's JSON.
        out: path of the artifact to write.
    """
    with logged_step("fit", outputs=(out,)) as clock, waits_logged(clock):
        pooled = read_value(sample, PooledSample)
        components = pooled.settings.pca_components
        moments = gather(_vectors(pooled, clock))
        axes = max(components, min(PICTURE_AXES, pooled.dimension, pooled.rows - 1))
        write_value(out, Projection.of(PCA.fit(moments, axes), components, clock.seconds))


def project(*, sample: str, projection: str, out: str) -> None:
    """Write the pooled sample's projected vectors as an embeddings dataset of the run's own.

    Args:
        sample: path of the pooled sample's JSON.
        projection: path of the fitted projection's JSON.
        out: path of the artifact to write.
    """
    with logged_step("project", outputs=(out,)) as clock, waits_logged(clock):
        pooled = read_value(sample, PooledSample)
        fitted = read_value(projection, Projection)
        uri = join(pooled.run.base, WORK, pooled.run.id)
        clock.log("progress", workspace=uri)  # so that whoever follows the run can remove it, however the run ends
        writer = _Projector(fitted.pca, fitted.components)
        shards = _write(uri, pooled, writer, clock)
        model = f"{pooled.reference.model} projected"
        dimension = fitted.components or pooled.dimension
        write_manifest(
            uri,
            Manifest(model, pooled.run.id, dimension, normalized=False, dtype="float32", columns=(), shards=shards),
        )
        projected = ProjectedSample(
            pooled=pooled,
            working_folder=uri,
            largest_norm=writer.largest_norm,
            components=fitted.components,
            explained_variance_ratio=fitted.explained_variance_ratio[: fitted.components],
            picture_explained_variance_ratio=fitted.explained_variance_ratio[:PICTURE_AXES],
            reference_points=_picture(writer.pictures, pooled.seed, 0, pooled.n),
            current_points=_picture(writer.pictures, pooled.seed, pooled.n, pooled.rows),
            fit_seconds=fitted.seconds,
            seconds=clock.seconds,
        )
        write_value(out, projected)


class _Projector:
    """Projects vectors, and keeps their coordinates along the picture's axes for the report."""

    def __init__(self, pca: PCA, components: int) -> None:
        self._pca = pca
        self._components = components
        self.largest_norm = 0.0
        self.pictures: list[NDArray[np.float32]] = []

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        along = self._pca.project(vectors)
        self.pictures.append(along[:, :PICTURE_AXES].astype(np.float32))
        seen = along[:, : self._components] if self._components else vectors.astype(np.float64) - self._pca.mean
        with np.errstate(over="ignore"):
            seen = np.ascontiguousarray(seen, np.float32)
        squared = np.einsum("ij,ij->i", seen, seen, dtype=np.float64)
        self.largest_norm = max(self.largest_norm, math.sqrt(float(squared.max())))
        return seen


def _vectors(pooled: PooledSample, clock: StepClock) -> Iterator[NDArray[np.float32]]:
    done = 0
    for _, vectors in pooled.batches():
        yield vectors
        done += len(vectors)
        clock.progress(done, pooled.rows)


def _write(uri: str, pooled: PooledSample, projector: _Projector, clock: StepClock) -> tuple[Shard, ...]:
    """Write a shard for each window of shuffled rows, each row with its number in the pooled sample as its id."""
    shards: list[Shard] = []
    held: list[NDArray[np.float32]] = []
    done = written = 0

    def flush() -> None:
        nonlocal written
        name = f"part-{len(shards):05d}.parquet"
        order = shuffled_order(pooled.seed, written, done)
        seen = np.concatenate(held)[order - written]
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(seen.reshape(-1)), seen.shape[1])
        batch = pa.record_batch({"id": pa.array(order).cast(pa.string()), "embedding": embeddings})
        key = f"{pooled.run.id}/{name}"
        shards.append(write_shard(uri, name, [batch], dimension=seen.shape[1], dtype="float32", key=key))
        held.clear()
        written = done

    for _, vectors in pooled.batches():
        held.append(projector(vectors))
        done += len(vectors)
        if done - written >= SHUFFLED_ROWS or done == pooled.n:  # no window, and no batch, spans both samples
            flush()
        clock.progress(done, pooled.rows)
    if held:
        flush()
    if done != pooled.rows:
        raise DataError(f"{uri}: expected {pooled.rows} rows to project, got {done}; start the run again")
    return tuple(shards)


def _picture(parts: list[NDArray[np.float32]], seed: int, start: int, stop: int) -> tuple[tuple[float, ...], ...]:
    points = np.concatenate(parts)[start:stop]
    chosen = choose_rows(seed, SAMPLE_PICTURE, len(points), PICTURE_POINTS)
    return tuple(tuple(point) for point in points[chosen].tolist())
