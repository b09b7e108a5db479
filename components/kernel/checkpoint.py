"""What a kernel task has summed so far, kept beside the projected sample so that a task started again goes on there.

Sums have the same bits in whatever order their parts are added, so that a resumed task gives what an uninterrupted one
would have. The file goes with the run's working files.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Final

from driftline.components.errors import DAMAGED_ARCHIVE
from driftline.components.kernel.tasks import KernelPlan, TaskSums, read_task_sums, write_task_sums
from driftline.components.steps import LOGGER
from driftline.components.storage.store import create, exists, join, open_read

INTERVAL_S: Final = 30.0  # a task that takes less is done again from its start


class Checkpoint:
    """The file of one task.

    Args:
        plan: the plan that the task belongs to.
        task: the task's number.
    """

    def __init__(self, plan: KernelPlan, task: int) -> None:
        key = hashlib.sha256(repr(plan).encode()).hexdigest()[:16]
        self._uri = join(plan.uri, "checkpoints", f"{key}-{task}.npz")
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

    def offer(self, sums: Callable[[], TaskSums], *, last: bool = False) -> None:
        """Write the sums if the time has come: every half minute, and at the end of a task that took as long.

        Args:
            sums: makes what is to be written, with the seconds of this attempt.
            last: whether the task is done.
        """
        now = time.monotonic()
        if now - self._spoke < INTERVAL_S and not (last and exists(self._uri)):
            return
        self._spoke = now
        found = sums()
        with create(self._uri) as file:
            write_task_sums(file, TaskSums(found.sums, self._before + found.seconds))

    @property
    def seconds_before(self) -> float:
        """Seconds that earlier attempts took."""
        return self._before
