"""The monitor as a process, on a real broker: killed, told to end, left alone by its broker, started twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from kafka import KafkaProducer
from numpy.typing import NDArray

from driftline.components.errors import DriftlineError, UsageError
from driftline.components.storage.objects import store
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor import topic, worker
from driftline.serving.monitor.monitor import ObservedRecord, read_record
from driftline.serving.monitor.settings import MonitorSettings, RunSettings
from driftline.serving.monitor.state import STATE_NAME, MonitorState, StateFile
from driftline.serving.process import StopSignal
from driftline.serving.records.provenance import source_headers
from driftline.serving.records.record import Coordinates, Record
from tests.serving.monitor.conftest import Bench
from tests.serving.monitor.kubeflow import kubeflow_with_drift
from tests.serving.monitor.streams import SMALL, Inbox, value, vectors
from tests.support.brokers import (
    create_topics,
    eventually,
    fresh,
    noida_broker,
    read_topic,
    restartable_broker,
    settings_of,
)
from tests.support.kubeflow_double import serving_kubeflow

PARTITIONS = 4
QUIET = SMALL.ert // 10
ROWS = vectors(5000, seed=5, shift_at=QUIET)
EPOCH_MS = round(time.time() * 1000) - 3_600_000
"""An hour ago: brokers remove records that are older than a topic's retention."""

PROGRAM = """
import os, signal, sys, threading
from driftline.serving.__main__ import serving
from driftline.serving.monitor import topic
from driftline.serving.monitor.state import StateFile

topic._PATIENCE_S = 900.0
saves, delay_s, save = int(sys.argv.pop(1)), float(sys.argv.pop(1)), StateFile.save

def counted(self, state):
    global saves
    save(self, state)
    saves -= 1
    if not saves:
        threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

StateFile.save = counted
serving()
"""
"""The command, killed at any moment soon after so many saves; 0 for never."""


@pytest.fixture(scope="module")
def broker() -> Generator[str]:
    with noida_broker() as bootstrap:
        yield bootstrap


@pytest.fixture(autouse=True)
def more_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that lie in the topic have one order, unless a partition gives nothing for so long."""
    monkeypatch.setattr(topic, "_PATIENCE_S", 900.0)


def records_of(topic: str, rows: NDArray[np.float32]) -> list[Record]:
    """The rows as a topic's records, in the order of their times, on all partitions, with where their texts lie."""
    rng = random.Random(3)
    offsets = [0] * PARTITIONS
    found = []
    for number, row in enumerate(rows):
        partition = rng.randrange(PARTITIONS)
        source = Record(None, None, (), Coordinates("texts", 0, number, EPOCH_MS))
        at = Coordinates(topic, partition, offsets[partition], EPOCH_MS + number)
        offsets[partition] += 1
        found.append(Record(f"id-{number}".encode(), value(number, row), source_headers(source), at))
    return found


def send(bootstrap: str, records: Sequence[Record]) -> None:
    with closing(KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)) as producer:
        for record in records:
            producer.send(
                record.at.topic,
                key=record.key,
                value=record.value,
                headers=[*record.headers],
                partition=record.at.partition,
                timestamp_ms=record.at.timestamp_ms,
            )
        producer.flush()


@dataclass
class Stream:
    """A topic of embeddings with its alerts topic, and a bench whose settings name them."""

    bootstrap: str
    bench: Bench
    topic: str = field(default_factory=lambda: fresh("embeddings"))
    alerts: str = field(default_factory=lambda: fresh("alerts"))

    def __post_init__(self) -> None:
        create_topics(self.bootstrap, {self.topic: PARTITIONS, self.alerts: 1})
        self.records = records_of(self.topic, ROWS)

    @property
    def settings(self) -> MonitorSettings:
        return replace(self.bench.settings, topic=self.topic, alerts_topic=self.alerts)

    def seen(self) -> int:
        """Records that the stored state has seen."""
        state = self.state()
        return 0 if state is None else sum(state.offsets.values())

    def state(self) -> MonitorState | None:
        return StateFile(self.settings.state).load(self.bench.baseline)

    def uninterrupted(self) -> tuple[bytes, Inbox]:
        """The state, and the alerts, of a monitor that was given all records in the order of their times."""
        inbox = Inbox()
        monitor = self.bench.monitor(
            topic=self.topic, state=self.settings.state + "-whole", targets={"alert": inbox}, fresh=True
        )
        taken: list[ObservedRecord] = [read_record(record) for record in self.records]
        monitor.state.offsets.update(dict.fromkeys(range(PARTITIONS), 0))
        monitor.observe(taken)
        return monitor.state.to_bytes(), inbox

    def alert_ids(self) -> list[str]:
        return [dict(found.headers)["ce_id"].decode() for found in read_topic(self.bootstrap, self.alerts)]


