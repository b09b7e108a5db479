"""What the demonstration shows while it streams: a live table in a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from rich.live import Live
from rich.table import Table

from driftline.pipelines.console import STDERR

_LINE_INTERVAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """How the stream stands.

    Attributes:
        phase: what is being streamed.
        sent: records produced to the texts' topic.
        embedded: vectors on the embeddings topic.
        deleted: tombstones that went through.
        dead_letters: records that could not be embedded.
        archived: vectors in the archive.
        rate: vectors a second, lately.
        lag: records that the worker has not taken yet.
        p99_ms: of the server's answers to single texts, lately; NaN before the first.
        score: of the monitor, NaN before the first.
        threshold: what it is compared with, infinite in the first window.
        alarms: raised so far.
    """

    phase: str
    sent: int
    embedded: int
    deleted: int
    dead_letters: int
    archived: int
    rate: float
    lag: int
    p99_ms: float
    score: float
    threshold: float
    alarms: int

    def verdict(self) -> str:
        """Say how the stream looks."""
        if self.alarms:
            return "ALARM: the stream no longer looks like the reference"
        if not math.isfinite(self.threshold):
            return "filling the first window"
        return "looks like the reference"


class Show(Protocol):
    """Takes a reading, and shows it."""

    def __call__(self, reading: Reading) -> None:
        """Show how the stream stands."""
        ...


@contextmanager
def showing() -> Generator[Show]:
    """Yield what shows readings: as a table that stays in place in a terminal, else as a line every few seconds."""
    if STDERR.is_terminal:
        with Live(console=STDERR, auto_refresh=False) as live:
            yield lambda reading: live.update(table(reading), refresh=True)
        return
    spoke = -math.inf
    phase, alarms = "", 0

    def say(reading: Reading) -> None:
        nonlocal spoke, phase, alarms
        now = time.monotonic()
        if now - spoke >= _LINE_INTERVAL_S or (reading.phase, reading.alarms) != (phase, alarms):
            spoke, phase, alarms = now, reading.phase, reading.alarms
            STDERR.print(line(reading), markup=False)

    yield say


def table(reading: Reading) -> Table:
    """Return a reading as a table."""
    shown = Table(title=reading.phase, title_justify="left", box=None, padding=(0, 3, 0, 0), show_header=False)
    shown.add_column(style="dim")
    shown.add_column(justify="right")
    shown.add_column(style="dim")
    shown.add_column(justify="right")
    style = "bold red" if reading.alarms else "green"
    shown.add_row("records sent", f"{reading.sent:,}", "vectors a second", f"{reading.rate:,.0f}")
    shown.add_row("vectors", f"{reading.embedded:,}", "lag, records", f"{reading.lag:,}")
    shown.add_row("deletions", f"{reading.deleted:,}", "server's p99", _milliseconds(reading.p99_ms))
    shown.add_row("dead letters", f"{reading.dead_letters:,}", "drift score", f"[{style}]{_score(reading.score)}[/]")
    shown.add_row("archived", f"{reading.archived:,}", "threshold", _score(reading.threshold))
    shown.caption = f"[{style}]{reading.verdict()}[/]"
    return shown


def line(reading: Reading) -> str:
    """Return a reading as one line."""
    return (
        f"{reading.phase}: {reading.sent:,} sent, {reading.embedded:,} vectors, {reading.rate:,.0f}/s, "
        f"lag {reading.lag:,}, p99 {_milliseconds(reading.p99_ms)}, "
        f"drift score {_score(reading.score)} of {_score(reading.threshold)}; {reading.verdict()}"
    )


def _milliseconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f} ms"


def _score(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"
