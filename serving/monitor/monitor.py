"""A stream of embeddings watched against a baseline: which records count, and what an alarm is and causes."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftline.components.errors import DataError, StorageError
from driftline.components.mmd.online import Readings
from driftline.components.steps import LOGGER
from driftline.serving.errors import PoisonError
from driftline.serving.monitor.alerts import alert, alert_id, evidence, run_of
from driftline.serving.monitor.baseline import Baseline
from driftline.serving.monitor.metrics import MonitorMetrics
from driftline.serving.monitor.outbox import DeliveryTarget, Kind, Outbox
from driftline.serving.monitor.settings import MonitorSettings
from driftline.serving.monitor.state import TEXT_CHARACTERS, MonitorState, RecentRecord, StateFile
from driftline.serving.records.embeddings import EmbeddedText, read_embedding
from driftline.serving.records.provenance import read_source
from driftline.serving.records.record import Coordinates, Record

TOMBSTONE: Final = "tombstone"
_LOG_INTERVAL_S: Final = 60.0  # a wrong model refuses every record: one line a minute is enough

_Compared = tuple[int, RecentRecord]
"""A record to compare, and its number in its batch."""


@dataclass(frozen=True, slots=True, eq=False)
class ObservedRecord:
    """One record of the topic of embeddings, read or refused.

    Attributes:
        at: its coordinates in the stream that is watched.
        embedded: its embedding; None where it is skipped.
        source: where the text came from, if known; else the same as ``at``.
        reason: why it is skipped, a short code for metrics; empty where it is not.
        message: the same as a line.
    """

    at: Coordinates
    embedded: EmbeddedText | None
    source: Coordinates
    reason: str = ""
    message: str = ""


def read_record(record: Record) -> ObservedRecord:
    """Read a record of the topic of embeddings; one that is no embedding is marked, and nothing is raised."""
    source = read_source(record.headers) or record.at
    if record.value is None:
        return ObservedRecord(record.at, None, source, TOMBSTONE, "a deleted text")
    try:
        return ObservedRecord(record.at, read_embedding(record.value), source)
    except PoisonError as error:
        return ObservedRecord(record.at, None, source, error.reason, str(error))


class Monitor:
    """Watches one stream, for a topic or inside a stream worker. Not safe for use by several threads at once.

    Whatever a record changes is in the state, and the state is written as one object together with the offsets: after a
    restart the stream goes on from these, and each record has counted once. An alarm is written there before it is
    delivered, so that a restart delivers it again under the same id, and never another in its place.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        baseline: Baseline,
        state: MonitorState,
        file: StateFile,
        targets: Mapping[Kind, DeliveryTarget],
        metrics: MonitorMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Go on with a state.

        Args:
            settings: what is watched, and where alerts go.
            baseline: what the stream is compared with.
            state: what has been seen.
            file: where the state is written.
            targets: of each kind of delivery; a kind without one is not delivered.
            metrics: where to count.
            clock: seconds since 1970.
        """
        self.state = state
        self._settings = settings
        self._baseline = baseline
        self._file = file
        self._outbox = Outbox(state.outbox, targets, metrics, clock)
        self._metrics = metrics
        self._clock = clock
        self._saved_s = clock()
        self._changed = True
        self._unsaved_outbox = False
        self._logged_at_s: dict[str, float] = {}
        self._save_error: str | None = None
        metrics.reference_rows.set(baseline.calibration.rows)
        metrics.last_alarm.set(state.last_alarm_ms / 1000)
        metrics.score.set(math.nan)  # until the next stride ends
        metrics.threshold.set(math.inf)
        metrics.drifting.set(state.detector.drifting)

    @property
    def save_error(self) -> str | None:
        """Why the state cannot be written; None while it can."""
        return self._save_error

    def observe(self, records: Sequence[ObservedRecord]) -> None:
        """Compare the next records of the stream, in their order.

        Raises:
            UnavailableError: another monitor has written the state.
        """
        compared = self._compared(records)
        window = self._baseline.calibration.settings.window
        passed = 0
        for first in range(0, len(compared), window):
            passed = self._detect(records, passed, compared[first : first + window])
        self._advance(records[passed:])
        self._changed |= bool(records)
        self.save_and_deliver()

    def save_and_deliver(self) -> None:
        """Write the state and deliver, as far as due; to be called often, also while no records come.

        Raises:
            UnavailableError: another monitor has written the state.
        """
        due = self._clock() - self._saved_s >= self._settings.save_interval_s
        # An alarm is written at once, unless writing has failed: the stream must not wait for each attempt then.
        if (due and self._changed) or (self._unsaved_outbox and self._save_error is None):
            self.save()
        if not self._unsaved_outbox and self._outbox.deliver():
            self.save()

    def save(self) -> None:
        """Write the state now; a failure is counted and logged, and the next call tries again.

        Raises:
            UnavailableError: another monitor has written it.
        """
        self._saved_s = self._clock()
        try:
            self._file.save(self.state)
        except StorageError as error:
            self._metrics.save_failures.inc()
            self._save_error = str(error)
            self._log("save", f"the state is not written: {error}", logging.ERROR)
            return
        self._metrics.saves.inc()
        self._save_error = None
        self._changed = self._unsaved_outbox = False

    def _compared(self, records: Sequence[ObservedRecord]) -> list[_Compared]:
        """Return the records to compare; the others are counted."""
        fit: list[tuple[int, ObservedRecord, EmbeddedText]] = []
        for number, record in enumerate(records):
            if record.embedded is None:
                self._skip(record.at, record.reason, record.message)
            elif not self._refused(record.at, record.embedded):
                fit.append((number, record, record.embedded))
        if not fit:
            return []
        with np.errstate(over="ignore"):  # the detector refuses vectors that are too long
            vectors = self._baseline.project(np.stack([embedded.vector for _, _, embedded in fit])).astype(np.float32)
        return [
            (number, RecentRecord(embedded.id, self._kept(embedded), record.source, record.at.timestamp_ms, vector))
            for (number, record, embedded), vector in zip(fit, vectors, strict=True)
        ]

    def _kept(self, embedded: EmbeddedText) -> str | None:
        return embedded.text[:TEXT_CHARACTERS] if embedded.text is not None and self._settings.texts else None

    def _refused(self, at: Coordinates, embedded: EmbeddedText) -> bool:
        """Return whether an embedding cannot be compared with the reference's; if so it is counted and logged."""
        reference = self._baseline.reference
        for reason, expected, got in (
            ("other-model", reference.model, embedded.model),
            ("other-revision", reference.revision, embedded.revision),
            ("dimension", reference.dimension, len(embedded.vector)),
        ):
            if got != expected:
                what = reason.removeprefix("other-")
                message = (
                    f"its {what} is {got!r}, that of the reference {reference.uri} is {expected!r}; give a reference "
                    "that the stream's model embedded"
                )
                self._skip(at, reason, message)
                return True
        return False

    def _skip(self, at: Coordinates, reason: str, message: str) -> None:
        self._metrics.skipped.labels(reason).inc()
        if message:
            self._log(reason, f"record {at} is not compared: {message}")

    def _detect(self, records: Sequence[ObservedRecord], passed: int, chunk: Sequence[_Compared]) -> int:
        """Pass records to the detector.

        Args:
            records: the batch.
            passed: number of the batch's records that are in the offsets.
            chunk: the records to compare next, by their number in the batch: at most a window of them, the shortest
                distance between two alarms.

        Returns:
            The number of the batch's records that are in the offsets now: those up to an alarm, whose alert then has
            the exact offsets.
        """
        state, metrics = self.state, self._metrics
        recent = [record for _, record in chunk]
        try:
            readings = state.detector.update(np.stack([record.vector for record in recent]))
        except DataError as error:
            if len(chunk) == 1:
                self._skip(records[chunk[0][0]].at, "vector-size", str(error))
            else:
                for one in chunk:
                    passed = self._detect(records, passed, [one])
            return passed
        metrics.records.inc(len(chunk))
        raised = np.flatnonzero(readings.alarms)
        to_alarm = 0
        if len(raised):
            reading = int(raised[0])
            to_alarm = len(chunk) - (state.detector.position - int(readings.positions[reading]))
            number = chunk[to_alarm - 1][0]
            state.recent.extend(recent[:to_alarm])
            self._advance(records[passed : number + 1])
            passed = number + 1
            self._alarm(readings, reading, recent[to_alarm - 1].time_ms)
        state.recent.extend(recent[to_alarm:])
        if len(readings.scores):
            metrics.score.set(readings.scores[-1])
            metrics.threshold.set(readings.thresholds[-1])
            metrics.sample_size.set(readings.sizes[-1])
        metrics.drifting.set(state.detector.drifting)
        return passed

    def _advance(self, records: Sequence[ObservedRecord]) -> None:
        """Advance the offsets past records."""
        for record in records:
            self.state.offsets[record.at.partition] = record.at.offset + 1

    def _alarm(self, readings: Readings, reading: int, time_ms: int) -> None:
        state, settings = self.state, self._settings
        state.alarms += 1
        state.last_alarm_ms = time_ms
        self._metrics.alarms.inc()
        self._metrics.last_alarm.set(time_ms / 1000)
        identity = alert_id(settings.topic, self._baseline.key, state.offsets)
        data = evidence(settings.topic, self._baseline, state, readings, reading, settings.texts)
        raised = alert(settings.topic, identity, time_ms, data)
        LOGGER.warning(json.dumps({"driftline": "alarm", **raised.content}, ensure_ascii=False))
        self._unsaved_outbox |= self._outbox.post(raised)
        now = self._clock()
        if settings.run is not None and now - state.last_run_s >= settings.run.cool_down_s:
            state.last_run_s = now
            self._unsaved_outbox |= self._outbox.post(run_of(settings.run, raised))

    def _log(self, about: str, message: str, level: int = logging.WARNING) -> None:
        """Log a line, at most one a minute about the same subject."""
        now = self._clock()
        if now - self._logged_at_s.get(about, -math.inf) >= _LOG_INTERVAL_S:
            self._logged_at_s[about] = now
            LOGGER.log(level, message)
