"""Kernel functions by name.

A kernel here is a fixed symmetric function of a pair of vectors with |k| ≤ ``bound``. It works on coordinates that
were centred and scaled once (:meth:`Kernel.scale`), so that its tiles need no parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError


class Kernel(Protocol):
    """What the engine needs to know of a kernel."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""
        ...

    @property
    def gamma(self) -> float:
        """Inverse squared length scale."""
        ...

    @property
    def bound(self) -> float:
        """An upper bound of |k(x, y)|."""
        ...

    def scale(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return centred vectors (rows, d) in the coordinates that :meth:`tile` takes."""
        ...

    @staticmethod
    def tile(x: jax.Array, y: jax.Array) -> jax.Array:
        """Return k between the scaled rows of x (a, d) and of y (b, d): (a, b), of their dtype.

        A plain function of two arrays, traced once for all gammas.
        """
        ...


@dataclass(frozen=True, slots=True)
class RBF:
    """Gaussian kernel k(x, y) = exp(−γ‖x − y‖²)."""

    gamma: float
    name: str = "rbf"
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise UsageError(f"gamma: expected a finite number above 0, or 'median', got {self.gamma}")

    def scale(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return √γ·z: squared distances then are the exponents."""
        return math.sqrt(self.gamma) * z

    @staticmethod
    def tile(x: jax.Array, y: jax.Array) -> jax.Array:
        """Return exp(−‖x − y‖²) by way of one matrix product."""
        product = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
        squared = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None, :] - 2 * product
        return jnp.exp(-jnp.maximum(squared, 0))


_KERNELS: Final = {"rbf": RBF}
KERNEL_NAMES: Final = tuple(_KERNELS)


def check_kernel_name(name: str) -> None:
    """Raise UsageError for a kernel that is not there."""
    if name not in _KERNELS:
        raise UsageError(f"kernel: unknown {name!r}; choose one of: {', '.join(KERNEL_NAMES)}")


def make_kernel(name: str, gamma: float) -> Kernel:
    """Return the kernel of that name. Raises UsageError for an unknown name or a gamma out of range."""
    check_kernel_name(name)
    return _KERNELS[name](gamma)
