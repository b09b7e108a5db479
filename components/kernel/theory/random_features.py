"""Random Fourier features: kernels as inner products of vectors.

A kernel of the difference x − y is the mean of cos(ω·(x − y)) over random frequencies ω (Bochner). For the Gaussian
exp(−γ‖x − y‖²) they are normal with variance 2γ (Rahimi and Recht, "Random features for large-scale kernel machines",
NeurIPS 2007); the other families are mixtures of Gaussians over the scale s, so that ω is normal with variance 2γs. A
kernel of the Euclidean distance has one scale for all coordinates; the Laplace kernel of the L1 distance, a product
over the coordinates, one for each, which makes them independent Cauchy variables of scale √γ.
With F frequencies and φ(z) = [cos ω·z, sin ω·z]/√F, the inner product φ(x)·φ(y) has mean k(x, y), and ‖φ(x)‖² = 1.

The mean of φ over a sample stands for the whole sample, so that MMD² costs one pass over N rows, not N² pairs. The
price is an error of the order of 1/√F in each kernel value, which
:mod:`driftline.components.mmd.statistic` states for MMD².

NumPy's products, and cosines and sines by a program of LLVM's, of which both come at once; no JAX,
since the serving process uses it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.llvm_codegen import Compiled, VectorCode, host_registers
from driftline.components.random_bits import FEATURE_FREQUENCIES

if TYPE_CHECKING:
    from driftline.components.kernel.theory.families import Kernel

_INDEPENDENT_GROUPS: Final = 16
CHUNK_ROWS: Final = 256
"""Rows that are mapped at once: with 512 frequencies their features take 1 MiB, which stays in a core's cache."""


