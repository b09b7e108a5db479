"""How far a task of the backfill is: rows done, rows a second, time left."""

from __future__ import annotations

from typing import Final

from driftline.components.steps import StepClock

_INTERVAL_S: Final = 2.0  # often enough for a bar, seldom enough for a log of hours


class RowProgress:
    """Counts a task's rows and logs them, at most every two seconds.

    Rows whose vectors were there already are done but tell nothing of the rate: only rows that were embedded by this
    task, over the time since it began to, make rows a second and time left.

    Args:
        clock: the task's.
        rows: all rows of the task's share.
    """

    def __init__(self, clock: StepClock, rows: int) -> None:
        self._clock = clock
        self._rows = rows
        self._began: float | None = None
        self._spoke = clock.seconds
        self._kept = 0
        self.embedded = 0

    def begin(self) -> None:
        """Say that encoding begins now; the first time counts."""
        if self._began is None:
            self._began = self._clock.seconds

    def keep(self, rows: int) -> None:
        """Count rows that need no encoding."""
        self._kept += rows
        self._say()

    def embed(self, rows: int) -> None:
        """Count rows that were embedded just now."""
        self.embedded += rows
        self._say()

    def _say(self) -> None:
        now = self._clock.seconds
        if now - self._spoke < _INTERVAL_S:
            return
        self._spoke = now
        done = self._kept + self.embedded
        spent = now - self._began if self._began is not None else 0.0
        rate = self.embedded / spent if spent > 0 else 0.0
        self._clock.log(
            "progress",
            done=done,
            of=self._rows,
            unit="texts",
            resumed=self._kept,
            per_second=round(rate, 1),
            seconds_left=round((self._rows - done) / rate, 1) if rate > 0 else None,
        )
