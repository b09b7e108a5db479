"""A stream worker with everything that it needs: topics, clients, health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from prometheus_client import CollectorRegistry

from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import open_producer
from driftline.serving.kafka.reader import GroupReader, leave_group
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.kafka.topics import check_topics
from driftline.serving.kafka.writer import TopicWriter
from driftline.serving.process import Condition, StopSignal
from driftline.serving.stream.encoding import Model
from driftline.serving.stream.metrics import StreamMetrics
from driftline.serving.stream.settings import Assignment, StreamSettings
from driftline.serving.stream.sinks import TRANSACTION_TIMEOUT_S, CommittingSink, Sink, TransactionalSink
from driftline.serving.stream.work_items import ResultWriter
from driftline.serving.stream.worker import Observer, StreamWorker
from driftline.serving.telemetry.health import NO_HEALTH_PORT, Health, serving_health
from driftline.serving.telemetry.tracing import tracing

LOGGER: Final = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0
_HEARTBEAT_S: Final = 3.0  # how soon a worker learns that partitions are handed around

_ASSIGNORS: Final[Mapping[Assignment, Any]] = {
    "range": RangePartitionAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}


def run_stream(
    settings: StreamSettings,
    kafka: KafkaSettings,
    load: Callable[[], Model],
    stop: StopSignal,
    *,
    create_topics: bool = False,
    health_port: int = NO_HEALTH_PORT,
    environment: Mapping[str, str],
    observe: Callable[[CollectorRegistry], AbstractContextManager[Observer]] | None = None,
    registry: CollectorRegistry | None = None,
    on_listening: Callable[[int], None] = lambda port: None,
) -> None:
    """Read texts, encode them and write their vectors, until told to end.

    Args:
        settings: what to read and write.
        kafka: how to reach the cluster.
        load: loads the model; called once, when the topics are known to be there.
        stop: when to end.
        create_topics: whether output topics that are missing are created.
        health_port: where `/livez`, `/readyz` and `/metrics` are; 0 for any free port, -1 for nowhere.
        environment: the process's variables, for traces.
        observe: opens what sees the results that are committed, given where its metrics go; None for nobody.
        registry: where the metrics go; None for one of this worker alone.
        on_listening: is given the port.

    Raises:
        UsageError: a topic is missing.
        FencedError: another worker has this one's name.
        UnavailableError: Kafka cannot be reached at the start, or refuses; the model is broken.
    """
    registry = registry or CollectorRegistry()
    metrics, condition = StreamMetrics(registry), Condition()
    with ExitStack() as until_end:
        until_end.enter_context(serving_health(health_port, condition.health, registry, on_listening=on_listening))
        condition.doing = "looking for the topics"
        targets = [settings.output, settings.dead_letters]
        check_topics(kafka, settings.source, targets, create=create_topics)
        condition.doing = "loading the model"
        model = load()
        results = ResultWriter(
            settings.output, settings.dead_letters, model.name, model.revision, settings.vectors, settings.with_text
        )
        sink = _sink(settings, kafka, results)
        clients = until_end.enter_context(ExitStack())
        clients.callback(sink.close)
        spans = until_end.enter_context(tracing("driftline-stream", environment))
        condition.doing = "opening the monitor"
        observer = None if observe is None else until_end.enter_context(observe(registry))
        worker = StreamWorker(settings, model.encoder, results, sink, metrics, tracing=spans, observer=observer)
        # What an earlier process of this name left open is aborted before its offsets are asked for.
        condition.doing = "waiting for the broker"
        _patiently(sink.start, stop)
        if stop.is_set:
            return
        source = _patiently(lambda: _reader(settings, kafka, worker.on_revoked), stop)
        if source is None:
            return
        clients.callback(source.close)
        condition.work = Health(worker.live, worker.ready)
        LOGGER.info(
            "%s → %s by %s (%s), %s, as %s of group %s",
            settings.source, settings.output, model.name, model.revision, settings.delivery, settings.instance_id,
            settings.group,
        )  # fmt: skip
        try:
            worker.run(source, stop)
        finally:
            clients.close()  # before the group hands the partitions on
        if settings.static and not settings.stay:
            leave_group(kafka, settings.group, settings.instance_id)


def _patiently(open_client: Callable[[], Any], stop: StopSignal) -> Any:
    """Open a client, however long the broker is away: it was there a moment ago."""
    while not stop.is_set:
        try:
            return open_client()
        except UnavailableError as error:
            LOGGER.warning("%s; trying again", error)
            stop.wait(_AGAIN_S)
    return None


def _sink(settings: StreamSettings, kafka: KafkaSettings, results: ResultWriter) -> Sink:
    if settings.delivery == "at-least-once":
        return CommittingSink(TopicWriter(lambda: open_producer(kafka)), results.too_large)
    name = settings.transactional_id
    timeout_ms = int(TRANSACTION_TIMEOUT_S * 1000)
    writer = TopicWriter(
        lambda: open_producer(kafka, transactional_id=name, transaction_timeout_ms=timeout_ms), transactional=True
    )
    return TransactionalSink(writer, settings.source, results.too_large)


def _reader(settings: StreamSettings, kafka: KafkaSettings, on_revoked: Callable[[], None]) -> GroupReader:
    return GroupReader(
        kafka,
        settings.source,
        settings.group,
        on_revoked,
        instance_id=settings.instance_id if settings.static else None,
        partition_assignment_strategy=[_ASSIGNORS[settings.assignment]],
        max_poll_records=settings.batch.records,
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        heartbeat_interval_ms=int(min(_HEARTBEAT_S, settings.session_timeout_s / 5) * 1000),
    )
