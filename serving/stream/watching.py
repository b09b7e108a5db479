"""The online drift monitor inside a stream worker: it sees what the worker has committed."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from prometheus_client import CollectorRegistry

from driftline.components.errors import DriftlineError
from driftline.serving.broker.settings import KafkaSettings
from driftline.serving.monitor.alerts import Kind
from driftline.serving.monitor.baseline import stored_baseline
from driftline.serving.monitor.couriers import AlertsTopic
from driftline.serving.monitor.metrics import MonitorMetrics
from driftline.serving.monitor.monitor import Monitor
from driftline.serving.monitor.observed import Observed
from driftline.serving.monitor.outbox import Courier
from driftline.serving.monitor.settings import MonitorSettings
from driftline.serving.monitor.state import MonitorState, StateFile
from driftline.serving.records.embeddings import EmbeddedText
from driftline.serving.records.record import Coordinates

LOGGER: Final = logging.getLogger(__name__)


class MonitorObserver:
    """Hands committed vectors to a monitor; a monitor that fails is let go of, and the stream goes on.

    A worker sees the partitions that it has; several workers' monitors each watch their part of the stream.

    Args:
        monitor: of this worker alone.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor: Monitor | None = monitor

    def observe(self, batch: Sequence[tuple[EmbeddedText, Coordinates]]) -> None:
        """Look at a committed batch's vectors."""
        if self._monitor is None:
            return
        try:
            self._monitor.observe([Observed(at, embedded, at) for embedded, at in batch])
        except DriftlineError as error:
            LOGGER.error("monitor: %s; this worker goes on without it", error)
            self._monitor = None

    def save(self) -> None:
        """Write the monitor's state."""
        if self._monitor is not None:
            try:
                self._monitor.save()
            except DriftlineError as error:
                LOGGER.error("monitor: its state was not written: %s", error)


@contextmanager
def watching(
    settings: MonitorSettings, kafka: KafkaSettings, registry: CollectorRegistry
) -> Generator[MonitorObserver]:
    """Watch for as long as the block lasts; then write the state.

    Args:
        settings: what the stream is compared with, and whom to tell; its topic is that of the texts.
        kafka: how alerts reach the cluster.
        registry: where the monitor's metrics go.

    Raises:
        DriftlineError: the reference or the state is not as expected, or cannot be read or written.
    """
    baseline = stored_baseline(settings.reference, settings.state)
    file = StateFile(settings.state)
    state = file.load(baseline) or MonitorState.new(baseline, {})
    with ExitStack() as until_end:
        couriers: dict[Kind, Courier] = {}
        if settings.alerts_topic:
            alerts = AlertsTopic(kafka, settings.alerts_topic)
            until_end.callback(alerts.close)
            couriers["alert"] = alerts
        file.save(state)  # shuts an older monitor of this state out
        observer = MonitorObserver(Monitor(settings, baseline, state, file, couriers, MonitorMetrics(registry)))
        until_end.callback(observer.save)
        yield observer
