"""The monitor inside a stream worker: what the worker has written is watched as it is committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from driftline.components.errors import DriftlineError
from driftline.components.steps import LOGGER
from driftline.serving.monitor.alerts import Kind
from driftline.serving.monitor.baseline import stored_baseline
from driftline.serving.monitor.metrics import MonitorMetrics
from driftline.serving.monitor.monitor import Monitor
from driftline.serving.monitor.observed import Observed
from driftline.serving.monitor.outbox import Courier
from driftline.serving.monitor.settings import MonitorSettings
from driftline.serving.monitor.state import MonitorState, StateFile
from driftline.serving.records.embeddings import EmbeddedText
from driftline.serving.records.record import Coordinates


class InProcessMonitor:
    """Watches what one stream worker writes; a :class:`driftline.serving.stream.worker.Observer`.

    Each worker has a detector of its own, which sees the worker's partitions alone, and needs a state place of its own.
    The worker goes on where its group's offsets say, and not where the state does: after a restart, records that were
    committed within the last ``save_interval_s`` before it are not watched. Where each must count once, or all
    partitions together, `driftline monitor` is the way.

    The stream never stops for it: what fails here is logged, and watching ends where it cannot go on.
    """

    def __init__(self, monitor: Monitor) -> None:
        """Watch with a monitor, from whichever thread :meth:`observe` is called in, one at a time."""
        self._monitor: Monitor | None = monitor

    @property
    def watching(self) -> bool:
        """Whether it still watches."""
        return self._monitor is not None

    def observe(self, batch: Sequence[tuple[EmbeddedText, Coordinates]]) -> None:
        """Take a committed batch's vectors, each with the place of its text."""
        self._guarded(lambda monitor: monitor.observe([Observed(at, embedded, at) for embedded, at in batch]))

    def close(self) -> None:
        """Write the state."""
        self._guarded(Monitor.save)

    def _guarded(self, act: Callable[[Monitor], None]) -> None:
        if self._monitor is None:
            return
        try:
            act(self._monitor)
        except DriftlineError as error:
            LOGGER.error("the monitor ends, the stream goes on: %s", error)
            self._monitor = None


def in_process_monitor(
    settings: MonitorSettings, couriers: dict[Kind, Courier], registry: CollectorRegistry
) -> InProcessMonitor:
    """Return a monitor that goes on with its state, or begins, its threshold calibrated where it is not yet.

    Args:
        settings: what to watch and whom to tell; ``topic`` is the worker's source.
        couriers: who delivers each kind.
        registry: the worker's metrics.

    Raises:
        DriftlineError: the reference or the state is not as expected, or cannot be written.
    """
    baseline = stored_baseline(settings.reference, settings.state)
    file = StateFile(settings.state)
    state = file.load(baseline) or MonitorState.new(baseline, {})
    file.save(state)
    return InProcessMonitor(Monitor(settings, baseline, state, file, couriers, MonitorMetrics(registry)))
