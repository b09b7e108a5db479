"""The monitor inside a stream worker: the same alarms, and never in the stream's way."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.in_process import InProcessMonitor, in_process_monitor
from driftline.serving.records.embeddings import EmbeddedText
from driftline.serving.records.record import Coordinates
from driftline.serving.stream.worker import Observer
from tests.serving.monitor.conftest import Bench
from tests.serving.monitor.streams import SMALL, Inbox, stream, vectors

STREAM = stream(vectors(1000, seed=5, shift_at=SMALL.ert // 10))
BATCH: list[tuple[EmbeddedText, Coordinates]] = [(found.embedded, found.at) for found in STREAM if found.embedded]


def opened(bench: Bench, inbox: Inbox) -> tuple[InProcessMonitor, CollectorRegistry]:
    registry = CollectorRegistry()
    return in_process_monitor(bench.settings, {"alert": inbox}, registry), registry


def test_a_worker_sees_the_alarms_that_the_topic_has(bench: Bench) -> None:
    inside, outside = Inbox(), Inbox()
    monitor, registry = opened(bench, inside)
    observer: Observer = monitor
    for start in range(0, len(BATCH), 64):
        observer.observe(BATCH[start : start + 64])
    monitor.close()
    bench.monitor(targets={"alert": outside}, fresh=True, state=bench.settings.state + "-2").observe(STREAM)
    assert len(inside.got) == 1
    assert inside.got == outside.got
    assert registry.get_sample_value("driftline_monitor_alarms_total") == 1
    assert registry.get_sample_value("driftline_monitor_records_total") == len(BATCH)


def test_it_goes_on_with_its_state(bench: Bench) -> None:
    inbox = Inbox()
    for start, stop in ((0, 333), (333, 700), (700, 1000)):
        monitor, _ = opened(bench, inbox)
        monitor.observe(BATCH[start:stop])
        monitor.close()
    assert len(inbox.got) == 1
    assert bench.monitor().state.offsets == {0: 1000}


def test_the_stream_goes_on_where_watching_cannot(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    monitor, _ = opened(bench, Inbox())
    bench.monitor().save()  # another one takes the state
    with caplog.at_level(logging.ERROR, "driftline"):
        monitor.observe(BATCH[:100])
        monitor.observe(BATCH[100:200])
        monitor.close()
    assert not monitor.watching
    (line,) = caplog.messages
    assert line.startswith("the monitor ends, the stream goes on: ")


def test_alerts_that_cannot_be_sent_are_not_in_the_way(bench: Bench) -> None:
    monitor, registry = opened(bench, Inbox([UnavailableError("away")] * 10))
    monitor.observe(BATCH)
    assert monitor.watching
    assert registry.get_sample_value("driftline_monitor_pending") == 1


def test_two_workers_need_a_place_each(bench: Bench) -> None:
    first, _ = opened(bench, Inbox())
    other = Bench(replace(bench.settings, state=bench.settings.state + "-2"), bench.baseline)
    second, _ = opened(other, Inbox())
    first.observe(BATCH[:50])
    second.observe(BATCH[50:100])
    first.close()
    second.close()
    assert first.watching
    assert second.watching
