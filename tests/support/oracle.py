"""The two-sample test written straight from its definition, dense and in float64: what the engine is compared with."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.permutations import Bins, labels

# Of γ times the square of the distance, Euclidean or L1, or of γ times the inner product.
_FUNCTIONS = {
    "rbf": lambda u: np.exp(-u),
    "laplace-l2": lambda u: np.exp(-np.sqrt(u)),
    "laplace-l1": lambda u: np.exp(-np.sqrt(u)),
    "imq": lambda u: (1 + u) ** -0.5,
    "rq": lambda u: 1 / (1 + u),
    "linear": lambda u: u,
    "polynomial": lambda u: (1 + u) ** 3,
}


def function(name: str, u: np.ndarray) -> np.ndarray:
    """Return f(u) of a kernel's family."""
    return _FUNCTIONS[name](u)


def argument(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what a family's γ multiplies, (len(x), len(y)) float64, distances from differences of vectors."""
    if name in ("linear", "polynomial"):
        return x @ y.T
    if name == "laplace-l1":
        return cdist(x, y, "cityblock") ** 2
    return cdist(x, y, "sqeuclidean")


def gram(z: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Return the kernel matrix (N, N) from differences of vectors, its diagonal 0."""
    z = np.asarray(z, np.float64)
    values = function(kernel.name, kernel.gamma * argument(kernel.name, z, z))
    np.fill_diagonal(values, 0.0)
    return values


def rbf_gram(z: np.ndarray, gamma: float) -> np.ndarray:
    """Return the Gaussian kernel's matrix."""
    return gram(z, Kernel("rbf", gamma))


def row_labels(seed: int, permutations: int, n: int, m: int) -> np.ndarray:
    """Return the labels of rows, (n + m, 1 + B), as permuting whole bins gives them."""
    bins = Bins.of(n, m)
    whole = labels(seed, bins.cuts(seed, permutations), bins.reference, 0, bins.reference + bins.current)
    rest = [np.full((size % bins.rows, 1 + permutations), side, np.int8) for size, side in ((n, 1), (m, 0))]
    parts = np.split(np.repeat(whole, bins.rows, axis=0), [bins.reference * bins.rows])
    return np.concatenate([parts[0], rest[0], parts[1], rest[1]])


def mmd2(gram: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return MMD²_u of each column of 0/1 labels (N, B) by three means over the kernel matrix."""
    x = labels.astype(np.float64)
    y = 1.0 - x
    n, m = x.sum(axis=0), y.sum(axis=0)
    within_x = np.einsum("ib,ib->b", x, gram @ x) / (n * (n - 1))
    within_y = np.einsum("ib,ib->b", y, gram @ y) / (m * (m - 1))
    across = np.einsum("ib,ib->b", x, gram @ y) / (n * m)
    return within_x + within_y - 2 * across


def witness(gram: np.ndarray, n: int) -> np.ndarray:
    """Return each row's mean kernel value with the first n rows minus that with the rest, itself left out."""
    rows = len(gram)
    scores = np.empty(rows)
    for i in range(rows):
        others = np.delete(gram[i], i)
        cut = n - 1 if i < n else n
        scores[i] = others[:cut].mean() - others[cut:].mean()
    return scores
