"""The tests that Driftline's search is measured against, each from its publication, with the kernel matrix in memory.

MMD-FUSE: Biggs, Schrab, Gretton, "MMD-FUSE: learning and combining kernels for two-sample testing without data
splitting", NeurIPS 2023. MMDAgg: Schrab, Kim, Albert, Laurent, Guedj, Gretton, "MMD aggregated two-sample test",
JMLR 2023. Both with the defaults of their authors' packages: the Gaussian kernel on Euclidean distances and the Laplace
kernel on L1 distances, ten bandwidths each by the package's own rule, uniform weights, 2,000 permutations (MMDAgg: two
sets of 2,000, signs instead of permutations where the samples are of one size). And the plain permutation test with the
Gaussian kernel at the median heuristic.

All are written over arrays of shape (N, N) for N pooled rows, float32: for the sizes of the statistical bench.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
Matrix = NDArray[np.float32]
Test = Callable[[Array, Array, np.random.Generator, float], bool]

METRICS: Final[tuple[tuple[str, Literal["cityblock", "euclidean"]], ...]] = (
    ("laplace", "cityblock"),
    ("gaussian", "euclidean"),
)
PERMUTATIONS: Final = 2000
BANDWIDTHS: Final = 10
BISECTIONS: Final = 50


def random_labels(rng: np.random.Generator, n: int, m: int, permutations: int) -> Matrix:
    """Return 0/1 labels, (n + m, 1 + permutations): the observed labels first, then random ones with n ones each."""
    labels = np.zeros((n + m, 1 + permutations), np.float32)
    labels[:n] = 1
    labels[:, 1:] = rng.permuted(labels[:, 1:], axis=0)
    return labels


def unbiased_mmd2(kernel: Matrix, labels: Matrix, n: int, m: int) -> Array:
    """Return the unbiased MMD² of each permutation, (1 + B,); the kernel's diagonal is set to zero on the way."""
    np.fill_diagonal(kernel, 0)
    within = np.einsum("ib,ib->b", labels, kernel @ labels).astype(np.float64)
    touching = (kernel.sum(axis=1) @ labels).astype(np.float64)
    total = float(kernel.sum(dtype=np.float64))
    return within / (n * (n - 1)) + (total - 2 * touching + within) / (m * (m - 1)) - 2 * (touching - within) / (n * m)


def _distances(z: Array) -> Iterator[tuple[str, Matrix, Array]]:
    """Yield the name of the kernel, its distance matrix, and the distances of pairs in ascending order.

    As in both packages, each row's distance to itself counts among the pairs, and zeros count as the median.
    """
    for name, metric in METRICS:
        matrix = cdist(z, z, metric)
        pairs: Array = matrix[np.triu_indices(len(z))]
        pairs[pairs == 0] = np.median(pairs)
        pairs.sort()
        yield name, matrix.astype(np.float32), pairs


def fuse_kernels(z: Array) -> Iterator[Matrix]:
    """Yield the 20 kernel matrices of MMD-FUSE: bandwidths evenly spaced between two quantiles of the distances."""
    for name, matrix, pairs in _distances(z):
        shortest, longest = (pairs[int(len(pairs) * share)] for share in (0.05, 0.95))
        for bandwidth in np.linspace(shortest / 2, longest * 2, BANDWIDTHS):
            scaled = matrix / np.float32(bandwidth)
            yield np.exp(-np.float32(np.sqrt(2)) * scaled) if name == "laplace" else np.exp(-scaled * scaled / 2)


def agg_kernels(z: Array, n: int) -> Iterator[Matrix]:
    """Yield the 20 kernel matrices of MMDAgg: bandwidths in geometric progression.

    Unlike MMD-FUSE's, they are set by the distances between the rows of x and those of y, at most 500 of each; the
    packages pair row i of x with the rows of y from i on.
    """
    looked_at = min(n, len(z) - n, 500)
    for name, metric in METRICS:
        pairs = cdist(z[:looked_at], z[n : n + looked_at], metric)[np.triu_indices(looked_at)]
        pairs[pairs == 0] = np.median(pairs)
        pairs.sort()
        shortest = max(pairs[int(len(pairs) * 0.05)], 0.1) if pairs[0] < 0.1 else pairs[0]
        longest = max(pairs[-1], 0.3)
        matrix = cdist(z, z, metric).astype(np.float32)
        for bandwidth in np.geomspace(shortest / 2, longest * 2, BANDWIDTHS):
            scaled = matrix / np.float32(bandwidth)
            yield np.exp(-scaled) if name == "laplace" else np.exp(-scaled * scaled)