@pytest.fixture
def topics(broker: str, bench: Bench) -> Stream:
    return Stream(broker, bench)


@dataclass
class Running:
    """A monitor in a thread."""

    stop: StopSignal = field(default_factory=StopSignal)
    port: int = 0
    error: list[DriftlineError] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@contextmanager
def running(settings: MonitorSettings, bootstrap: str) -> Generator[Running]:
    monitor = Running()

    def on_listening(port: int) -> None:
        monitor.port = port

    def run() -> None:
        try:
            worker.run(settings, settings_of(bootstrap), monitor.stop, health_port=0, on_listening=on_listening)
        except DriftlineError as error:
            monitor.error.append(error)
        finally:
            monitor.ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: monitor.port > 0 or monitor.ended.is_set())
        yield monitor
    finally:
        monitor.stop.set()
        thread.join(60)


def test_a_stream_is_watched_and_its_alarm_told(topics: Stream) -> None:
    send(topics.bootstrap, topics.records[:1000])
    with running(topics.settings, topics.bootstrap) as monitor:
        eventually(lambda: monitor.ended.is_set() or monitor.metric("driftline_monitor_records_total") == 1000)
        eventually(lambda: monitor.ended.is_set() or bool(topics.alert_ids()))
        assert monitor.get("/livez") == (200, "ok\n")
        assert monitor.get("/readyz") == (200, "ok\n")
        eventually(lambda: monitor.metric("driftline_monitor_lag_records") == 0)
        assert monitor.metric("driftline_monitor_alarms_total") == 1
        assert monitor.metric("driftline_monitor_drifting") == 1
        assert monitor.metric("driftline_monitor_score") > monitor.metric("driftline_monitor_threshold") > 0
        assert monitor.metric("driftline_monitor_pending") == 0
    assert monitor.error == []
    (alert,) = read_topic(topics.bootstrap, topics.alerts)
    headers = dict(alert.headers)
    assert (headers["ce_type"], headers["content-type"]) == (b"driftline.drift.detected", b"application/json")
    data = json.loads(alert.value or b"")
    assert QUIET < data["position"] < QUIET + 2 * SMALL.window
    assert {text["topic"] for text in data["moved_most"]} == {"texts"}
    # What was in hand at the end is in the state.
    assert topics.seen() == 1000


def command(topics: Stream, saves: int, delay_s: float) -> list[str]:
    online = topics.settings.reference.online
    options = {
        "bootstrap-servers": topics.bootstrap,
        "topic": topics.topic,
        "reference": topics.settings.reference.dataset,
        "state": topics.settings.state,
        "alerts-topic": topics.alerts,
        "components": topics.settings.reference.components,
        "ert": online.ert,
        "window": online.window,
        "steps": online.steps,
        "features": online.features,
        "save-interval-s": 0,
        "health-port": -1,
    }
    arguments = ["monitor", *(f"--{name}={v}" for name, v in options.items())]
    return [sys.executable, "-c", PROGRAM, str(saves), str(delay_s), *arguments]


