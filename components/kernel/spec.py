"""The specification of a pass over a pair of samples: every kernel task reads the same one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.components.drift_settings import (
    MEDIAN,
    SEARCH,
    MethodChoice,
    check_features,
    check_kernel,
    choose_method,
    parse_gamma,
)
from driftline.components.kernel.theory.bandwidth import Scale, heuristic_kernel
from driftline.components.kernel.theory.collection import Collection, search_collection
from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.permutations import Bins
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.kernel.theory.subsample import MeanSquares, mean_squares
from driftline.components.kernel.tiles.device import Precision
from driftline.components.kernel.tiles.engine import accumulator, choose_precision
from driftline.components.kernel.tiles.feature_sums import FREQUENCIES
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.label_panels import LabelPanels
from driftline.components.kernel.tiles.sums import SumAccumulator


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """A pass over a pooled sample.

    Attributes:
        n: rows of the reference, which come first.
        m: rows of the current sample.
        largest_norm: no vector is longer than this.
        choice: how MMD² is estimated and judged.
        collection: the kernels and their weights.
        squares: mean squares of the kernels, from a few rows.
        block: rows of a block of the grid.
        precision: dtype of a tile.
        seed: seed of the permutations and of random features.
        cuts: each permutation's cut (:mod:`driftline.components.kernel.theory.permutations`).
    """

    n: int
    m: int
    largest_norm: float
    choice: MethodChoice
    collection: Collection
    squares: MeanSquares
    block: int
    precision: Precision
    seed: int
    cuts: tuple[int, ...]

    @property
    def grid(self) -> BlockGrid:
        """The block grid."""
        return BlockGrid(self.n, self.m, self.block, halves=self.choice.method == "cross")

    @property
    def panels(self) -> LabelPanels:
        """The labels of each block's bins."""
        return LabelPanels(self.seed, np.array(self.cuts, np.uint64), Bins.of(self.n, self.m), self.grid)

    def accumulator(self, tiles: NDArray[np.int32]) -> SumAccumulator:
        """Return an accumulator for the sums of some tiles."""
        return accumulator(tiles, self.grid, self.collection.kernels, len(self.cuts), self.largest_norm)

    def features(self, dimension: int) -> list[RandomFeatures]:
        """Draw the random features of every kernel, for vectors of ``dimension`` numbers."""
        return [RandomFeatures.draw(kernel, dimension, FREQUENCIES, self.seed) for kernel in self.collection.kernels]

    def useful_tasks(self, tasks: int) -> int:
        """Return ``tasks``, or fewer where there is not so much to share out."""
        if self.choice.method == "features":
            return min(tasks, self.grid.blocks)
        return self.grid.useful_tasks(tasks)


def settle(
    z: NDArray[np.floating],
    reference: int,
    *,
    n: int,
    m: int,
    largest_norm: float,
    kernel: str,
    gamma: str | float,
    method: str,
    permutations: int,
    seed: int,
) -> KernelSpec:
    """Settle the method, the kernels, the grid and the permutations of a pass.

    Args:
        z: (k, d) centred vectors of a few rows of the pooled sample, chosen without regard to whose they are.
        reference: how many of them, the first, are of the reference.
        n: rows of the reference.
        m: rows of the current sample.
        largest_norm: no vector of the pooled sample is longer than this.
        kernel: name of a family, or ``"search"`` for many kernels at once.
        gamma: ``"median"`` or a number above 0.
        method: ``"exact"``, ``"cross"``, ``"features"`` or ``"auto"``.
        permutations: number of random permutations, B.
        seed: seed of the permutations and of random features.

    Raises:
        UsageError: an unknown name, or settings that exclude one another.
        DataError: all vectors are identical.
    """
    check_kernel(kernel, gamma)
    choice = choose_method(method, n, m)
    bandwidth = parse_gamma(gamma)
    if kernel == SEARCH:
        collection = search_collection(Scale.of(z))
    else:
        chosen = heuristic_kernel(kernel, z) if bandwidth == MEDIAN else Kernel(kernel, bandwidth)
        collection = Collection.single(chosen)
    if choice.method == "features":
        collection = _with_features(collection)
    kernels = collection.kernels
    cuts = () if choice.method == "cross" else Bins.of(n, m).cuts(seed, permutations).tolist()
    return KernelSpec(
        n=n,
        m=m,
        largest_norm=largest_norm,
        choice=choice,
        collection=collection,
        squares=mean_squares(z, reference, kernels),
        block=BlockGrid.of(n, m, halves=choice.method == "cross").block,
        precision=choose_precision(n + m, kernels, largest_norm),
        seed=seed,
        cuts=tuple(cuts),
    )


def _with_features(collection: Collection) -> Collection:
    """Leave out the kernels that have no random Fourier features."""
    kept = [place for place, kernel in enumerate(collection.kernels) if kernel.family.mixture is not None]
    if not kept:
        check_features(collection.kernels[0].name, "features")
    total = sum(collection.weights[place] for place in kept)
    return Collection(
        tuple(collection.kernels[place] for place in kept),
        tuple(collection.weights[place] / total for place in kept),
    )
