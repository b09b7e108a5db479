"""What every kernel task needs to know, and the files that tasks hand on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.engine import Precision
from driftline.components.kernel.functions import Kernel, make_kernel
from driftline.components.kernel.labellings import LabelPanels
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import PartialSums


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """A pass over the kernel matrix of a projected sample.

    Attributes:
        uri: the projected sample, an embeddings dataset with the reference's rows first.
        n: rows of the reference.
        rows: rows of the pooled sample, N.
        block: rows of a block of the grid.
        kernel_name: name of the kernel.
        gamma: its inverse squared length scale.
        precision: dtype of a tile.
        seed: seed of the relabellings.
        cuts: each permutation's cut (:mod:`driftline.components.kernel.labellings`).
        tasks: number of tasks that share the tiles.
        seconds: how long planning took.
    """

    uri: str
    n: int
    rows: int
    block: int
    kernel_name: str
    gamma: float
    precision: Precision
    seed: int
    cuts: tuple[int, ...]
    tasks: int
    seconds: float

    @property
    def grid(self) -> BlockGrid:
        """The block grid."""
        return BlockGrid(self.rows, self.block)

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return make_kernel(self.kernel_name, self.gamma)

    @property
    def permutations(self) -> int:
        """Number of random relabellings, B."""
        return len(self.cuts)

    def panels(self) -> LabelPanels:
        """The labellings."""
        return LabelPanels(self.seed, np.array(self.cuts, np.uint64), self.n, self.rows, self.block)


@dataclass(frozen=True, slots=True)
class TaskSums:
    """What one kernel task found, and how long it took."""

    sums: PartialSums
    seconds: float


def write_task_sums(file: BinaryIO, task: TaskSums) -> None:
    """Write a task's sums as an uncompressed NumPy archive."""
    arrays: dict[str, NDArray[Any]] = {
        "blocks": task.sums.blocks,
        "rows": task.sums.rows,
        "within": task.sums.within,
        "tiles": np.array(task.sums.tiles),
        "seconds": np.array(task.seconds),
    }
    np.savez(cast("Any", file), allow_pickle=False, **arrays)


def read_task_sums(file: BinaryIO) -> TaskSums:
    """Read what :func:`write_task_sums` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        sums = PartialSums(arrays["blocks"], arrays["rows"], arrays["within"], int(arrays["tiles"]))
        return TaskSums(sums, float(arrays["seconds"]))
