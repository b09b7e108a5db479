"""Targets of deliveries: a topic for alerts, Kubeflow Pipelines for runs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from kafka.errors import KafkaError

from driftline.components.errors import UsageError, one_line
from driftline.components.kubeflow.client import Kubeflow
from driftline.components.kubeflow.connection import Connection
from driftline.components.kubeflow.logins import NoLogin, TokenFile
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import brokers, open_producer
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.kafka.topics import is_topic
from driftline.serving.kafka.writer import TopicWriter
from driftline.serving.monitor.alerts import binary_event
from driftline.serving.monitor.outbox import Delivery, DeliveryTarget, Kind
from driftline.serving.monitor.settings import MonitorSettings, RunSettings
from driftline.serving.records.record import OutgoingRecord

_REQUEST_S: Final = 8.0  # all replicas have it within milliseconds, unless a leader has gone
_ACKNOWLEDGED_S: Final = 20.0  # time to find a new leader; the stream waits meanwhile
_ANSWER_S: Final = 10.0  # the API server asks its database; the stream waits meanwhile


class AlertsTopic:
    """Produces alerts as CloudEvents in binary mode, keyed by the topic that is watched.

    At least once: an alert that was produced just before a crash is produced again, with the same id and bytes.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """Look for the topic.

        Args:
            kafka: how to reach the cluster.
            topic: where alerts go.

        Raises:
            UsageError: the topic is not there.
            UnavailableError: no broker answers, or refuses.
        """
        if not is_topic(kafka, topic):
            raise UsageError(f"alerts-topic {topic}: is not at {brokers(kafka)}; create it, or check the name")
        self._topic = topic
        self._brokers = brokers(kafka)
        # A record that is given up here is not sent later either, when it is given to another `send`.
        self._writer = TopicWriter(
            lambda: open_producer(
                kafka,
                request_timeout_ms=round(_REQUEST_S * 1000),
                delivery_timeout_ms=round(_ACKNOWLEDGED_S * 1000),
                max_block_ms=round(_REQUEST_S * 1000),
            )
        )

    def deliver(self, delivery: Delivery) -> None:
        """Produce an alert, and return when all replicas have it."""
        headers, value = binary_event(delivery.content)
        key = str(delivery.content["subject"]).encode()
        try:
            self._writer.send(OutgoingRecord(self._topic, key, value, tuple(headers)))
            [outcome] = self._writer.flush(_ACKNOWLEDGED_S + _REQUEST_S)
        except KafkaError as error:
            outcome = error
        if outcome is not None:
            raise UnavailableError(f"topic {self._topic} at {self._brokers}: {one_line(outcome)}") from outcome

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


class KubeflowRuns:
    """Starts runs by the REST API of Kubeflow Pipelines.

    A run is named after its alarm, and looked for before it is started: a second delivery starts no second run.
    """

    def __init__(self, settings: RunSettings) -> None:
        """Start nothing yet.

        Args:
            settings: which pipeline, where.
        """
        self._settings = settings
        login = TokenFile(settings.token_file, "kfp-token-file") if settings.token_file else NoLogin()
        # Tried once: the stream waits meanwhile, and what fails is delivered again.
        connection = Connection(settings.url, login, answer_s=_ANSWER_S, attempts=1)
        self._kubeflow = Kubeflow(connection, settings.namespace)

    def deliver(self, delivery: Delivery) -> None:
        """Start a run of the pipeline's latest version, unless it is there."""
        settings, content = self._settings, delivery.content
        name = str(content["name"])
        if self._kubeflow.runs(named=name, at_most=1):
            return
        pipeline = self._kubeflow.find_pipeline(settings.pipeline)
        if pipeline is None:
            raise self._missing("pipeline", settings.pipeline)
        versions = self._kubeflow.versions(pipeline, latest=1)
        if not versions:
            raise self._missing("version of pipeline", settings.pipeline)
        run: dict[str, Any] = {
            "display_name": name,
            "pipeline_version_reference": versions[0].reference(),
            "runtime_config": {"parameters": content["parameters"]},
        }
        if settings.experiment:
            experiment = self._kubeflow.find_experiment(settings.experiment)
            if experiment is None:
                raise self._missing("experiment", settings.experiment)
            run["experiment_id"] = experiment
        if settings.service_account:
            run["service_account"] = settings.service_account
        self._kubeflow.create_run(run)

    def _missing(self, kind: str, name: str) -> UnavailableError:
        return UnavailableError(
            f"{self._settings.url}: expected one {kind} {name!r}, found 0; upload it, or check the name and the "
            "namespace"
        )


@contextmanager
def open_targets(settings: MonitorSettings, kafka: KafkaSettings) -> Generator[dict[Kind, DeliveryTarget]]:
    """Yield where each kind of delivery goes; a kind that has no target is missing.

    Raises:
        UsageError: the alerts' topic is not there.
        UnavailableError: no broker answers, or refuses.
    """
    targets: dict[Kind, DeliveryTarget] = {}
    with ExitStack() as open_until_end:
        if settings.alerts_topic:
            alerts = AlertsTopic(kafka, settings.alerts_topic)
            open_until_end.callback(alerts.close)
            targets["alert"] = alerts
        if settings.run is not None:
            targets["run"] = KubeflowRuns(settings.run)
        yield targets
