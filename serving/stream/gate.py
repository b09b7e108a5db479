"""Which results may still be written: the one place where reading anew and writing meet."""

from __future__ import annotations

import threading


class Gate:
    """Lets through what was read in the current attempt, one write at a time.

    An attempt is a stretch of reading from the committed offsets on. When a write fails, or partitions are handed
    around, what is in hand is void: it is read again, in the next attempt. Were a batch written behind one that was
    not, the records of that one would be lost.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._attempt = 0
        self._open = True
        self._writing = False

    @property
    def is_open(self) -> bool:
        """Whether the current attempt's results may be written."""
        return self._open

    def enter(self, attempt: int) -> bool:
        """Begin to write; return whether it is allowed."""
        with self._changed:
            self._writing = self._open and attempt == self._attempt
            return self._writing

    def leave(self, *, written: bool) -> None:
        """Have written, or failed to; nothing passes then until the next attempt."""
        with self._changed:
            self._writing = False
            self._open = self._open and written
            self._changed.notify_all()

    def shut(self, timeout_s: float) -> bool:
        """Let nothing more through in this attempt; return whether the write under way, if any, has ended in time."""
        with self._changed:
            self._open = False
            return self._changed.wait_for(lambda: not self._writing, timeout_s)

    def reopen(self) -> int:
        """Begin the next attempt and return its number."""
        with self._changed:
            self._attempt += 1
            self._open = True
            return self._attempt