def mmd_fuse(x: Array, y: Array, rng: np.random.Generator, level: float) -> bool:
    """MMD-FUSE: a soft maximum over kernels of MMD² divided by the norm of the kernel's matrix.

    Its sharpness is the package's: √(s(s − 1)) times the publication's, with s the smaller sample's rows.
    """
    n, m = len(x), len(y)
    labels = random_labels(rng, n, m, PERMUTATIONS)
    smaller = min(n, m)
    pairs = smaller * (smaller - 1)
    exponents = []
    for kernel in fuse_kernels(np.concatenate([x, y])):
        values = unbiased_mmd2(kernel, labels, n, m)
        exponents.append(pairs**1.5 * values / np.sqrt(float(np.vdot(kernel, kernel))))
    fused = np.logaddexp.reduce(np.stack(exponents), axis=0)
    return bool(np.mean(fused >= fused[0]) <= level)


def _random_signs(rng: np.random.Generator, n: int, count: int) -> Matrix:
    """Return signs of the wild bootstrap, (2n, 1 + count): the observed ones first; row i of y has the other of x's."""
    signs = rng.choice(np.array([-1, 1], np.float32), size=(n, 1 + count))
    signs[:, 0] = 1
    return np.concatenate([signs, -signs])


def mmd_agg(x: Array, y: Array, rng: np.random.Generator, level: float) -> bool:
    """MMDAgg: rejects where any kernel's MMD² exceeds its own quantile, whose level is corrected on a second set."""
    n, m = len(x), len(y)
    labels = random_labels(rng, n, m, 2 * PERMUTATIONS) if n != m else _random_signs(rng, n, 2 * PERMUTATIONS)
    own = np.arange(n)
    rows = []
    for kernel in agg_kernels(np.concatenate([x, y]), n):
        if n != m:
            rows.append(unbiased_mmd2(kernel, labels, n, m))
            continue
        for block in (kernel[:n, :n], kernel[:n, n:], kernel[n:, :n], kernel[n:, n:]):
            block[own, own] = 0
        rows.append(np.einsum("ib,ib->b", labels, kernel @ labels).astype(np.float64) / (n * (n - 1)))
    values = np.stack(rows)
    first, second = np.sort(values[:, : 1 + PERMUTATIONS], axis=1), values[:, 1 + PERMUTATIONS :]
    weight = 1 / len(values)

    def false_alarms(u: float) -> float:
        place = int(np.ceil((1 + PERMUTATIONS) * (1 - u * weight))) - 1
        return float(np.mean((second > first[:, place, None]).any(axis=0)))

    lowest, highest = 0.0, 1 / weight
    for _ in range(BISECTIONS):
        middle = (lowest + highest) / 2
        lowest, highest = (middle, highest) if false_alarms(middle) <= level else (lowest, middle)
    own_p = np.mean(first >= values[:, :1], axis=1)
    return bool((own_p <= lowest * weight).any())


def median_rbf(x: Array, y: Array, rng: np.random.Generator, level: float) -> bool:
    """Test by permutations with the Gaussian kernel exp(−‖x − y‖² / (2·median)) over pairs that are apart."""
    z = np.concatenate([x, y])
    squared = cdist(z, z, "sqeuclidean")
    pairs = squared[np.triu_indices(len(z), k=1)]
    median = np.median(pairs[pairs > 0])
    kernel = np.exp(squared.astype(np.float32) * np.float32(-0.5 / median))
    values = unbiased_mmd2(kernel, random_labels(rng, len(x), len(y), PERMUTATIONS), len(x), len(y))
    return bool(np.mean(values >= values[0]) <= level)


PEERS: Final[dict[str, Test]] = {"MMD-FUSE": mmd_fuse, "MMDAgg": mmd_agg, "median heuristic": median_rbf}
