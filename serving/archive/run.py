"""Runs an archive: its clients, its health, its loop."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from driftline.components.errors import UsageError
from driftline.components.storage.dataset.manifest import MANIFEST_NAME
from driftline.components.storage.objects import store
from driftline.serving.archive.dead_letter_writer import DeadLetterWriter
from driftline.serving.archive.metrics import ArchiveMetrics
from driftline.serving.archive.settings import ArchiveSettings
from driftline.serving.archive.source import KafkaSource
from driftline.serving.archive.worker import Archiver, index_folder
from driftline.serving.kafka.client import open_producer
from driftline.serving.kafka.reader import leave_group
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.kafka.topics import check_topics
from driftline.serving.kafka.writer import TopicWriter
from driftline.serving.process import Condition, stopping_on_signals
from driftline.serving.records.provenance import dead_letters_topic
from driftline.serving.telemetry.health import serving_health

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
    metrics, condition = ArchiveMetrics(), Condition()
    with ExitStack() as stack:
        stop = stack.enter_context(stopping_on_signals())
        stack.enter_context(serving_health(health_port, condition.health, metrics.registry))
        condition.doing = "looking for the topics"
        folder = stack.enter_context(index_folder(settings.index_folder))
        check_topics(kafka, settings.topic, [dead_letters_topic(settings.topic)], create=True)
        source = KafkaSource(
            kafka,
            settings.topic,
            settings.group,
            instance_id=settings.instance_id,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
        )
        letters = DeadLetterWriter(TopicWriter(lambda: open_producer(kafka)))
        archiver = Archiver(settings, source, letters, metrics, folder)
        condition.work = archiver.health
        archiver.run(stop)
        if not settings.index_folder:  # a worker whose index is kept comes back for its partitions
            leave_group(kafka, settings.group, settings.instance_id)
