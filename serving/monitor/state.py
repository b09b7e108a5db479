"""What a monitor has seen, as one object: the detector, the offsets it has come to, and what is left to deliver."""

from __future__ import annotations

import io
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError, StorageConflict
from driftline.components.mmd.online import OnlineDetector
from driftline.components.mmd.online_reference import pack, unpack
from driftline.components.storage.objects import store
from driftline.components.storage.objects.checksum import stream_crc32c
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.alerts import Delivery
from driftline.serving.monitor.baseline import Baseline
from driftline.serving.records.record import Coordinates

STATE_NAME: Final = "state.npz"
_FORMAT: Final = "driftline.monitor-state"
TEXT_CHARACTERS: Final = 500
"""A text's beginning is kept, and shown in alerts, up to this length."""


@dataclass(frozen=True, slots=True, eq=False)
class RecentRecord:
    """A record of the window.

    Attributes:
        id: the text's id.
        text: its beginning, where it is known and kept.
        source: where the text came from.
        time_ms: of the record in the stream that is watched, since 1970 UTC.
        vector: (k,) float32, as the detector sees it.
    """

    id: str
    text: str | None
    source: Coordinates
    time_ms: int
    vector: NDArray[np.float32]


@dataclass(slots=True, eq=False)
class MonitorState:
    """All that a monitor knows of its stream. Memory: the detector's, and for each record of a window a text.

    Attributes:
        baseline_key: of the baseline that the detector compares with.
        detector: the detector.
        offsets: by partition, of the next record to take.
        recent: the window's records, oldest first.
        alarms: raised so far.
        last_alarm_ms: time of the record with which the latest was raised; 0 before the first.
        last_run_s: when a run was last asked for, seconds since 1970; 0 before the first.
        outbox: what alarms have yet to bring about, oldest first.
    """

    baseline_key: str
    detector: OnlineDetector
    offsets: dict[int, int]
    recent: deque[RecentRecord]
    alarms: int = 0
    last_alarm_ms: int = 0
    last_run_s: float = 0.0
    outbox: list[Delivery] = field(default_factory=list)

    @classmethod
    def new(cls, baseline: Baseline, offsets: dict[int, int]) -> Self:
        """Return the state of a monitor that has seen nothing and begins at these offsets."""
        window = baseline.calibration.settings.window
        return cls(baseline.key, OnlineDetector(baseline.calibration), offsets, deque(maxlen=window))

    def to_bytes(self, writer: str = "") -> bytes:
        """Return an .npz file without pickle; :meth:`from_bytes` goes on with the same bits.

        Args:
            writer: mark of whoever writes it, by which it knows its own.
        """
        header = {
            "writer": writer,
            "baseline": self.baseline_key,
            "offsets": sorted(self.offsets.items()),
            "recent": [[record.id, record.text, asdict(record.source), record.time_ms] for record in self.recent],
            "alarms": self.alarms,
            "last_alarm_ms": self.last_alarm_ms,
            "last_run_s": self.last_run_s,
            "outbox": [asdict(delivery) for delivery in self.outbox],
        }
        vectors = [record.vector for record in self.recent]
        arrays: dict[str, NDArray[Any]] = {
            "detector": np.frombuffer(self.detector.to_bytes(), np.uint8),
            "vectors": np.stack(vectors) if vectors else np.empty((0, 0), np.float32),
        }
        return pack(_FORMAT, header, arrays)

    @classmethod
    def from_bytes(cls, data: bytes, baseline: Baseline) -> Self:
        """Return the state that goes on where :meth:`to_bytes` was called.

        A state of another baseline keeps its offsets and what is left to deliver; its detector begins anew.

        Raises:
            DataError: not such a state.
        """
        header, arrays = unpack(_FORMAT, data)
        try:
            state = cls.new(baseline, {int(partition): int(offset) for partition, offset in header["offsets"]})
            state.last_run_s = float(header["last_run_s"])
            state.outbox = [Delivery(**delivery) for delivery in header["outbox"]]
            state.alarms, state.last_alarm_ms = int(header["alarms"]), int(header["last_alarm_ms"])
            if header["baseline"] == baseline.key:
                state.detector = OnlineDetector.from_bytes(arrays["detector"].tobytes(), baseline.calibration)
                state.recent.extend(_recent(header["recent"], arrays["vectors"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{_FORMAT}: not as written ({error}); remove it to begin anew") from error
        return state


def _recent(described: list[Any], vectors: NDArray[np.float32]) -> Iterable[RecentRecord]:
    for (identity, text, source, time_ms), vector in zip(described, vectors, strict=True):
        yield RecentRecord(identity, text, Coordinates(**source), time_ms, vector)


class StateFile:
    """The one object that holds a monitor's state, written by one monitor at a time.

    Each write is made over the version that this one wrote or read last. Of two monitors with one state, the second to
    write ends, and what the first has written stays whole.
    """

    def __init__(self, folder: str) -> None:
        """Name the place.

        Args:
            folder: the monitor's folder or ``gs://`` prefix.
        """
        self.uri = store.join(folder, STATE_NAME)
        self._over: store.FileInfo | None = None
        self._writer = uuid.uuid4().hex
        self._tried = ""

    def load(self, baseline: Baseline) -> MonitorState | None:
        """Read the state; None where there is none yet.

        Raises:
            DataError: what is there is no state.
            StorageError: it cannot be read.
        """
        if not store.exists(self.uri):
            return None
        self._over = store.stat(self.uri)
        with store.open_read(self._over) as file:
            data = file.read()
        try:
            return MonitorState.from_bytes(data, baseline)
        except DataError as error:
            raise DataError(f"{self.uri}: {error}") from error

    def save(self, state: MonitorState) -> None:
        """Write the state, whole or not at all.

        Raises:
            UnavailableError: another monitor has written it since.
            StorageError: it cannot be written; what is there stays.
        """
        content = state.to_bytes(self._writer)
        before, self._tried = self._tried, stream_crc32c(io.BytesIO(content))
        try:
            store.write_bytes(self.uri, content, over=self._over)
        except StorageConflict:
            # A write that seemed to fail may have come through: what is there is then this monitor's own.
            self._over = self._ours(before)
            store.write_bytes(self.uri, content, over=self._over)
        self._over = self._ours(self._tried)

    def _ours(self, checksum: str) -> store.FileInfo:
        """Describe what is there. Raises UnavailableError where it is not what this monitor wrote."""
        found = store.stat(self.uri)
        if store.crc32c(found) == checksum:
            return found
        raise UnavailableError(
            f"{self.uri}: another monitor has written it; run one monitor for a topic, or give each a state of its own"
        )
