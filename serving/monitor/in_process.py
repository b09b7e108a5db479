"""The monitor inside a stream worker: it watches what the worker writes, as it is committed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager

from prometheus_client import CollectorRegistry

from driftline.components.errors import DriftlineError
from driftline.components.steps import LOGGER
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.monitor.baseline import stored_baseline
from driftline.serving.monitor.delivery_targets import open_targets
from driftline.serving.monitor.metrics import MonitorMetrics
from driftline.serving.monitor.monitor import Monitor, ObservedRecord
from driftline.serving.monitor.outbox import DeliveryTarget, Kind
from driftline.serving.monitor.settings import MonitorSettings
from driftline.serving.monitor.state import MonitorState, StateFile
from driftline.serving.records.embeddings import EmbeddedText
from driftline.serving.records.record import Coordinates


class InProcessMonitor:
    """Watches what one stream worker writes; a :class:`driftline.serving.stream.worker.Observer`.

    Each worker has its own detector, which sees only the worker's partitions, and needs its own state folder. The
    worker goes on from its group's offsets, and not from the state's: after a restart, records that were committed
    within the last ``save_interval_s`` before it are not watched. Where each must count once, or all partitions
    together, use `driftline monitor`.

    The stream never stops for it: failures are logged, and watching ends where it cannot go on.
    """

    def __init__(self, monitor: Monitor) -> None:
        """Watch with a monitor. Any thread may call :meth:`observe`, one at a time."""
        self._monitor: Monitor | None = monitor

    @property
    def watching(self) -> bool:
        """Whether it still watches."""
        return self._monitor is not None

    def observe(self, batch: Sequence[tuple[EmbeddedText, Coordinates]]) -> None:
        """Observe a committed batch's vectors, each with the coordinates of its text."""
        self._guarded(lambda monitor: monitor.observe([ObservedRecord(at, embedded, at) for embedded, at in batch]))

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
    settings: MonitorSettings, targets: dict[Kind, DeliveryTarget], registry: CollectorRegistry
) -> InProcessMonitor:
    """Return a monitor that goes on with its state or begins; a threshold is calibrated where there is none yet.

    Args:
        settings: what to watch and where alerts go; ``topic`` is the worker's source.
        targets: of each kind of delivery.
        registry: the worker's metrics.

    Raises:
        DriftlineError: the reference or the state is not as expected, or cannot be written.
    """
    baseline = stored_baseline(settings.reference, settings.state)
    file = StateFile(settings.state)
    state = file.load(baseline) or MonitorState.new(baseline, {})
    file.save(state)
    return InProcessMonitor(Monitor(settings, baseline, state, file, targets, MonitorMetrics(registry)))


@contextmanager
def watching(
    settings: MonitorSettings, kafka: KafkaSettings, registry: CollectorRegistry
) -> Generator[InProcessMonitor]:
    """Watch for as long as the block lasts; then write the state.

    Args:
        settings: what the stream is compared with, and whom to tell; its topic is that of the texts.
        kafka: how alerts reach the cluster.
        registry: where the monitor's metrics go.

    Raises:
        DriftlineError: the reference or the state is not as expected, or cannot be read or written.
    """
    with open_targets(settings, kafka) as targets, closing(in_process_monitor(settings, targets, registry)) as monitor:
        yield monitor
