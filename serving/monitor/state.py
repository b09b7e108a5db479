"""A monitor's state as one object: the detector, the offsets of its stream, and the deliveries that wait."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.mmd.online import OnlineDetector, pack, unpack
from driftline.components.storage.objects import store
from driftline.components.storage.objects.owned_object import OwnedObject, Replacement
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.baseline import Baseline
from driftline.serving.monitor.outbox import Delivery
from driftline.serving.records.record import Coordinates

STATE_NAME: Final = "state.npz"
_FORMAT: Final = "driftline.monitor-state"
TEXT_CHARACTERS: Final = 500
"""Length to which a text is kept, and shown in alerts."""


@dataclass(frozen=True, slots=True, eq=False)
class RecentRecord:
    """A record of the window.

    Attributes:
        id: the text's id.
        text: its first characters, where it is known and kept.
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
    """The state of a monitor and its stream. Memory: the detector's, and a text for each record of a window.

    Attributes:
        baseline_key: of the baseline that the detector compares with.
        detector: the detector.
        offsets: by partition, of the next record to take.
        recent: the window's records, oldest first.
        alarms: number of alarms raised so far.
        last_alarm_ms: time of the record that raised the latest alarm; 0 before the first.
        last_run_s: when the latest run was requested, seconds since 1970; 0 before the first.
        outbox: deliveries that wait, oldest first.
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
            writer: mark of the writer, by which it recognises its own writes.
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

        A state of another baseline keeps its offsets and its deliveries; its detector starts from nothing.

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
        """Write nothing yet.

        Args:
            folder: the monitor's folder or ``gs://`` prefix.
        """
        self.uri = store.join(folder, STATE_NAME)
        self._object = OwnedObject(self.uri)
        self._writer = uuid.uuid4().hex

    def load(self, baseline: Baseline) -> MonitorState | None:
        """Read the state; None where there is none yet.

        Raises:
            DataError: what is there is no state.
            StorageError: it cannot be read.
        """
        self._object = OwnedObject.look_up(self.uri)
        if self._object.seen is None:
            return None
        with store.open_read(self._object.seen) as file:
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
        if self._object.replace(state.to_bytes(self._writer)) is Replacement.LOST:
            raise UnavailableError(
                f"{self.uri}: another monitor has written it; run one monitor for a topic, or give each a state of its "
                "own"
            )