@contextmanager
def process(topics: Stream, log: Path, saves: int = 0, delay_s: float = 0.0) -> Generator[subprocess.Popen[bytes]]:
    arguments, environment = command(topics, saves, delay_s), {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with log.open("ab") as file, subprocess.Popen(arguments, stderr=file, env=environment) as found:
        try:
            yield found
        finally:
            found.kill()


@pytest.mark.slow
def test_killed_again_and_again_it_comes_to_the_same(topics: Stream, tmp_path: Path) -> None:
    send(topics.bootstrap, topics.records)
    moments, seen, log = random.Random(1), [0], tmp_path / "log"
    for _ in range(4):
        # The first two saves say where it begins.
        with process(topics, log, moments.randrange(3, 6), moments.uniform(0.0, 0.02)) as one:
            assert one.wait(60) == -signal.SIGKILL, log.read_text()
        seen.append(topics.seen())
    # A kill may come before a save that tells more: none goes back, and not all are so early.
    assert seen == sorted(seen)
    assert 0 < seen[-1] < len(ROWS), "done before the last kill, or never begun"
    log = tmp_path / "last"
    with process(topics, log) as last:
        # The one before may have seen every record: this one is told to end when it watches, not while Python starts.
        eventually(lambda: "watching" in log.read_text() and topics.seen() == len(ROWS))
        last.send_signal(signal.SIGTERM)
        assert last.wait(60) == 0
    state = topics.state()
    assert state is not None
    whole, inbox = topics.uninterrupted()
    assert state.to_bytes() == whole
    assert state.alarms == len(inbox.got) > 0
    # Each alarm once, or again under its id where the end came between producing it and writing that down.
    assert list(dict.fromkeys(topics.alert_ids())) == [delivery.id for delivery in inbox.got]
    assert len(topics.alert_ids()) <= len(inbox.got) + 4


def test_the_broker_may_be_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_AWAY_S", 1.0)
    with restartable_broker() as broker:
        topics = Stream(broker.address, bench)
        with running(topics.settings, broker.address) as monitor:
            send(broker.address, topics.records[:400])
            eventually(lambda: topics.seen() == 400)
            broker.stop()
            eventually(lambda: monitor.get("/readyz")[0] == 503)
            assert "Kafka has not answered for" in monitor.get("/readyz")[1]
            assert monitor.get("/livez")[0] == 200
            broker.start()
            send(broker.address, topics.records[400:1000])
            eventually(lambda: topics.seen() == 1000 and bool(topics.alert_ids()))
            eventually(lambda: monitor.get("/readyz")[0] == 200)
        assert monitor.error == []


def test_a_second_monitor_takes_the_place_of_the_first(topics: Stream) -> None:
    with running(topics.settings, topics.bootstrap) as first:
        send(topics.bootstrap, topics.records[:200])
        eventually(lambda: topics.seen() == 200)
        with running(topics.settings, topics.bootstrap) as second:
            eventually(lambda: second.get("/readyz")[0] == 200)
            send(topics.bootstrap, topics.records[200:500])
            assert first.ended.wait(60)
            eventually(lambda: topics.seen() == 500)
            (error,) = first.error
            assert isinstance(error, UnavailableError)
            assert "another monitor has written it; run one monitor for a topic" in str(error)
        assert second.error == []


def test_an_alarm_starts_a_run(topics: Stream) -> None:
    kubeflow = kubeflow_with_drift()
    with serving_kubeflow(kubeflow) as url:
        parameters = (("reference", topics.settings.reference.dataset), ("output_folder", "gs://b/{alert}"))
        settings = replace(topics.settings, run=RunSettings(url, "drift", parameters))
        send(topics.bootstrap, topics.records[:1000])
        with running(settings, topics.bootstrap) as monitor:
            eventually(lambda: monitor.ended.is_set() or bool(kubeflow.runs and topics.alert_ids()))
        assert monitor.error == []
    (identity,) = topics.alert_ids()
    (run,) = kubeflow.runs.values()
    (version,) = kubeflow.versions.values()
    assert run["display_name"] == f"drift on {topics.topic} {identity}"
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert run["runtime_config"]["parameters"] == {
        "reference": topics.settings.reference.dataset,
        "output_folder": f"gs://b/{identity}",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topic": "none"}, r"topic none: is not at .*; name the topic that the stream worker writes, or create it"),
        ({"alerts_topic": "none"}, r"alerts-topic none: is not at .*; create it, or check the name"),
    ],
)
def test_a_missing_topic_ends_it(topics: Stream, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        worker.run(replace(topics.settings, **changes), settings_of(topics.bootstrap), StopSignal())


def test_a_damaged_state_ends_it(topics: Stream) -> None:
    store.write_bytes(store.join(topics.settings.state, STATE_NAME), b"not a state")
    with pytest.raises(DriftlineError, match=r"state\.npz: driftline\.monitor-state: expected bytes that Driftline"):
        worker.run(topics.settings, settings_of(topics.bootstrap), StopSignal())
