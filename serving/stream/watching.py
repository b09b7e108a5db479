"""The online drift monitor inside a stream worker: it sees what the worker has committed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from prometheus_client import CollectorRegistry

from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.monitor.delivery_targets import AlertsTopic
from driftline.serving.monitor.in_process import InProcessMonitor, in_process_monitor
from driftline.serving.monitor.outbox import DeliveryTarget, Kind
from driftline.serving.monitor.settings import MonitorSettings


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
    with ExitStack() as until_end:
        targets: dict[Kind, DeliveryTarget] = {}
        if settings.alerts_topic:
            alerts = AlertsTopic(kafka, settings.alerts_topic)
            until_end.callback(alerts.close)
            targets["alert"] = alerts
        monitor = in_process_monitor(settings, targets, registry)
        until_end.callback(monitor.close)
        yield monitor
