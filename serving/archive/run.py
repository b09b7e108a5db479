"""Runs an archive: its clients, its health, its loop."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Final

from driftline.components.errors import UsageError
from driftline.components.storage.dataset.manifest import MANIFEST_NAME
from driftline.components.storage.objects import store
from driftline.serving.archive.letters import KafkaDeadLetters
from driftline.serving.archive.metrics import ArchiveMetrics
from driftline.serving.archive.settings import ArchiveSettings
from driftline.serving.archive.source import KafkaSource
from driftline.serving.archive.worker import Archiver, index_folder
from driftline.serving.kafka.client import open_consumer, open_producer
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.kafka.topics import check_topics
from driftline.serving.lifecycle import stopping_on_signals
from driftline.serving.records.provenance import dead_letters_topic
from driftline.serving.telemetry.health import serving_health

LOGGER: Final = logging.getLogger("driftline.archive")

_MAX_POLL_INTERVAL_MS: Final = 1_800_000  # an index of a hundred million ids is made within it


def run_archive(settings: ArchiveSettings, kafka: KafkaSettings, health_port: int) -> None:
    """Archive a topic until the process is told to end.

    Args:
        settings: what to archive, and where.
        kafka: how to reach the cluster.
        health_port: where health and metrics are served; 0 for any free port, -1 for nowhere.

    Raises:
        UsageError: a setting cannot be, or the topic is not there.
        DataError: something in the archive is damaged, or the topic is not the one that it holds.
        UnavailableError: no broker answers, or it refuses for good.
    """
    if store.exists(store.join(settings.out, MANIFEST_NAME)):
        raise UsageError(f"{settings.out}: is an embeddings dataset itself; give the archive a folder of its own")
    metrics = ArchiveMetrics()
    with ExitStack() as stack:
        stop = stack.enter_context(stopping_on_signals())
        folder = stack.enter_context(index_folder(settings.index_folder))
        check_topics(kafka, settings.topic, [dead_letters_topic(settings.topic)], create=True)
        consumer = open_consumer(
            kafka,
            group=settings.group,
            instance_id=settings.instance_id or None,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
        )
        source = KafkaSource(consumer, settings.topic)
        archiver = Archiver(settings, source, KafkaDeadLetters(lambda: open_producer(kafka)), metrics, folder)
        if health_port >= 0:
            port = stack.enter_context(serving_health(health_port, archiver.health, metrics.registry))
            LOGGER.info("health and metrics on port %d", port)
        archiver.run(stop)
