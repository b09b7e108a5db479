"""scikit-learn: three kernel matrices and their sums, the design that Driftline starts from.

In float64, which scikit-learn computes in whatever it is given: float32 is slower, since it is converted piece by
piece. Kernel matrices above 800 MB are computed by bands of rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import rbf_kernel
from worker import Array, Case, serve

LARGEST_BYTES = 800_000_000


def kernel_sum(a: NDArray[np.float64], b: NDArray[np.float64], gamma: float) -> float:
    """Return the sum of the kernel matrix of a and b."""
    band = max(1, LARGEST_BYTES // (8 * len(b)))
    return sum(float(rbf_kernel(a[i : i + band], b, gamma).sum()) for i in range(0, len(a), band))


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Compute MMD²_u; the statistic only, there is no test."""
    n, g = case.rows, case.gamma
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    within = kernel_sum(x64, x64, g) - n + kernel_sum(y64, y64, g) - n
    return {"statistic": within / (n * (n - 1)) - 2 * kernel_sum(x64, y64, g) / n**2}


if __name__ == "__main__":
    serve(run)
