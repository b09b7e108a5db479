"""Principal component analysis from mergeable sums, in float64.

One pass over the data gathers the count, the mean and the scatter matrix; sums of two parts merge by Chan, Golub and
LeVeque's update ("Algorithms for computing the sample variance", 1983), so that shards may be summed apart. An
eigendecomposition of the covariance then gives the components.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and scatter of some vectors.

    Attributes:
        count: number of vectors.
        mean: (d,) float64.
        scatter: (d, d) float64, Σ (x − mean)(x − mean)ᵀ. Memory: 8d² bytes.
    """

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.floating]) -> Self:
        """Return the moments of the rows of x, (k, d) with k ≥ 1."""
        x = np.asarray(x, np.float64)
        mean = x.mean(axis=0)
        centred = x - mean
        return cls(len(x), mean, centred.T @ centred)

    def merge(self, other: Self) -> Self:
        """Return the moments of both parts together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        between = np.outer(delta, delta) * (self.count * other.count / count)
        return type(self)(count, mean, self.scatter + other.scatter + between)


def gather(batches: Iterable[NDArray[np.floating]]) -> Moments:
    """Return the moments of all batches, each (rows, d). Raises ValueError where there is none."""
    total: Moments | None = None
    for batch in batches:
        part = Moments.of(batch)
        total = part if total is None else total.merge(part)
    if total is None:
        raise ValueError("gather: expected at least one batch of vectors, got none")
    return total


@dataclass(frozen=True, slots=True)
class PCA:
    """A centring and a rotation to the directions of largest variance.

    Attributes:
        mean: (d,) float64, subtracted first.
        components: (k, d) float64, orthonormal rows by falling variance; in each the entry of largest magnitude
            is positive, so that the signs are determined.
        explained_variance: (k,) float64, variance along each component, divisor count − 1.
        explained_variance_ratio: (k,) float64, its share of the total variance (0 where there is none).
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]

    @classmethod
    def fit(cls, moments: Moments, components: int) -> Self:
        """Keep the first ``components`` directions. Time O(d³), memory O(d²).

        Raises:
            UsageError: more components than dimensions, or than vectors less one, or fewer than one.
        """
        check_components(components, dimension=len(moments.mean), rows=moments.count)
        values, vectors = np.linalg.eigh(moments.scatter / (moments.count - 1))
        falling = np.argsort(values, kind="stable")[::-1][:components]
        directions = vectors[:, falling].T
        largest = np.argmax(np.abs(directions), axis=1)
        directions = directions * np.sign(directions[np.arange(components), largest])[:, None]
        variance = np.maximum(values[falling], 0.0)
        total = float(np.maximum(values, 0.0).sum())
        ratio = variance / total if total > 0 else np.zeros_like(variance)
        return cls(moments.mean, np.ascontiguousarray(directions), variance, ratio)

    def project(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the coordinates of the rows of x, (rows, d) → (rows, k) float64."""
        return (np.asarray(x, np.float64) - self.mean) @ self.components.T


def check_components(components: int, *, dimension: int, rows: int) -> None:
    """Raise UsageError unless 1 ≤ components ≤ min(dimension, rows − 1).

    Args:
        components: directions to keep.
        dimension: length of a vector, d.
        rows: vectors that the fit sees; centred, they span at most rows − 1 directions.
    """
    most = min(dimension, rows - 1)
    if not 1 <= components <= most:
        raise UsageError(
            f"components: expected from 1 to {most} for {rows} vectors of dimension {dimension}, got {components}"
        )
