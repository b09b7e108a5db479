"""How a long-running process is told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Set once, by a signal or by the process itself; whoever runs a loop looks at it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask every loop to end."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether the process is to end."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until the process is to end; return whether it is."""
        return self._event.wait(seconds)


@contextmanager
def stopping_on_signals() -> Generator[StopSignal]:
    """Yield what SIGTERM and SIGINT set, so that work in hand is finished; a second signal ends the process at once."""
    stop = StopSignal()

    def told(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
