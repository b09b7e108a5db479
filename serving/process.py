"""The frame of a long-running process: its log, how it is told to end, and how it is while it starts and works."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from driftline.serving.telemetry.health import Health


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


def set_up_logging() -> None:
    """Log what Driftline says from INFO on, and what its libraries say from WARNING on, to standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("driftline").setLevel(logging.INFO)
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)  # it warns of every tenth of a second on a busy CPU


class Condition:
    """How a process is, for those who probe it: what it does before it works, and from then on how its work is.

    Attributes:
        doing: what it does while it starts.
        work: how its work is; None while it starts.
    """

    def __init__(self) -> None:
        self.doing = "starting"
        self.work: Health | None = None

    @property
    def health(self) -> Health:
        """The process's health, which is alive while it starts, and not ready."""
        return Health(self._live, self._ready)

    def _live(self) -> str | None:
        return None if self.work is None else self.work.live()

    def _ready(self) -> str | None:
        return self.doing if self.work is None else self.work.ready()
