"""The plan that kernel tasks share, and the files of sums that they leave.

The next step reads the files of all tasks, so that nothing of theirs travels by way of the cluster; and a task that is
started again goes on where its file ends. Sums have the same bits in whatever order their parts are added, so that a
resumed task gives what an uninterrupted one would have. The files go with the run's working files.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DAMAGED_ARCHIVE, DataError, StorageError
from driftline.components.kernel.spec import KernelSpec
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.sums import PartialSums
from driftline.components.projection.projected import ProjectedSample
from driftline.components.steps import LOGGER
from driftline.components.storage.objects.store import create, exists, join, open_read

INTERVAL_S: Final = 30.0
"""Seconds between checkpoints; a task that takes less is done again from its start."""


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """The work on a projected sample, split over tasks.

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
        known = repr(self).replace("'laplace-l2'", "'laplace'")  # the family's first name: a new one moves no file
        key = hashlib.sha256(known.encode()).hexdigest()[:16]
        return join(self.sample.working_folder, f"sums/{key}-{task:05d}.npz")


@dataclass(frozen=True, slots=True)
class TaskSums:
    """The sums of one kernel task, and the seconds it took."""

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
        if sums.computed_by != "llvm":
            arrays["computed_by"] = np.array(sums.computed_by)
    np.savez(cast("Any", file), allow_pickle=False, **arrays)


def read_task_sums(file: BinaryIO) -> TaskSums:
    """Read what :func:`write_task_sums` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        seconds = float(arrays["seconds"])
        if "labelled" in arrays:
            return TaskSums(FeatureSums(arrays["labelled"], arrays["total"], int(arrays["count"])), seconds)
        by = str(arrays["computed_by"]) if "computed_by" in arrays else "llvm"
        sums = PartialSums(arrays["blocks"], arrays["rows"], arrays["within"], int(arrays["tiles"]), by)
        return TaskSums(sums, seconds)


class Checkpoint:
    """The file of one task.

    Args:
        plan: the plan that the task belongs to.
        task: the task's number.
    """

    def __init__(self, plan: KernelPlan, task: int) -> None:
        self._uri = plan.sums_place(task)
        self._written = time.monotonic()
        self._before = 0.0

    def read(self) -> TaskSums | None:
        """Return the sums of an earlier attempt, or None where there is no file that can be read."""
        try:
            if not exists(self._uri):
                return None
            with open_read(self._uri) as file:
                found = read_task_sums(file)
        except DAMAGED_ARCHIVE as error:
            LOGGER.warning("%s: cannot be read (%s); the task begins anew", self._uri, error)
            return None
        self._before = found.seconds
        return found

    def offer(self, sums: Callable[[], TaskSums]) -> None:
        """Write the sums so far if the time has come, which it has every half minute.

        Args:
            sums: returns the sums so far, with the seconds of this attempt.
        """
        if time.monotonic() - self._written >= INTERVAL_S:
            self.write(sums())

    def write(self, sums: TaskSums) -> None:
        """Write sums, with the seconds of this attempt."""
        self._written = time.monotonic()
        with create(self._uri) as file:
            write_task_sums(file, TaskSums(sums.sums, self._before + sums.seconds))


def finished_sums(plan: KernelPlan, task: int) -> TaskSums:
    """Read the sums of a task that has ended.

    Raises:
        DataError: there is nothing, or it is damaged.
        StorageError: it cannot be read.
    """
    place = plan.sums_place(task)
    if not exists(place):
        raise DataError(
            f"{place}: the sums of kernel task {task + 1} of {plan.tasks} are missing; leave the folder alone while a "
            "run goes on, and start this one again"
        )
    try:
        with open_read(place) as file:
            return read_task_sums(file)
    except StorageError:
        raise
    except DAMAGED_ARCHIVE as error:
        raise DataError(
            f"{place}: the sums of kernel task {task + 1} of {plan.tasks} are damaged ({error}); start the run again"
        ) from error
