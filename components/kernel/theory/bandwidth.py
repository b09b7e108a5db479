"""Length scales of the pooled sample, from which kernels take their γ.

The median heuristic: σ² is the median of the squared distances between distinct vectors of the pooled sample (Gretton
et al., "A kernel two-sample test", JMLR 2012, section 8); for kernels of the L1 distance σ is the median of that. Pairs
at distance 0, such as repeated texts, say nothing about the scale and are left out. What γ follows from it is each
family's own convention (:class:`driftline.components.kernel.theory.families.Kernel`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.kernel.theory.distances import manhattan_matrix
from driftline.components.kernel.theory.families import Kernel, family
from driftline.components.random_bits import SAMPLE_BANDWIDTH, choose_rows

SCALE_ROWS: Final = 1000
"""At most this many rows are looked at: half a million pairs. Their choice is random and blind to the labels,
so that the permutation test stays exact."""


def scale_rows(seed: int, rows: int) -> NDArray[np.int64]:
    """Return the rows of a pooled sample whose distances give the scale, ascending."""
    return choose_rows(seed, SAMPLE_BANDWIDTH, rows, SCALE_ROWS)


@dataclass(frozen=True, slots=True)
class Scale:
    """The lengths found in a pooled sample: distances between distinct vectors, and squared norms.

    Attributes:
        low: the 5th percentile of the squared distances.
        median: their median, σ².
        norm: mean squared norm of the centred vectors.
        l1_low: the 5th percentile of the L1 distances, not squared.
        l1_median: their median.
    """

    low: float
    median: float
    norm: float
    l1_low: float
    l1_median: float

    @classmethod
    def of(cls, z: NDArray[np.floating]) -> Self:
        """Measure the rows of z, (k, d). Memory: some 50·k² bytes.

        Raises:
            DataError: all vectors are identical, so that there is no distance to measure.
        """
        pairs = _Pairs(z)
        low, median = pairs.squared(0.05, 0.5)
        l1_low, l1_median = pairs.manhattan(0.05, 0.5)
        return cls(low, median, pairs.norm, l1_low, l1_median)


def heuristic_kernel(name: str, z: NDArray[np.floating]) -> Kernel:
    """Return the kernel of that name with γ by its family's heuristic, for the rows of z, (k, d).

    Raises:
        DataError: all vectors are identical, so that there is no distance to measure.
    """
    chosen = family(name)
    pairs = _Pairs(z)
    match chosen.argument:
        case "distance":
            (square,) = pairs.squared(0.5)
        case "product":
            square = pairs.norm
        case "manhattan":
            square = pairs.manhattan(0.5)[0] ** 2
    return Kernel(name, chosen.heuristic / square)


class _Pairs:
    """The pairs of distinct rows of z, (k, d), each once, on which lengths are measured.

    Raises:
        DataError: there is none.
    """

    def __init__(self, z: NDArray[np.floating]) -> None:
        z = np.asarray(z, np.float64)
        self._z = z - z.mean(axis=0)
        norms = np.einsum("ij,ij->i", self._z, self._z)
        both = norms[:, None] + norms[None, :]
        squares = both - 2 * (self._z @ self._z.T)
        # Below this, what is left of the difference is rounding: the two vectors are the same.
        self._apart = (squares > 8 * np.finfo(np.float64).eps * both) & np.tri(len(z), k=-1, dtype=bool)
        self._squared = squares[self._apart]
        if not len(self._squared):
            raise DataError(
                f"bandwidth: all {len(z)} vectors looked at are identical, so the median distance is 0; "
                "check that the embeddings differ from text to text, or name one kernel and give its gamma"
            )
        self.norm = float(norms.mean())

    def squared(self, *shares: float) -> list[float]:
        """Return quantiles of the squared distances."""
        return _quantiles(self._squared, *shares)

    def manhattan(self, *shares: float) -> list[float]:
        """Return quantiles of the L1 distances."""
        return _quantiles(manhattan_matrix(self._z)[self._apart], *shares)


def _quantiles(values: NDArray[np.float64], *shares: float) -> list[float]:
    return [float(value) for value in np.quantile(np.sort(values), shares)]
