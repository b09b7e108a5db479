"""The two-sample test written straight from its definition, dense and in float64: what the engine is compared with."""

from __future__ import annotations

import numpy as np


def rbf_gram(z: np.ndarray, gamma: float) -> np.ndarray:
    """Return the kernel matrix (N, N) from differences of vectors, its diagonal 0."""
    z = np.asarray(z, np.float64)
    squared = np.empty((len(z), len(z)))
    for i, row in enumerate(z):
        squared[i] = ((z - row) ** 2).sum(axis=1)
    gram = np.exp(-gamma * squared)
    np.fill_diagonal(gram, 0.0)
    return gram


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