@dataclass(frozen=True, slots=True)
class RandomFeatures:
    """Random frequencies of one kernel. Memory: 4·d·F bytes.

    Attributes:
        frequencies: (d, F) float32, a frequency a column.
        group: columns [0, group), [group, 2·group), … are independent groups; inside one they are orthogonal.
            1 when all columns are independent.
    """

    frequencies: NDArray[np.float32]
    group: int = 1

    @classmethod
    def draw(cls, kernel: Kernel, dimension: int, count: int, seed: int, *, orthogonal: bool = True) -> Self:
        """Draw the frequencies of a kernel.

        The same arguments give the same frequencies with one version of NumPy on one kind of machine; tasks that
        share a pass use one image, and a detector that outlives a run stores :attr:`frequencies`.

        Args:
            kernel: a kernel of a distance.
            dimension: d, the length of the vectors, at least 1.
            count: F, at least 1.
            seed: seed, from 0.
            orthogonal: draw the directions orthogonal to each other in equal groups of up to d columns, and at least
                16 groups. Each frequency keeps its distribution, so that the mean of φ(x)·φ(y) stays k(x, y), and its
                variance falls (Yu et al., "Orthogonal random features", NeurIPS 2016). Without effect for a kernel of
                the L1 distance, whose frequencies have no direction of their own.

        Raises:
            UsageError: a kernel that has no random features, or a dimension or count below 1.
        """
        family = kernel.family
        mixture = family.mixture
        if mixture is None:
            raise UsageError(
                f"kernel: {kernel.name!r} has no random Fourier features, for it is not a function of a distance; "
                "use rbf, laplace-l2, laplace-l1, imq or rq, or --method exact"
            )
        if dimension < 1 or count < 1:
            raise UsageError(
                f"features: expected at least 1 dimension and at least 1 frequency, got {dimension} and {count}"
            )
        rng = np.random.default_rng([seed, FEATURE_FREQUENCIES])
        by_coordinate = family.argument == "manhattan"
        scales = mixture(rng, (dimension, count) if by_coordinate else (count,))
        group = _group(dimension, count) if orthogonal and not by_coordinate else 1
        normal = rng.standard_normal((dimension, count)) if group == 1 else _orthogonal(rng, dimension, count, group)
        return cls((normal * np.sqrt(2 * kernel.gamma * scales)).astype(np.float32), group)

    @property
    def dimension(self) -> int:
        """Length of the vectors, d."""
        return self.frequencies.shape[0]

    @property
    def count(self) -> int:
        """Number of frequencies, F; a vector has 2F features."""
        return self.frequencies.shape[1]

    def map(self, z: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return φ of each row: [cos ω·z for each ω, sin ω·z for each ω]/√F.

        Subtract the reference's mean first. Phases ω·z are float32: their error, and with it that of a feature, is
        about 10⁻⁷·‖ω‖·‖z‖, small for vectors about as long as the kernel's length scale. Where a phase exceeds some
        10⁶, as for vectors thousands of length scales long or for the few highest frequencies of the heavy-tailed
        Laplace kernels, the feature is an arbitrary number in [−1, 1]/√F; there the kernel of different vectors is 0
        but for noise in any case. A phase past float32, or a vector that is not finite, makes features that are NaN.

        The same rows have the same bits. One row in another place may differ by that rounding: on some processors a
        matrix product adds up in an order that depends on it.

        Args:
            z: (rows, d) of any float dtype.

        Returns:
            (rows, 2F) float32, rows of norm 1.

        Raises:
            DataError: rows that are not of d numbers.
        """
        if z.ndim != 2 or z.shape[1] != self.dimension:
            raise DataError(
                f"features: expected rows of {self.dimension} numbers, got an array of shape {z.shape}; "
                "give vectors of the projection that the features were drawn for"
            )
        features = np.empty((len(z), 2 * self.count), np.float32)
        phases = np.empty((min(len(z), CHUNK_ROWS), self.count), np.float32)
        for start in range(0, len(z), CHUNK_ROWS):
            chunk = np.asarray(z[start : start + CHUNK_ROWS], np.float32)
            self.map_chunk(chunk, phases[: len(chunk)], features[start : start + CHUNK_ROWS])
        return features

    def map_chunk(self, chunk: NDArray[np.float32], phases: NDArray[np.float32], features: NDArray[np.float32]) -> None:
        """Write φ of a few rows into arrays that a caller uses again: new pages cost more than the cosines.

        Args:
            chunk: (rows, d), the vectors; at most some hundred, so that all of it stays in a core's cache.
            phases: (rows, F), contiguous; overwritten.
            features: (rows, 2F), contiguous; overwritten with what :meth:`map` returns.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            np.matmul(chunk, self.frequencies, out=phases)
            if self.count < _least_count():
                features[:] = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
                features *= np.float32(1 / math.sqrt(self.count))
                return
        _feature_program(self.count).call(phases.ctypes.data, features.ctypes.data, len(phases))


def _group(dimension: int, count: int) -> int:
    """Return the largest divisor of the count, at most d, that leaves enough groups to tell their spread."""
    most = max(1, min(dimension, count // _INDEPENDENT_GROUPS))
    return next(size for size in range(most, 0, -1) if count % size == 0)


def _orthogonal(rng: np.random.Generator, dimension: int, count: int, group: int) -> NDArray[np.float64]:
    """Return (d, F) columns, each standard normal, in independent groups of ``group`` columns orthogonal to each other.

    The directions are the Q of a normal matrix, uniform once its signs are fixed by those of R (Mezzadri, "How to
    generate random matrices from the classical compact groups", 2007); the lengths are those of normal vectors.
    """
    directions, upper = np.linalg.qr(rng.standard_normal((count // group, dimension, group)))
    directions = directions * np.sign(np.diagonal(upper, axis1=1, axis2=2))[:, None, :]
    columns = np.moveaxis(directions, 0, 1).reshape(dimension, count)
    return columns * np.sqrt(rng.chisquare(dimension, count))


_POINTERS: Final = ("phases", "features")
_INTEGERS: Final = ("rows",)


def _least_count() -> int:
    """Return the fewest frequencies that the program takes."""
    return host_registers().bytes // 4


@cache
def _feature_program(count: int) -> Compiled:
    """Return the program of [cos p, sin p]/√count, for float32.

    It takes the addresses _POINTERS and the _INTEGERS:

    ========  ==================================================================================
    phases    (rows, count)
    features  (rows, 2·count), cosines and then sines
    ========  ==================================================================================

    Args:
        count: frequencies, no fewer than :func:`_least_count`.
    """
    code = VectorCode("features", _POINTERS, _INTEGERS, single=True, lanes=_least_count())
    given, build = code.arguments, code.build
    scale = code.constant(1 / math.sqrt(count))
    last = code.index(count - code.lanes)
    with code.loop(code.index(0), given["rows"], 1) as row:
        phases = code.at(given["phases"], code.times(row, count))
        cosines = code.at(given["features"], code.times(row, 2 * count))
        sines = code.at(cosines, code.index(count))
        with code.loop(code.index(0), code.index(count), code.lanes) as k:
            place = code.least(k, last)  # where the row ends within a vector, some are computed twice
            for values, target in zip(
                code.cosine_and_sine(code.load(code.at(phases, place))), (cosines, sines), strict=True
            ):
                code.store(build.fmul(values, scale), code.at(target, place))
    return code.compiled()
