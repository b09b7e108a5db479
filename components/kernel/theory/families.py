"""Kernel functions by name.

A kernel is k(x, y) = f(γ·‖x − y‖²), f(γ·⟨x, y⟩) or f(√γ·‖x − y‖₁): a family's scalar function f (of a distance: its
radial function), applied to one of three arguments, and an inverse squared length scale γ. A matrix product gives the
first two for a whole tile of pairs. The L1 distance is no product: it costs d subtractions a pair, some three times as
much, and is computed only where a kernel asks for it. All kernels of a pass share the product, and the L1 distances,
and a new family is one entry in the table below. Vectors are centred on the pooled sample's mean first, which distances
do not notice and which inner products are meant to be taken after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError

Argument = Literal["distance", "product", "manhattan"]
ScalarFunction = Callable[[jax.Array], jax.Array]
Mixture = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]
Gamma = TypeVar("Gamma", float, jax.Array)


@dataclass(frozen=True, slots=True)
class Family:
    """Kernels that differ in γ alone.

    Attributes:
        name: the name it is asked for by.
        argument: what γ multiplies: ``"distance"``, ‖x − y‖², or ``"product"``, ⟨x, y⟩ of centred vectors; or what √γ
            multiplies: ``"manhattan"``, the L1 distance ‖x − y‖₁ = Σₖ |xₖ − yₖ|.
        function: f, elementwise, of any float dtype.
        heuristic: γ by the heuristic is this divided by the median squared distance of the pooled sample, by its mean
            squared norm for a ``"product"``, by the square of its median L1 distance for ``"manhattan"``.
        bound: an upper bound of |f(u)| over |u| ≤ γ·r² (0 ≤ u for a distance) for vectors no longer than r; for
            ``"manhattan"`` over all u ≥ 0.
        mixture: draws scales s, of any shape, by which the kernel is a mixture of Gaussians and has random Fourier
            features: of a ``"distance"`` f(u) = E[exp(−s·u)]; of ``"manhattan"`` f(u) = E[exp(−s·u²)], each coordinate
            with a scale of its own, the kernel being a product over them. None for a ``"product"``.
    """

    name: str
    argument: Argument
    function: ScalarFunction
    heuristic: float
    bound: Callable[[float], float]
    mixture: Mixture | None

    def factor(self, gamma: Gamma) -> Gamma:
        """Return what the argument is multiplied by, γ or √γ, before the function is applied."""
        return cast("Gamma", gamma**0.5) if self.argument == "manhattan" else gamma


def _exponential(u: jax.Array) -> jax.Array:
    return jnp.exp(-u)


def _laplace(u: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.sqrt(u))


def _levy(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return 0.25 / rng.gamma(0.5, size=shape)


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


# Mixing distributions: the Laplace transform of each is its function. 1/(4G) with G of the gamma distribution of shape
# 1/2 is Lévy's distribution, whose transform is exp(−√u); the gamma distribution of shape α has (1 + u)^−α. With Lévy's
# scales a coordinate's frequency is Cauchy's, as it is for exp(−|u|) (Rahimi and Recht 2007, figure 1).
_FAMILIES: Final = {
    family.name: family
    for family in (
        Family("rbf", "distance", _exponential, 0.5, _one, lambda rng, shape: np.ones(shape)),
        Family("laplace-l2", "distance", _laplace, 1.0, _one, _levy),
        Family("laplace-l1", "manhattan", _exponential, 1.0, _one, _levy),
        Family("imq", "distance", _inverse_multiquadric, 1.0, _one, lambda rng, shape: rng.gamma(0.5, size=shape)),
        Family("rq", "distance", _rational_quadratic, 0.5, _one, lambda rng, shape: rng.gamma(1.0, size=shape)),
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
    laplace-l2   exp(−√γ‖x − y‖₂), of the Euclidean distance         1 / median ‖x − y‖²
    laplace-l1   exp(−√γ‖x − y‖₁), of the L1 distance                1 / (median ‖x − y‖₁)²
    imq          (1 + γ‖x − y‖²)^−½, the inverse multiquadric        1 / median ‖x − y‖²
    rq           (1 + γ‖x − y‖²)^−1, the rational quadratic, α = 1   1 / (2 · median ‖x − y‖²)
    linear       γ⟨x, y⟩                                             1 / mean ‖x‖²
    polynomial   (1 + γ⟨x, y⟩)³                                      1 / mean ‖x‖²
    ===========  ==================================================  ==========================

    γ is an inverse *squared* length in every family. scikit-learn's ``laplacian_kernel(gamma=g)`` is exp(−g‖x − y‖₁),
    with an inverse length g: it is ``laplace-l1`` with γ = g². scikit-learn has no ``laplace-l2``. Its
    ``rbf_kernel(gamma=g)`` is ``rbf`` with γ = g.

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
