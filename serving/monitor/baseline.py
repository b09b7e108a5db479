"""The reference as a monitor uses it: a dataset's rows, projected, with a threshold calibrated for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError, InputError, UsageError
from driftline.components.mmd.online import Calibration, pack, unpack
from driftline.components.projection.pca import PCA, check_components, gather
from driftline.components.projection.projected import Projection
from driftline.components.random_bits import SAMPLE_REFERENCE, choose_rows
from driftline.components.sampling.identity import SampleIdentity
from driftline.components.steps import logged_step
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects import store
from driftline.components.storage.objects.owned_object import OwnedObject, Replacement
from driftline.components.storage.objects.values import read_value
from driftline.serving.monitor.settings import ReferenceSettings

DEFAULT_COMPONENTS: Final = 32
_FORMAT: Final = "driftline.monitor-baseline"
_BATCH_ROWS: Final = 4096  # fixed, so that sums do not depend on how a dataset is cut into shards
_FIT_SHARE: Final = 4
_MAX_FIT_ROWS: Final = 20_000  # 50 rows and more for each dimension of common models


@dataclass(frozen=True, slots=True, eq=False)
class FixedProjection:
    """The projection of a vector that the detector sees.

    Attributes:
        mean: (d,) float64, subtracted first.
        components: (k, d) float64, the directions kept; (0, d) where vectors are compared whole.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]

    @property
    def dimension(self) -> int:
        """Length of a projected vector."""
        return len(self.components) or len(self.mean)

    def __call__(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Project vectors, (rows, d) → (rows, k), or (rows, d) where they stay whole.

        A row's result has the same bits whatever rows are beside it, so that scores do not depend on how a stream is
        cut into batches.
        """
        centred = np.asarray(vectors, np.float64) - self.mean
        if not len(self.components):
            return centred
        return np.matmul(centred[:, None, :], self.components.T)[:, 0, :]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """The reference side of a monitor's comparison.

    Attributes:
        key: SHA-256 of all that it depends on: the dataset's content, the projection and the settings.
        reference: which dataset; ``sampled`` are the rows of it that the detector's reference holds.
        project: turns vectors into those that the detector sees.
        calibration: the detector's reference and threshold.
    """

    key: str
    reference: SampleIdentity
    project: FixedProjection
    calibration: Calibration

    def to_bytes(self) -> bytes:
        """Return an .npz file without pickle that :meth:`from_bytes` reads."""
        calibration = np.frombuffer(self.calibration.to_bytes(), np.uint8)
        arrays = {"mean": self.project.mean, "components": self.project.components, "calibration": calibration}
        return pack(_FORMAT, {"key": self.key, "reference": asdict(self.reference)}, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what :meth:`to_bytes` wrote. Raises DataError for anything else."""
        header, arrays = unpack(_FORMAT, data)
        try:
            reference = SampleIdentity(**header["reference"])
            calibration = Calibration.from_bytes(arrays["calibration"].tobytes())
            return cls(
                str(header["key"]), reference, FixedProjection(arrays["mean"], arrays["components"]), calibration
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"{_FORMAT}: not as written ({error}); remove it, it will be made again") from error


def stored_baseline(settings: ReferenceSettings, state: str) -> Baseline:
    """Return the baseline of these settings: stored in the monitor's state folder, or made and stored there.

    Args:
        settings: what the stream is compared with.
        state: the monitor's state folder or ``gs://`` prefix.

    Raises:
        DataError: the dataset, the projection or the stored baseline is not as expected, or the reference is too small.
        UsageError: more components than possible.
        StorageError: something cannot be read or written.
    """
    dataset = EmbeddingsDataset.open(settings.dataset)
    projection = read_value(settings.projection, Projection) if settings.projection else None
    key = _key(dataset, projection, settings)
    uri = store.join(state, f"baseline-{key[:32]}.npz")
    if not store.exists(uri):
        made = _make(dataset, projection, settings, key)
        if OwnedObject(uri).replace(made.to_bytes()) is not Replacement.LOST:
            return made
        # Another monitor made one meanwhile; the stored one counts.
    try:
        found = Baseline.from_bytes(store.read_bytes(uri))
    except DataError as error:
        raise DataError(f"{uri}: {error}") from error
    if found.key != key:
        raise DataError(f"{uri}: is the baseline of other settings; remove it, it will be made again")
    return found


def _key(dataset: EmbeddingsDataset, projection: Projection | None, settings: ReferenceSettings) -> str:
    online = {**asdict(settings.online), "ert": float(settings.online.ert)}
    if online["kernel"] == "laplace-l2":
        online["kernel"] = "laplace"  # its name when the first baselines were stored: they are found again
    inputs: dict[str, Any] = {
        "dataset": dataset.manifest.digest,
        "rows": settings.rows,
        "components": settings.components,
        "projection": None if projection is None else asdict(projection),
        "online": online,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _make(dataset: EmbeddingsDataset, projection: Projection | None, settings: ReferenceSettings, key: str) -> Baseline:
    # Imported here: it imports JAX, which takes seconds and which watching does not need.
    from driftline.components.mmd.calibration import MIN_REFERENCE_WINDOWS, calibrate

    with logged_step("calibrate") as clock:
        seed = settings.online.seed
        components = DEFAULT_COMPONENTS if settings.components is None else settings.components
        rows = min(settings.rows, dataset.rows) if settings.rows else dataset.rows
        # The rows with the smallest random words are chosen, so a smaller choice is a random part of a larger one.
        to_fit = min(rows // _FIT_SHARE, _MAX_FIT_ROWS) if projection is None and components else 0
        for_fit = choose_rows(seed, SAMPLE_REFERENCE, dataset.rows, to_fit)
        kept = np.setdiff1d(choose_rows(seed, SAMPLE_REFERENCE, dataset.rows, rows), for_fit, assume_unique=True)
        without = f", {to_fit} of them for the projection" if to_fit else ""
        least = MIN_REFERENCE_WINDOWS * settings.online.window
        if len(kept) < least:
            raise DataError(
                f"{dataset.uri}: expected {MIN_REFERENCE_WINDOWS} windows, {least} rows, to compare with, "
                f"got {len(kept)} ({rows} rows{without}); give a larger dataset or a smaller window"
            )
        if projection is not None:
            project = _given_projection(dataset, projection, settings)
        elif components:
            project = _fitted_projection(dataset, for_fit, components)
        else:
            project = FixedProjection(np.zeros(dataset.dimension), np.empty((0, dataset.dimension)))
        seen = np.empty((len(kept), project.dimension), np.float32)
        done = 0
        for batch in _batches(dataset, kept):
            seen[done : done + len(batch)] = project(batch)
            done += len(batch)
            clock.progress(done, len(kept))
        try:
            calibration = calibrate(seen, settings.online)
        except InputError as error:
            raise type(error)(f"{dataset.uri} ({rows} rows{without}): {error}") from error
        reference = SampleIdentity(
            dataset.uri,
            dataset.manifest.digest,
            dataset.manifest.model,
            dataset.manifest.revision,
            dataset.dimension,
            dataset.rows,
            len(kept),
        )
        return Baseline(key, reference, project, calibration)


def _given_projection(
    dataset: EmbeddingsDataset, projection: Projection, settings: ReferenceSettings
) -> FixedProjection:
    pca, most = projection.pca, projection.components
    if len(pca.mean) != dataset.dimension:
        raise DataError(
            f"{settings.projection}: projects vectors of dimension {len(pca.mean)}, those of {dataset.uri} have "
            f"{dataset.dimension}; give a projection that was fitted on vectors of the same model"
        )
    components = most if settings.components is None else settings.components
    if components > most:
        raise UsageError(f"components: expected at most {most}, as {settings.projection} has, got {components}")
    return FixedProjection(pca.mean, pca.components[:components])


def _fitted_projection(dataset: EmbeddingsDataset, rows: NDArray[np.int64], components: int) -> FixedProjection:
    try:
        check_components(components, dimension=dataset.dimension, rows=len(rows))
    except UsageError as error:
        raise UsageError(f"{dataset.uri}, {len(rows)} of whose rows are for the projection: {error}") from error
    pca = PCA.fit(gather(_batches(dataset, rows)), components)
    return FixedProjection(pca.mean, pca.components)


def _batches(dataset: EmbeddingsDataset, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    for batch in dataset.batches(columns=("embedding",), rows=rows, batch_rows=_BATCH_ROWS):
        yield batch.embeddings
