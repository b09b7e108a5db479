"""The plan that kernel tasks share, and the files that they hand on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.spec import KernelSpec
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.sums import PartialSums
from driftline.components.projection.projected import ProjectedSample
from driftline.components.storage.objects.store import join


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """How the work on a projected sample is shared out.

    Attributes:
        sample: the projected sample.
        spec: the pass over it.
        tasks: number of tasks.
        rows_read: the most rows that one of them reads.
        seconds: how long planning took.
    """

    sample: ProjectedSample
    spec: KernelSpec
    tasks: int
    rows_read: int
    seconds: float

    def sums_place(self, task: int) -> str:
        """Return the file, in the run's working folder, that holds a task's sums."""
        key = hashlib.sha256(repr(self).encode()).hexdigest()[:16]
        return join(self.sample.working_folder, f"sums/{key}-{task:05d}.npz")


@dataclass(frozen=True, slots=True)
class TaskSums:
    """What one kernel task found, and how long it took."""

    sums: PartialSums | FeatureSums
    seconds: float


def write_task_sums(file: BinaryIO, task: TaskSums) -> None:
    """Write a task's sums as an uncompressed NumPy archive."""
    arrays: dict[str, NDArray[Any]] = {"seconds": np.array(task.seconds)}
    if isinstance(task.sums, FeatureSums):
        sums = task.sums
        arrays |= {"labelled": sums.labelled, "total": sums.total, "count": np.array(sums.blocks)}
    else:
        sums = task.sums
        arrays |= {"blocks": sums.blocks, "rows": sums.rows, "within": sums.within, "tiles": np.array(sums.tiles)}
    np.savez(cast("Any", file), allow_pickle=False, **arrays)


def read_task_sums(file: BinaryIO) -> TaskSums:
    """Read what :func:`write_task_sums` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        seconds = float(arrays["seconds"])
        if "labelled" in arrays:
            return TaskSums(FeatureSums(arrays["labelled"], arrays["total"], int(arrays["count"])), seconds)
        sums = PartialSums(arrays["blocks"], arrays["rows"], arrays["within"], int(arrays["tiles"]))
        return TaskSums(sums, seconds)
