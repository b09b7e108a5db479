"""`driftline monitor`: the topic of embeddings watched until the process is told to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry

from driftline.components.steps import LOGGER
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.monitor.baseline import stored_baseline
from driftline.serving.monitor.delivery_targets import open_targets
from driftline.serving.monitor.metrics import MonitorMetrics
from driftline.serving.monitor.monitor import Monitor, read_record
from driftline.serving.monitor.settings import MonitorSettings
from driftline.serving.monitor.state import MonitorState, StateFile
from driftline.serving.monitor.topic import EmbeddingsTopic
from driftline.serving.process import Condition, StopSignal
from driftline.serving.telemetry.health import NO_HEALTH_PORT, Health, serving_health

_POLL_S: Final = 0.5  # how soon a signal to end is seen
_AWAY_S: Final = 30.0  # a broker that restarts answers again within seconds
_STUCK_S: Final = 300.0  # the longest round: state, alerts and a run all time out, each after tens of seconds


@dataclass(slots=True)
class _Rounds:
    """How watching goes, for the threads that answer probes."""

    round_began_s: float = field(default_factory=time.monotonic)
    away_s: float = 0.0
    trouble: str | None = None

    def met(self, away_s: float, trouble: str | None) -> None:
        """Take what a round found; the broker's going and coming is told."""
        gone, was_gone = away_s > _AWAY_S, self.away_s > _AWAY_S
        self.away_s, self.trouble = away_s, trouble
        if gone and not was_gone:
            LOGGER.warning("Kafka has not answered for %.0f s; watching goes on when it does", away_s)
        if was_gone and not gone:
            LOGGER.info("Kafka answers again")

    def live(self) -> str | None:
        stuck_s = time.monotonic() - self.round_began_s
        return f"stuck for {stuck_s:.0f} s" if stuck_s > _STUCK_S else None

    def ready(self) -> str | None:
        away = f"Kafka has not answered for {self.away_s:.0f} s" if self.away_s > _AWAY_S else None
        return away or self.trouble


def run(
    settings: MonitorSettings,
    kafka: KafkaSettings,
    stop: StopSignal,
    *,
    health_port: int = NO_HEALTH_PORT,
    on_listening: Callable[[int], None] = lambda port: None,
) -> None:
    """Watch a topic until told to stop; then write the state.

    Args:
        settings: what to watch, and where alerts go.
        kafka: how to reach the cluster.
        stop: when to end.
        health_port: where `/livez`, `/readyz` and `/metrics` are; 0 for any free port, -1 for nowhere.
        on_listening: is given the port.

    Raises:
        DriftlineError: the reference or the state is not as expected or cannot be written, Kafka cannot be reached at
            the start or refuses, or another monitor writes the same state.
    """
    registry, condition = CollectorRegistry(), Condition()
    metrics = MonitorMetrics(registry)
    with ExitStack() as open_until_end:
        open_until_end.enter_context(serving_health(health_port, condition.health, registry, on_listening=on_listening))
        condition.doing = "calibrating the threshold"
        baseline = stored_baseline(settings.reference, settings.state)
        if stop.is_set:
            return
        condition.doing = "finding the topic"
        file = StateFile(settings.state)
        state = file.load(baseline)
        topic = EmbeddingsTopic(kafka, settings.topic, None if state is None else state.offsets, settings.start_at)
        open_until_end.callback(topic.close)
        metrics.lost.inc(topic.lost)
        state = state or MonitorState.new(baseline, topic.offsets)
        targets = open_until_end.enter_context(open_targets(settings, kafka))
        # Records where this monitor began, before anything depends on it, and fences an older one.
        file.save(state)
        monitor = Monitor(settings, baseline, state, file, targets, metrics)
        LOGGER.info("watching %s against %s", settings.topic, settings.reference.dataset)
        rounds = _Rounds()
        condition.work = Health(rounds.live, rounds.ready)
        while not stop.is_set:
            rounds.round_began_s = time.monotonic()
            lost = topic.lost
            monitor.observe([read_record(record) for record in topic.poll(_POLL_S)])
            metrics.lost.inc(topic.lost - lost)
            for partition, lag in topic.lags().items():
                metrics.lag.labels(str(partition)).set(lag)
            rounds.met(topic.unreachable_s(), monitor.save_error)
        condition.doing, condition.work = "ending", None
        monitor.save()
