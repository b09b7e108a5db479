"""Kernel functions by name.

A kernel is k(x, y) = f(γ·‖x − y‖²) or f(γ·⟨x, y⟩): a family's *profile* f, applied to one of the two things that a
matrix product gives for a whole tile of pairs, and an inverse squared length scale γ. Many kernels therefore share one
product, and a new family is one entry in the table below. Vectors are centred on the pooled sample's mean first, which
distances do not notice and which inner products are meant to be taken after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError

Argument = Literal["distance", "product"]
Profile = Callable[[jax.Array], jax.Array]
Mixture = Callable[[np.random.Generator, int], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Family:
    """Kernels that differ in γ alone.

    Attributes:
        name: the name it is asked for by.
        argument: what γ multiplies: ``"distance"``, ‖x − y‖², or ``"product"``, ⟨x, y⟩ of centred vectors.
        profile: f, elementwise, of any float dtype.
        heuristic: γ by the heuristic is this divided by the median squared distance of the pooled sample, or by its
            mean squared norm for a ``"product"``.
        bound: an upper bound of |f(u)| over |u| ≤ its argument (0 ≤ u for a distance).
        mixture: draws scales s with f(u) = E[exp(−s·u)], by which the kernel is a mixture of Gaussians and has random
            Fourier features; None where it is not a function of the distance.
    """

    name: str
    argument: Argument
    profile: Profile
    heuristic: float
    bound: Callable[[float], float]
    mixture: Mixture | None


def _gaussian(u: jax.Array) -> jax.Array:
    return jnp.exp(-u)


def _laplace(u: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.sqrt(u))


def _inverse_multiquadric(u: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(1 + u)


def _rational_quadratic(u: jax.Array) -> jax.Array:
    return 1 / (1 + u)


def _linear(u: jax.Array) -> jax.Array:
    return u


def _cubic(u: jax.Array) -> jax.Array:
    return (1 + u) * (1 + u) * (1 + u)


def _one(_: float) -> float:
    return 1.0


# Mixing distributions: the Laplace transform of each is its profile. 1/(4G) with G of the gamma distribution of shape
# 1/2 is Lévy's distribution, whose transform is exp(−√u); the gamma distribution of shape α has (1 + u)^−α.
_FAMILIES: Final = {
    family.name: family
    for family in (
        Family("rbf", "distance", _gaussian, 0.5, _one, lambda rng, count: np.ones(count)),
        Family("laplace", "distance", _laplace, 1.0, _one, lambda rng, count: 0.25 / rng.gamma(0.5, size=count)),
        Family("imq", "distance", _inverse_multiquadric, 1.0, _one, lambda rng, count: rng.gamma(0.5, size=count)),
        Family("rq", "distance", _rational_quadratic, 0.5, _one, lambda rng, count: rng.gamma(1.0, size=count)),
        Family("linear", "product", _linear, 1.0, lambda largest: max(largest, 1.0), None),
        Family("polynomial", "product", _cubic, 1.0, lambda largest: (1.0 + largest) ** 3, None),
    )
}
KERNEL_NAMES: Final = tuple(_FAMILIES)


def family(name: str) -> Family:
    """Return a family by name. Raises UsageError for one that is not there."""
    if name not in _FAMILIES:
        raise UsageError(f"kernel: unknown {name!r}; choose search or one of: {', '.join(KERNEL_NAMES)}")
    return _FAMILIES[name]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: a family's name and γ.

    ===========  ==================================================  ==========================
    name         k(x, y)                                             γ by the heuristic
    ===========  ==================================================  ==========================
    rbf          exp(−γ‖x − y‖²), the Gaussian                       1 / (2 · median ‖x − y‖²)
    laplace      exp(−√γ‖x − y‖), of the Euclidean distance          1 / median ‖x − y‖²
    imq          (1 + γ‖x − y‖²)^−½, the inverse multiquadric        1 / median ‖x − y‖²
    rq           (1 + γ‖x − y‖²)^−1, the rational quadratic, α = 1   1 / (2 · median ‖x − y‖²)
    linear       γ⟨x, y⟩                                             1 / mean ‖x‖²
    polynomial   (1 + γ⟨x, y⟩)³                                      1 / mean ‖x‖²
    ===========  ==================================================  ==========================

    Attributes:
        name: name of the family.
        gamma: inverse squared length scale, above 0.

    Raises:
        UsageError: an unknown family, or a gamma that is not a finite number above 0.
    """

    name: str
    gamma: float

    def __post_init__(self) -> None:
        family(self.name)
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise UsageError(f"gamma: expected a finite number above 0, or 'median', got {self.gamma}")

    @property
    def family(self) -> Family:
        """The family."""
        return family(self.name)

    def bound(self, largest_norm: float) -> float:
        """Return an upper bound of |k(x, y)| for centred vectors no longer than ``largest_norm``."""
        return self.family.bound(self.gamma * largest_norm**2)
