"""The artifacts of the projection steps: the fitted projection, and the projected sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from driftline.components.projection.pca import PCA
from driftline.components.sampling.pooled import PooledSample

PICTURE_AXES = 2


@dataclass(frozen=True, slots=True)
class Projection:
    """A PCA fitted on the pooled sample, and the number of its components that the test uses.

    Attributes:
        mean: (d,), as of :class:`PCA`.
        directions: (k, d), at least the axes of the picture where the vectors have as many dimensions.
        explained_variance: (k,).
        explained_variance_ratio: (k,).
        components: dimensions that the test sees; 0 for whole vectors, centred only.
        seconds: how long the fit took.
    """

    mean: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    explained_variance: tuple[float, ...]
    explained_variance_ratio: tuple[float, ...]
    components: int
    seconds: float

    @classmethod
    def of(cls, pca: PCA, components: int, seconds: float) -> Self:
        """Return a fitted PCA as plain values."""
        return cls(
            tuple(pca.mean.tolist()),
            tuple(tuple(row) for row in pca.components.tolist()),
            tuple(pca.explained_variance.tolist()),
            tuple(pca.explained_variance_ratio.tolist()),
            components,
            seconds,
        )

    @property
    def pca(self) -> PCA:
        """The fitted PCA."""
        fields = self.mean, self.directions, self.explained_variance, self.explained_variance_ratio
        return PCA(*(np.array(field, np.float64) for field in fields))


@dataclass(frozen=True, slots=True)
class ProjectedSample:
    """The pooled sample in the coordinates that the test sees.

    Attributes:
        pooled: the sample itself.
        working_folder: an embeddings dataset of float32 vectors, the reference's rows first, those of each sample in
            shuffled order (:func:`driftline.components.random_bits.shuffled_order`) by the run's seed; a row's id is
            its number in the pooled sample. The report removes it.
        largest_norm: largest Euclidean norm of a projected vector.
        components: dimensions kept by the projection; 0 where vectors are whole.
        explained_variance_ratio: share of the pooled variance along each kept dimension.
        picture_explained_variance_ratio: the same for the axes of the picture.
        reference_points: (p, 1 or 2) coordinates of some rows of the reference along the axes of the picture.
        current_points: the same for the current window.
        fit_seconds: how long the fit took.
        seconds: how long the projection took.
    """

    pooled: PooledSample
    working_folder: str
    largest_norm: float
    components: int
    explained_variance_ratio: tuple[float, ...]
    picture_explained_variance_ratio: tuple[float, ...]
    reference_points: tuple[tuple[float, ...], ...]
    current_points: tuple[tuple[float, ...], ...]
    fit_seconds: float
    seconds: float
