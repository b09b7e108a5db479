"""An alarm as a CloudEvent, and what is left to deliver."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from driftline.components.events import drift_event, rfc3339
from driftline.serving.monitor.settings import RunSettings
from driftline.serving.records.record import Headers

_LAST_MS: Final = 253_402_300_799_000
"""The last second of the year 9999."""
_NAME_CHARACTERS: Final = 80

Kind = Literal["alert", "run"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that an alarm has to bring about, kept until it has been.

    Attributes:
        kind: an alert to produce, or a run to start.
        id: of the alarm, the same however often it is delivered.
        content: a JSON object: the CloudEvent in its structured form, or the run's name and parameters.
    """

    kind: Kind
    id: str
    content: dict[str, Any]


def alert_id(topic: str, baseline_key: str, offsets: dict[int, int]) -> str:
    """Return an alarm's id: a function of the stream's place at which it was raised, and of what it was compared with.

    Args:
        topic: the topic that is watched.
        baseline_key: of the baseline.
        offsets: by partition, the offset after the last record seen.
    """
    place = json.dumps([topic, baseline_key, sorted(offsets.items())])
    return hashlib.sha256(place.encode()).hexdigest()[:32]


def alert(topic: str, identity: str, time_ms: int, data: dict[str, Any]) -> Delivery:
    """Return an alarm's alert.

    Args:
        topic: the topic that is watched.
        identity: the alarm's id.
        time_ms: time of the record with which it was raised; the event has the same bytes whenever it is made.
        data: what is known of it.
    """
    source = f"/driftline/monitors/{quote(topic, safe='')}"
    event = drift_event(identity, source, topic, _moment(time_ms), data)
    return Delivery("alert", identity, event)


def run_of(settings: RunSettings, raised: Delivery) -> Delivery:
    """Return the run that an alert starts."""
    data = raised.content["data"]
    names = {
        "{alert}": raised.id,
        "{first_date}": data["window"]["earliest"][:10],
        "{last_date}": data["window"]["latest"][:10],
    }

    def filled(value: object) -> object:
        if isinstance(value, str):
            for name, meaning in names.items():
                value = value.replace(name, meaning)
        return value

    parameters = {name: filled(value) for name, value in settings.parameters}
    # Kubeflow's database holds names of limited length; the id makes it one of its own.
    name = f"drift on {data['topic'][:_NAME_CHARACTERS]} {raised.id}"
    return Delivery("run", raised.id, {"name": name, "parameters": parameters})


def binary_event(event: dict[str, Any]) -> tuple[Headers, bytes]:
    """Return a CloudEvent's record in binary mode: its attributes as headers, its data as the value.

    So written (CloudEvents' Kafka protocol binding 1.0), a KafkaSource passes it on as it is.
    """
    attributes = tuple(
        (f"ce_{name}", str(value).encode()) for name, value in event.items() if name not in ("data", "datacontenttype")
    )
    value = json.dumps(event["data"], ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    return (*attributes, ("content-type", str(event["datacontenttype"]).encode())), value


def iso_time(time_ms: int) -> str:
    """Return a time in milliseconds since 1970 as RFC 3339, in UTC; producers may write any, and far ones are cut."""
    return rfc3339(_moment(time_ms))


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(min(max(time_ms, 0), _LAST_MS) / 1000, UTC)
