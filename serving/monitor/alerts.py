"""An alarm's evidence, its alert as a CloudEvent, and the run that it starts."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from driftline.components.events import drift_event, rfc3339
from driftline.components.mmd.online import Readings
from driftline.serving.monitor.baseline import Baseline
from driftline.serving.monitor.outbox import Delivery
from driftline.serving.monitor.settings import RunSettings
from driftline.serving.monitor.state import MonitorState, RecentRecord
from driftline.serving.records.record import Headers

_LAST_MS: Final = 253_402_300_799_000
"""The last second of the year 9999."""
_NAME_CHARACTERS: Final = 80


def alert_id(topic: str, baseline_key: str, offsets: dict[int, int]) -> str:
    """Return an alarm's id: a function of the offsets at which it was raised, and of the baseline.

    Args:
        topic: the topic that is watched.
        baseline_key: of the baseline.
        offsets: by partition, the offset after the last record seen.
    """
    position = json.dumps([topic, baseline_key, sorted(offsets.items())])
    return hashlib.sha256(position.encode()).hexdigest()[:32]


def evidence(
    topic: str, baseline: Baseline, state: MonitorState, readings: Readings, reading: int, texts: int
) -> dict[str, Any]:
    """Return an alarm's data, a JSON object: the numbers, and the texts that moved.

    It is a function of the stream up to the alarm.

    Args:
        topic: the topic that is watched.
        baseline: what it is compared with.
        state: its offsets and recent records as they were at the alarm.
        readings: some readings.
        reading: number of the reading that raised the alarm.
        texts: number of texts of each kind.
    """
    settings, reference = baseline.calibration.settings, baseline.reference
    times = [record.time_ms for record in state.recent]
    data: dict[str, Any] = {
        "topic": topic,
        "model": reference.model,
        "revision": reference.revision,
        "reference": {"uri": reference.uri, "digest": reference.digest, "rows": reference.sampled},
        "score": float(readings.scores[reading]),
        "threshold": float(readings.thresholds[reading]),
        "sample_size": float(readings.sizes[reading]),
        "position": int(readings.positions[reading]),
        "offsets": {str(partition): offset for partition, offset in sorted(state.offsets.items())},
        "window": {
            "records": len(times),
            "earliest": iso_time(min(times)),
            "latest": iso_time(max(times)),
        },
        "detector": {
            "kind": settings.kind,
            "window": settings.window,
            "kernel": settings.kernel,
            "expected_run_length": settings.ert,
        },
    }
    if texts:
        witness = state.detector.witness(np.stack([record.vector for record in state.recent]), at_alarm=True)
        order = np.argsort(witness, kind="stable")
        recent = [*state.recent]
        data["moved_most"] = [_text(recent[row], float(witness[row])) for row in order[:texts]]
        data["most_like_reference"] = [_text(recent[row], float(witness[row])) for row in order[::-1][:texts]]
    return data


def _text(record: RecentRecord, witness: float) -> dict[str, Any]:
    source = record.source
    return {
        "id": record.id,
        "text": record.text,
        "witness": witness,
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "time": iso_time(source.timestamp_ms),
    }


def alert(topic: str, identity: str, time_ms: int, data: dict[str, Any]) -> Delivery:
    """Return an alarm's alert.

    Args:
        topic: the topic that is watched.
        identity: the alarm's id.
        time_ms: time of the record that raised it; the event has the same bytes whenever it is made.
        data: its evidence.
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
            for name, replacement in names.items():
                value = value.replace(name, replacement)
        return value

    parameters = {name: filled(value) for name, value in settings.parameters}
    # Kubeflow's database limits the length of names; the id makes it unique.
    name = f"drift on {data['topic'][:_NAME_CHARACTERS]} {raised.id}"
    return Delivery("run", raised.id, {"name": name, "parameters": parameters})


def binary_event(event: dict[str, Any]) -> tuple[Headers, bytes]:
    """Return a CloudEvent's record in binary mode: its attributes as headers, its data as the value.

    In this form (CloudEvents' Kafka protocol binding 1.0), a KafkaSource passes it on unchanged.
    """
    attributes = tuple(
        (f"ce_{name}", str(value).encode()) for name, value in event.items() if name not in ("data", "datacontenttype")
    )
    value = json.dumps(event["data"], ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    return (*attributes, ("content-type", str(event["datacontenttype"]).encode())), value


def iso_time(time_ms: int) -> str:
    """Return a time in milliseconds since 1970 as RFC 3339, in UTC; times before 1970 or after 9999 are clipped."""
    return rfc3339(_moment(time_ms))


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(min(max(time_ms, 0), _LAST_MS) / 1000, UTC)
