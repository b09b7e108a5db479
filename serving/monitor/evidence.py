"""What is known of an alarm: the numbers, and the texts that moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline.components.mmd.online import Readings
from driftline.serving.monitor.alerts import iso_time
from driftline.serving.monitor.baseline import Baseline
from driftline.serving.monitor.state import MonitorState, RecentRecord


def evidence(
    topic: str, baseline: Baseline, state: MonitorState, readings: Readings, reading: int, texts: int
) -> dict[str, Any]:
    """Return an alarm's data, a JSON object that is a function of what the stream was up to the alarm.

    Args:
        topic: the topic that is watched.
        baseline: what it is compared with.
        state: its offsets and recent records as they were at the alarm, its latest.
        readings: some readings.
        reading: number of the one that raised it.
        texts: how many to name of each kind.
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
