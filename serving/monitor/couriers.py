"""Where deliveries go: alerts to a topic, runs to Kubeflow Pipelines."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from kafka.errors import KafkaError

from driftline.components.errors import UsageError
from driftline.serving.broker.clients import brokers, open_admin, open_producer
from driftline.serving.broker.settings import KafkaSettings
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.alerts import Delivery, binary_event
from driftline.serving.monitor.settings import RunSettings

_REQUEST_S: Final = 8.0  # all replicas have it within milliseconds, unless a leader has gone
_ACKNOWLEDGED_S: Final = 20.0  # time to find a new leader; the stream waits meanwhile
_ANSWER_S: Final = 10.0  # the API server asks its database; the stream waits meanwhile
_SHOWN: Final = 300


class AlertsTopic:
    """Produces alerts as CloudEvents in binary mode, keyed by the topic that is watched.

    At least once: an alert that was produced just before a crash is produced again, with the same id and bytes.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """Open a producer.

        Args:
            kafka: how to reach the cluster.
            topic: where alerts go.

        Raises:
            UsageError: the topic is not there.
            UnavailableError: no broker answers, or refuses.
        """
        self._kafka = kafka
        self._topic = topic
        self._check()
        # A record that is given up here is not sent later either, when it is given to another `send`.
        self._producer = open_producer(
            kafka,
            request_timeout_ms=round(_REQUEST_S * 1000),
            delivery_timeout_ms=round(_ACKNOWLEDGED_S * 1000),
            max_block_ms=round(_REQUEST_S * 1000),
        )

    def deliver(self, delivery: Delivery) -> None:
        """Produce an alert, and return when all replicas have it."""
        headers, value = binary_event(delivery.content)
        key = str(delivery.content["subject"]).encode()
        try:
            sent = self._producer.send(self._topic, key=key, value=value, headers=[*headers])
            sent.get(timeout=_ACKNOWLEDGED_S + _REQUEST_S)
        except KafkaError as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """End the connection."""
        self._producer.close()

    def _check(self) -> None:
        admin: Any = open_admin(self._kafka)
        try:
            (found,) = admin.describe_topics([self._topic])
        except KafkaError as error:
            raise self._unavailable(error) from error
        finally:
            admin.close()
        if found["error_code"]:
            raise UsageError(
                f"alerts-topic {self._topic}: is not at {brokers(self._kafka)}; create it, or check the name"
            )

    def _unavailable(self, error: KafkaError) -> UnavailableError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return UnavailableError(f"topic {self._topic} at {brokers(self._kafka)}: {reason}")


class KubeflowRuns:
    """Starts runs by the REST API of Kubeflow Pipelines, v2beta1.

    A run is named after its alarm, and looked for before it is started: a second delivery starts no second run.
    """

    def __init__(self, settings: RunSettings) -> None:
        """Start nothing yet.

        Args:
            settings: which pipeline, where.
        """
        self._settings = settings
        self._base = settings.url.rstrip("/") + "/apis/v2beta1/"

    def deliver(self, delivery: Delivery) -> None:
        """Start a run of the pipeline's latest version, unless it is there."""
        settings, content = self._settings, delivery.content
        name = str(content["name"])
        if self._named("runs", name):
            return
        pipeline = self._only("pipeline", self._named("pipelines", settings.pipeline), settings.pipeline)
        pipeline_id = str(pipeline["pipeline_id"])
        latest = {"page_size": "1", "sort_by": "created_at desc"}
        found = self._asked(f"pipelines/{quote(pipeline_id, safe='')}/versions?{urlencode(latest)}")
        versions = found.get("pipeline_versions") or []
        version = self._only("version of pipeline", versions, settings.pipeline)
        run: dict[str, Any] = {
            "display_name": name,
            "pipeline_version_reference": {
                "pipeline_id": pipeline_id,
                "pipeline_version_id": str(version["pipeline_version_id"]),
            },
            "runtime_config": {"parameters": content["parameters"]},
        }
        if settings.experiment:
            experiments = self._named("experiments", settings.experiment)
            run["experiment_id"] = self._only("experiment", experiments, settings.experiment)["experiment_id"]
        if settings.service_account:
            run["service_account"] = settings.service_account
        self._asked("runs", run)

    def _named(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Return the things of a kind that have a name."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        query = {"filter": json.dumps({"predicates": [predicate]})}
        if self._settings.namespace:
            query["namespace"] = self._settings.namespace
        return self._asked(f"{kind}?{urlencode(query)}").get(kind) or []

    def _only(self, kind: str, found: list[dict[str, Any]], name: str) -> dict[str, Any]:
        if len(found) != 1:
            raise UnavailableError(
                f"{self._settings.url}: expected one {kind} {name!r}, found {len(found)}; upload it, or check the name "
                "and the namespace"
            )
        return found[0]

    def _asked(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a GET, or to a POST of a body."""
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._settings.token_file:
            headers["Authorization"] = f"Bearer {self._token()}"
        content = None if body is None else json.dumps(body).encode()
        # The settings allow http and https alone.
        request = Request(self._base + path, content, headers)
        url = self._base + path.partition("?")[0]
        try:
            with urlopen(request, timeout=_ANSWER_S) as response:
                answer = json.loads(response.read() or b"{}")
        except HTTPError as error:
            told = " ".join(error.read(4 * _SHOWN).decode("utf-8", "replace").split())[:_SHOWN]
            status = HTTPStatus(error.code).phrase if error.code in {*HTTPStatus} else ""
            raise UnavailableError(f"{url}: answers {error.code} {status}: {told or 'nothing more'}") from error
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UnavailableError(f"{url}: gives no answer ({reason}); check the address and the network") from error
        if not isinstance(answer, dict):
            raise UnavailableError(f"{url}: expected a JSON object, got something else; check the address")
        return answer

    def _token(self) -> str:
        place = self._settings.token_file
        try:
            return Path(place).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is not plain text"
            raise UnavailableError(f"kfp-token-file {place}: {reason}; name a file that holds a token") from error
