"""What a kernel task has summed, in a file beside the projected sample: at its end, and every half minute on the way.

The next step reads the files of all tasks, so that nothing of theirs travels by way of the cluster; and a task that is
started again goes on where its file ends. Sums have the same bits in whatever order their parts are added, so that a
resumed task gives what an uninterrupted one would have. The files go with the run's working files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from driftline.components.errors import DAMAGED_ARCHIVE, DataError, StorageError
from driftline.components.kernel.tasks import KernelPlan, TaskSums, read_task_sums, write_task_sums
from driftline.components.steps import LOGGER
from driftline.components.storage.objects.store import create, exists, open_read

INTERVAL_S: Final = 30.0  # a task that takes less is done again from its start


class Checkpoint:
    """The file of one task.

    Args:
        plan: the plan that the task belongs to.
        task: the task's number.
    """

    def __init__(self, plan: KernelPlan, task: int) -> None:
        self._uri = plan.sums_place(task)
        self._spoke = time.monotonic()
        self._before = 0.0

    def read(self) -> TaskSums | None:
        """Return what an earlier attempt summed, or None. One that cannot be read is as good as none."""
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
            sums: makes what is to be written, with the seconds of this attempt.
        """
        if time.monotonic() - self._spoke >= INTERVAL_S:
            self.write(sums())

    def write(self, sums: TaskSums) -> None:
        """Write sums, with the seconds of this attempt."""
        self._spoke = time.monotonic()
        with create(self._uri) as file:
            write_task_sums(file, TaskSums(sums.sums, self._before + sums.seconds))


def finished_sums(plan: KernelPlan, task: int) -> TaskSums:
    """Read what a task has summed, after it has ended.

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
