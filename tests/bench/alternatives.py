"""The alternatives of the statistical bench: pairs of distributions, and how many rows are drawn from each.

Those of the publications on kernel two-sample tests (shifts, scales, perturbed uniforms, blobs), and what drift looks
like in practice (heavy tails, counts, repeated rows, samples of different size, new topics among texts). Their sizes
are such that good tests find most of them about half of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Two distributions, and rows to draw from each.

    Attributes:
        name: what differs.
        group: kind of difference.
        n: rows of x.
        m: rows of y.
        x: draws so many rows of x, (rows, d).
        y: draws rows of y.
    """

    name: str
    group: str
    n: int
    m: int
    x: Draw
    y: Draw

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw both samples."""
        return self.x(rng, self.n), self.y(rng, self.m)


def normal(d: int) -> Draw:
    """Return the standard normal distribution in d dimensions."""
    return lambda rng, rows: rng.normal(size=(rows, d))


def student(d: int, degrees: float, *, unit: bool = False) -> Draw:
    """Return independent Student t coordinates, of unit variance if asked for."""
    scale = np.sqrt((degrees - 2) / degrees) if unit else 1.0
    return lambda rng, rows: scale * rng.standard_t(degrees, size=(rows, d))


def changed(base: Draw, coordinates: int | None = None, *, add: float = 0.0, times: float = 1.0) -> Draw:
    """Return a distribution with its first coordinates, or all, scaled and then shifted."""

    def draw(rng: np.random.Generator, rows: int) -> Array:
        z = base(rng, rows)
        z[:, :coordinates] = z[:, :coordinates] * times + add
        return z

    return draw


def mixed(base: Draw, share: float, other: Draw) -> Draw:
    """Return a distribution of which each row is, by chance of ``share``, from another."""

    def draw(rng: np.random.Generator, rows: int) -> Array:
        return np.where(rng.random((rows, 1)) < share, other(rng, rows), base(rng, rows))

    return draw


def linear(base: Draw, matrix: Array) -> Draw:
    """Return a distribution whose rows are multiplied by a matrix, (d, d)."""
    return lambda rng, rows: base(rng, rows) @ matrix.T


def perturbed_uniform(d: int, perturbations: int, amplitude: float) -> Draw:
    """Return a uniform distribution with bumps and dents, of random signs, in each of ``perturbations``ᵈ cells.

    The smooth perturbations of Schrab et al. (MMDAgg, JMLR 2023, section 5.2), the density's height between
    1 − amplitude and 1 + amplitude.
    """

    def bump(t: Array) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            up = np.where(np.abs(4 * t - 1) < 1, np.exp(1 - 1 / np.maximum(1 - (4 * t - 1) ** 2, 1e-12)), 0)
            down = np.where(np.abs(4 * t - 3) < 1, np.exp(1 - 1 / np.maximum(1 - (4 * t - 3) ** 2, 1e-12)), 0)
        return up - down

    def draw(rng: np.random.Generator, rows: int) -> Array:
        signs = rng.choice([-1.0, 1.0], size=(perturbations,) * d)
        tried = 4 * rows + 200  # each is kept with probability 1/2
        z = rng.random((tried, d))
        cell = np.minimum((z * perturbations).astype(int), perturbations - 1)
        height = 1 + amplitude * signs[tuple(cell.T)] * np.prod(bump(z * perturbations - cell), axis=1)
        return z[2 * rng.random(tried) < height][:rows]

    return draw


def blobs(side: int, spacing: float, within: Array) -> Draw:
    """Return normal blobs on a square grid, each of a shape given by a (2, 2) matrix."""

    def draw(rng: np.random.Generator, rows: int) -> Array:
        return spacing * rng.integers(0, side, size=(rows, 2)) + rng.normal(size=(rows, 2)) @ within.T

    return draw


def ring(modes: int, contrast: float) -> Draw:
    """Return a noisy circle whose density along the way goes up and down ``modes`` times."""

    def draw(rng: np.random.Generator, rows: int) -> Array:
        angle = rng.uniform(0, 2 * np.pi, size=6 * rows + 200)
        angle = angle[2 * rng.random(len(angle)) < 1 + contrast * np.cos(modes * angle)][:rows]
        return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.normal(size=(rows, 2))

    return draw


def categories(shares: Sequence[float]) -> Draw:
    """Return rows that are one of a few vectors of eight dimensions, with these shares."""
    vectors = np.random.default_rng(20).normal(size=(len(shares), 8))
    return lambda rng, rows: vectors[rng.choice(len(shares), size=rows, p=np.array(shares) / sum(shares))]


def rows_of(first: Array, share: float = 0.0, second: Array | None = None) -> Draw:
    """Return rows of one table, a share of them of another."""

    def draw(rng: np.random.Generator, rows: int) -> Array:
        z = first[rng.choice(len(first), size=rows)]
        if second is not None:
            other = rng.random(rows) < share
            z[other] = second[rng.choice(len(second), size=int(other.sum()))]
        return z

    return draw


def _rotation(degrees: float) -> Array:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _correlated(d: int, correlation: float) -> Array:
    """Return a root of the correlations ρ^|i − j|."""
    return np.linalg.cholesky(correlation ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))))


def _laplace(d: int) -> Draw:
    return lambda rng, rows: rng.laplace(scale=np.sqrt(0.5), size=(rows, d))


def _multivariate_t(d: int, degrees: float) -> Draw:
    return lambda rng, rows: rng.normal(size=(rows, d)) / np.sqrt(rng.chisquare(degrees, size=(rows, 1)) / degrees)


def _poisson(d: int, mean: float) -> Draw:
    return lambda rng, rows: rng.poisson(mean, size=(rows, d)).astype(np.float64)


def _gamma(d: int, shape: float) -> Draw:
    return lambda rng, rows: (rng.gamma(shape, size=(rows, d)) - shape) / np.sqrt(shape)


def _rounded(base: Draw, step: float) -> Draw:
    return lambda rng, rows: np.round(base(rng, rows) / step) * step


def _hump(centre: float) -> Draw:
    """Return one of two humps whose even mixture has variance 1."""
    return changed(normal(1), times=float(np.sqrt(1 - centre**2)), add=centre)


def _cluster(d: int, centre: float, width: float) -> Draw:
    return changed(normal(d), times=width, add=centre)


def _spread(d: int, times: float) -> Draw:
    return changed(normal(d), times=times)


def _uniform(d: int) -> Draw:
    return lambda rng, rows: rng.random((rows, d))


_STRETCH: Final = np.diag([3.0, 1.0])
_LEANING: Final = np.linalg.cholesky(np.array([[1.0, 0.8], [0.8, 1.0]]))
_EVEN: Final = (1.0,) * 12
_UNEVEN: Final = (2.0, 2.0, 0.5, 0.5, *(1.0,) * 8)

ALTERNATIVES: Final = (
    Alternative("mean, d=1", "mean", 150, 150, normal(1), changed(normal(1), add=0.27)),
    Alternative("mean, d=2", "mean", 150, 150, normal(2), changed(normal(2), add=0.22)),
    Alternative("mean, d=10", "mean", 150, 150, normal(10), changed(normal(10), add=0.13)),
    Alternative("mean, d=50", "mean", 150, 150, normal(50), changed(normal(50), add=0.085)),
    Alternative("mean of 1 of 10", "mean", 150, 150, normal(10), changed(normal(10), 1, add=0.42)),
    Alternative("mean of 2 of 50", "mean", 150, 150, normal(50), changed(normal(50), 2, add=0.43)),
    Alternative("mean, d=5, 60 and 200", "mean", 60, 200, normal(5), changed(normal(5), add=0.23)),
    Alternative("mean, d=2, 220 and 40", "mean", 220, 40, normal(2), changed(normal(2), add=0.33)),
    Alternative("scale, d=1", "scale", 150, 150, normal(1), changed(normal(1), times=1.38)),
    Alternative("scale, d=2", "scale", 150, 150, normal(2), changed(normal(2), times=1.27)),
    Alternative("scale, d=10", "scale", 150, 150, normal(10), changed(normal(10), times=1.1)),
    Alternative("scale, d=50", "scale", 150, 150, normal(50), changed(normal(50), times=1.045)),
    Alternative("scale of 1 of 10", "scale", 150, 150, normal(10), changed(normal(10), 1, times=1.8)),
    Alternative("scale, d=3, 60 and 180", "scale", 60, 180, normal(3), changed(normal(3), times=1.3)),
    Alternative("Student t, 3 degrees, d=1", "tails", 200, 200, normal(1), student(1, 3, unit=True)),
    Alternative("Laplace, d=1", "tails", 250, 250, normal(1), _laplace(1)),
    Alternative("Laplace, d=5", "tails", 200, 200, normal(5), _laplace(5)),
    Alternative("Student t, 5 degrees, d=10", "tails", 200, 200, normal(10), student(10, 5, unit=True)),
    Alternative("multivariate t, 6 degrees, d=10", "tails", 150, 150, normal(10), _multivariate_t(10, 6)),
    Alternative("shift of Student t, 2, d=2", "tails", 150, 150, student(2, 2), changed(student(2, 2), add=0.32)),
    Alternative("shift of Student t, 3, d=10", "tails", 150, 150, student(10, 3), changed(student(10, 3), add=0.2)),
    Alternative("scale of Cauchy, d=1", "tails", 150, 150, student(1, 1), changed(student(1, 1), times=1.8)),
    Alternative("two humps, d=1", "mixture", 200, 200, normal(1), mixed(_hump(-0.78), 0.5, _hump(0.78))),
    Alternative("rare rows apart, d=2", "mixture", 150, 150, normal(2), mixed(normal(2), 0.1, _cluster(2, 1.8, 0.3))),
    Alternative(
        "rare rows apart, d=10", "mixture", 150, 150, normal(10), mixed(normal(10), 0.1, _cluster(10, 0.9, 0.4))
    ),
    Alternative("rare wide rows, d=5", "mixture", 150, 150, normal(5), mixed(normal(5), 0.12, _spread(5, 3.0))),
    Alternative("uniform, 1 bump, d=1", "uniform", 200, 200, _uniform(1), perturbed_uniform(1, 1, 0.4)),
    Alternative("uniform, 2 bumps, d=1", "uniform", 250, 250, _uniform(1), perturbed_uniform(1, 2, 0.5)),
    Alternative("uniform, 1 bump, d=2", "uniform", 200, 200, _uniform(2), perturbed_uniform(2, 1, 1.0)),
    Alternative("uniform, 2 bumps, d=2", "uniform", 250, 250, _uniform(2), perturbed_uniform(2, 2, 1.0)),
    Alternative("correlation, d=2", "shape", 150, 150, normal(2), linear(normal(2), _correlated(2, 0.5))),
    Alternative("correlation, d=10", "shape", 150, 150, normal(10), linear(normal(10), _correlated(10, 0.4))),
    Alternative(
        "rotation, d=2", "shape", 150, 150, linear(normal(2), _STRETCH), linear(normal(2), _rotation(22) @ _STRETCH)
    ),
    Alternative("skewness, d=3", "shape", 150, 150, normal(3), _gamma(3, 4.0)),
    Alternative("blobs that lean", "modes", 200, 200, blobs(3, 8.0, np.eye(2)), blobs(3, 8.0, _LEANING)),
    Alternative("blobs that spread", "modes", 200, 200, blobs(3, 8.0, np.eye(2)), blobs(3, 8.0, 1.4 * np.eye(2))),
    Alternative("ring of 6 modes", "modes", 200, 200, ring(6, 0.0), ring(6, 0.55)),
    Alternative("counts, d=3", "discrete", 150, 150, _poisson(3, 2.0), _poisson(3, 2.27)),
    Alternative(
        "rounded, d=1", "discrete", 150, 150, _rounded(normal(1), 0.5), _rounded(changed(normal(1), times=1.4), 0.5)
    ),
    Alternative("repeated rows", "discrete", 150, 150, categories(_EVEN), categories(_UNEVEN)),
)

NULLS: Final = (
    Alternative("normal, d=2, 20 and 20", "null", 20, 20, normal(2), normal(2)),
    Alternative("Student t, d=5, 20 and 60", "null", 20, 60, student(5, 3), student(5, 3)),
    Alternative("repeated rows, 90 and 40", "null", 90, 40, categories(_EVEN), categories(_EVEN)),
    Alternative("gamma, d=20, 100 and 100", "null", 100, 100, _gamma(20, 1.0), _gamma(20, 1.0)),
)


def embedded(reviews: Array, plots: Array, rotten: Array) -> tuple[Alternative, ...]:
    """Return alternatives among real texts' embeddings: film reviews, and more of another kind.

    Args:
        reviews: (rows, d) embeddings of reviews, good and bad.
        plots: those of plot summaries.
        rotten: those of bad reviews.
    """
    shares = tuple(
        Alternative(f"reviews, {share:.0%} plots", "texts", 250, 250, rows_of(reviews), rows_of(reviews, share, plots))
        for share in (0.02, 0.05, 0.1)
    )
    return (
        *shares,
        Alternative("reviews, 40% rotten ones", "texts", 250, 250, rows_of(reviews), rows_of(reviews, 0.4, rotten)),
    )
