"""Collections of kernels that one pass evaluates together, and the one that the kernel search looks through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from driftline.components.errors import UsageError
from driftline.components.kernel.theory.bandwidth import Scale
from driftline.components.kernel.theory.families import Kernel


@dataclass(frozen=True, slots=True)
class Collection:
    """Kernels, and their weights where they are combined.

    Attributes:
        kernels: the kernels, at least one.
        weights: as many weights, each above 0, summing to 1.

    Raises:
        UsageError: there is no kernel, not one weight for each kernel, or the weights do not sum to 1.
    """

    kernels: tuple[Kernel, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.kernels:
            raise UsageError("kernels: expected at least one kernel to search over, got none")
        if len(self.weights) != len(self.kernels):
            raise UsageError(f"weights: expected one for each of {len(self.kernels)} kernels, got {len(self.weights)}")
        if not (all(weight > 0 for weight in self.weights) and math.isclose(sum(self.weights), 1.0, rel_tol=1e-9)):
            raise UsageError(f"weights: expected shares above 0 that sum to 1, got {self.weights}")

    @classmethod
    def single(cls, kernel: Kernel) -> Self:
        """Return the collection of one kernel."""
        return cls((kernel,), (1.0,))


def search_collection(scale: Scale) -> Collection:
    """Return the kernels that a search looks through by default, for a sample of that scale.

    Lengths from that of the whole sample to that of what lies within a mode, of both distances, and one kernel that
    looks at moments. They were chosen on a development set of 50 alternatives apart from those of the statistical bench
    (`tests/bench/level_power.py`), from some thirty kernels, so that the search is nowhere much weaker than MMD-FUSE:

    ============  ==============================  ======  =========================================================
    family        γ                               weight  for
    ============  ==============================  ======  =========================================================
    rbf           1 / median                      1       shifts of the whole sample
    rbf           4 / median                      4       spread, correlation, clusters; the median heuristic: 1/2
    rbf           2 / low, ≤ 128 / median         32      structure within modes, small groups of rows
    laplace-l2    16 / low, ≤ 2048 / median       6       the same, rougher, and rows that are nearly alike
    laplace-l1    (2 / L1 median)²                4       tails, skewness and rough edges of single coordinates
    laplace-l1    (2 / L1 low)², L1 low ≥ 1/32    16      the same, within modes
                  of its median
    polynomial    1 / norm                        1       means, covariances and skewness, in any direction
    ============  ==============================  ======  =========================================================

    Fine kernels weigh far more than wide ones since what only they see is easily lost among chance, and what wide ones
    see they see clearly. A weight is about the share of the level that a kernel has.

    Lengths are taken from quantiles of the distances since their ratio tells the dimension: in one dimension the 5th
    percentile of the squares is a hundredth of the median, and there is fine structure to look for; in a hundred
    dimensions all distances are nearly alike, and so are the lengths.

    Args:
        scale: the lengths found in the pooled sample, blind to which row is whose.

    Cost: each kernel costs a pass over the tiles' entries; all share the product that gives the distances, and the two
    of the L1 distance the sum that gives that.
    """
    within = max(scale.low, scale.median / 64)
    l1_within = max(scale.l1_low, scale.l1_median / 32)
    counted = (
        (Kernel("rbf", 1 / scale.median), 1),
        (Kernel("rbf", 4 / scale.median), 4),
        (Kernel("rbf", 2 / within), 32),
        (Kernel("laplace-l2", 16 / max(scale.low, scale.median / 128)), 6),
        (Kernel("laplace-l1", (2 / scale.l1_median) ** 2), 4),
        (Kernel("laplace-l1", (2 / l1_within) ** 2), 16),
        (Kernel("polynomial", 1 / scale.norm), 1),
    )
    total = sum(count for _, count in counted)
    return Collection(tuple(kernel for kernel, _ in counted), tuple(count / total for _, count in counted))
