"""The archive's loop: poll, add, write what is due, compact and remove expired files."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from driftline.components.errors import StorageError, UsageError
from driftline.serving.archive.dead_letter_writer import DeadLetters
from driftline.serving.archive.layout import Models
from driftline.serving.archive.metrics import ArchiveMetrics
from driftline.serving.archive.partition import PartitionArchive
from driftline.serving.archive.rows import read_event
from driftline.serving.archive.settings import ArchiveSettings
from driftline.serving.archive.source import Source
from driftline.serving.archive.state import FencedError
from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.process import StopSignal
from driftline.serving.records.record import Record
from driftline.serving.telemetry.health import Health

LOGGER: Final = logging.getLogger("driftline.archive")

_POLL_S: Final = 0.5  # the longest delay until a stop, or an age that is reached, is noticed
_POLL_RECORDS: Final = 2000
_REQUESTS_AT_ONCE: Final = 16  # a request to an object store is waiting, mostly
_MAINTENANCE_INTERVAL_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0  # a store that is back is noticed within it
_STUCK_S: Final = 1800.0  # longer than an index of many millions of ids takes

_TRANSIENT: Final = (StorageError, UnavailableError, FencedError, sqlite3.Error)


class Archiver:
    """Archives the partitions that the consumer group assigns to it. One thread runs it; others may ask its health.

    Args:
        settings: what to archive, and where.
        source: the topic.
        letters: takes records that are no embeddings.
        metrics: where to count.
        index_folder: local folder for the indexes of ids, of this worker alone.
        clock: seconds since 1970 UTC.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        settings: ArchiveSettings,
        source: Source,
        letters: DeadLetters,
        metrics: ArchiveMetrics,
        index_folder: Path,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._source = source
        self._letters = letters
        self._metrics = metrics
        self._index_folder = index_folder
        self._clock = clock
        self._monotonic = monotonic
        self._models = Models(settings.out)
        self._pool = ThreadPoolExecutor(_REQUESTS_AT_ONCE, "driftline-archive")
        self._held: dict[int, PartitionArchive] = {}
        self._trouble: str | None = "it has not begun to read"
        self._pause_s = _FIRST_PAUSE_S
        self._open_from = monotonic()  # partitions are not opened before, while something is wrong
        self._maintain_from = monotonic()
        self._turned = monotonic()

    @property
    def archived_offsets(self) -> dict[int, int]:
        """The offset behind everything that is archived, for each partition that this worker holds."""
        return {number: partition.archived_offset for number, partition in self._held.items()}

    @property
    def health(self) -> Health:
        """The worker's health: alive while its loop turns, ready while nothing it needs is missing."""

        def live() -> str | None:
            still_s = self._monotonic() - self._turned
            return f"its loop has not turned for {still_s:.0f} s" if still_s > _STUCK_S else None

        return Health(live, lambda: self._trouble)

    def run(self, stop: StopSignal) -> None:
        """Archive until the signal to stop; what was read is written before this returns.

        Raises:
            DataError: something in the archive is damaged, or the topic is not the one that it holds.
            UnavailableError: the broker refuses, for good.
        """
        try:
            while not stop.is_set:
                self.turn(_POLL_S)
            self._write(list(self._held))
        finally:
            self.close()

    def close(self) -> None:
        """Close everything; what is not written is read again by the partitions' next owners."""
        for partition in self._held.values():
            partition.close()
        self._held.clear()
        self._pool.shutdown()
        self._letters.close()
        self._source.close()

    def turn(self, poll_s: float) -> None:
        """Turn the loop once."""
        self._turned = self._monotonic()
        polled = self._source.poll(poll_s, _POLL_RECORDS)
        kept = self._follow_assignment()
        for number, records in polled.items():
            if number in kept:
                self._take(number, records)
        self._write(self._due())
        self._maintain()
        self._update_metrics()

    def _follow_assignment(self) -> set[int]:
        """Open and close partitions as the group assigns them; return those whose polled records count."""
        assigned, revoked = self._source.assigned(), self._source.take_revoked()
        for number in self._held.keys() - assigned:
            self._drop(number)
        kept = set(self._held) - revoked
        for number in set(self._held) & revoked:
            # Revoked and assigned again at once: goes on where it was, unless another worker had it in between.
            with self._watched(number):
                if self._held[number].is_owned():
                    self._source.seek(number, self._held[number].pending.next_offset)
                else:
                    self._drop(number)
        if assigned - self._held.keys() and self._monotonic() >= self._open_from:
            for number in sorted(assigned - self._held.keys()):
                with self._watched(number):
                    self._open(number)
        self._source.pause(assigned - self._held.keys())
        return kept

    def _open(self, number: int) -> None:
        partition = PartitionArchive.open(
            self._settings, number, self._models, self._index_folder, self._metrics, self._pool, self._now_ms()
        )
        self._held[number] = partition
        partition.pending.next_offset = self._source.go_to(number, partition.pending.next_offset)
        self._source.commit({number: partition.pending.next_offset})  # where a worker was killed before it did so
        self._trouble = None

    def _take(self, number: int, records: list[Record]) -> None:
        partition, now_ms, now_s = self._held[number], self._now_ms(), self._monotonic()
        with self._watched(number):
            for record in records:
                if record.at.offset < partition.pending.next_offset:
                    continue
                try:
                    partition.add(read_event(record, now_ms), now_ms)
                except PoisonError as error:
                    self._letters.send(record, error)
                    self._metrics.dead_letters.labels(error.reason).inc()
                partition.pending.pass_over(record.at.offset, now_s)
            # The ends of transactions take offsets without being records.
            partition.pending.next_offset = max(partition.pending.next_offset, self._source.position(number))

    def _due(self) -> list[int]:
        limits, now_s = self._settings.files, self._monotonic()
        due: list[int] = []
        for number, partition in self._held.items():
            pending = partition.pending
            old = pending.since_s is not None and now_s - pending.since_s >= limits.max_delay_s
            if old or len(pending.events) >= limits.rows or pending.bytes >= limits.bytes:
                due.append(number)
        rest = {number: part.pending.bytes for number, part in self._held.items() if number not in due}
        if rest and sum(rest.values()) > limits.buffered_bytes:
            due.append(max(rest, key=rest.__getitem__))
        return due

    def _write(self, numbers: list[int]) -> None:
        written: dict[int, int] = {}
        for number in numbers:
            if number not in self._held:
                continue
            with self._watched(number):
                self._letters.flush()
                partition = self._held[number]
                partition.write(self._now_ms())
                written[number] = partition.pending.next_offset
                # Not before: two workers that take a partition from each other must get out of step.
                self._pause_s = _FIRST_PAUSE_S
        self._source.commit(written)

    def _maintain(self) -> None:
        if self._monotonic() < self._maintain_from:
            return
        busy = False
        for number in list(self._held):
            with self._watched(number):
                busy |= self._held[number].maintain(self._now_ms())
        if not busy:
            self._maintain_from = self._monotonic() + _MAINTENANCE_INTERVAL_S

    @contextmanager
    def _watched(self, number: int) -> Generator[None]:
        """Drop a partition after an error that may pass; it is opened again after a pause."""
        try:
            yield
        except _TRANSIENT as error:
            if isinstance(error, FencedError):
                self._metrics.fenced.inc()
                LOGGER.warning("%s", error)
            else:
                self._metrics.failures.labels(type(error).__name__).inc()
                LOGGER.warning("partition %d: %s; trying again in %.1f s", number, error, self._pause_s)
                self._trouble = str(error)
            self._drop(number)
            self._open_from = self._monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _drop(self, number: int) -> None:
        partition = self._held.pop(number, None)
        if partition is not None:
            partition.close()

    def _update_metrics(self) -> None:
        if self._trouble is not None and not self._source.assigned() - self._held.keys():
            self._trouble = None
        now_s = self._monotonic()
        since = [part.pending.since_s for part in self._held.values() if part.pending.since_s is not None]
        self._metrics.partitions.set(len(self._held))
        self._metrics.oldest_s.set(now_s - min(since) if since else 0.0)
        self._metrics.buffered_bytes.set(sum(part.pending.bytes for part in self._held.values()))
        self._metrics.lag.clear()
        for number, partition in self._held.items():
            end = self._source.end(number)
            if end is not None:
                self._metrics.lag.labels(str(number)).set(max(0, end - partition.archived_offset))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


@contextmanager
def index_folder(chosen: str) -> Generator[Path]:
    """Yield the folder for the indexes, locked for this process; a temporary one where none was chosen.

    Raises:
        UsageError: another process has it, or it cannot be used.
    """
    if not chosen:
        with tempfile.TemporaryDirectory(prefix="driftline-archive-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    try:
        Path(chosen).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(Path(chosen) / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"index-dir {chosen}: {error.strerror}; name a local folder of this worker alone") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"index-dir {chosen}: another worker has it; give each worker one of its own") from error
        yield Path(chosen)
    finally:
        with suppress(OSError):
            os.close(descriptor)  # unlocks
