"""The streaming demonstration, from a broker to an alarm to a drift report.

A broker, the KServe server, a stream worker, the archive and the online monitor run as processes of their own on free
local ports. Reviews stream in, some are deleted, some records are poison; then plots come among the reviews. The
monitor must raise its alarm after that, and not before; what was archived then goes through the drift pipeline.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.errors import DriftlineError, UsageError
from driftline.components.mmd.result import DriftResult
from driftline.components.random_bits import check_seed
from driftline.components.storage.objects.location import is_gcs
from driftline.components.storage.objects.store import remove_tree
from driftline.pipelines.demo.broker import HOST, free_ports, noida_broker
from driftline.pipelines.demo.data import Text, fetch_model, fetch_texts, write_window
from driftline.pipelines.demo.screen import Reading, Show, showing
from driftline.pipelines.demo.senders import Asker, Sender
from driftline.pipelines.demo.services import Service, running
from driftline.pipelines.demo.traffic import QUIET_TEXTS, Message, Traffic, plan_traffic
from driftline.pipelines.runs import compared, run_drift, run_embed
from driftline.serving.kafka.dead_letter_replay import count_letters
from driftline.serving.kafka.reader import read_topic
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.kafka.topics import create_topics
from driftline.serving.records.provenance import dead_letters_topic

TEXTS: Final = "film-reviews"
EMBEDDINGS: Final = "film-reviews.embeddings"
ALERTS: Final = "film-reviews.alerts"
ERT: Final = 10 * QUIET_TEXTS
"""Ten times the quiet part: a false alarm in it would be a surprise."""

WINDOW: Final = 160

_POLL_S: Final = 0.5
_RATE_READINGS: Final = 10
_SETTLE_TIMEOUT_S: Final = 120.0  # what is in flight when the last record has been sent


class DemonstrationError(DriftlineError):
    """The demonstration did not go as it must; says what went otherwise."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The running processes."""

    server: Service
    worker: Service
    archive: Service
    monitor: Service

    def check(self) -> None:
        """Raise ServiceError where one of them has ended."""
        for service in (self.server, self.worker, self.archive, self.monitor):
            service.check()


def run_streaming_demo(folder: str, seed: int, say: Callable[[str], None]) -> DriftResult:
    """Stream film reviews through every part of the streaming side, and say what was found.

    Args:
        folder: where everything goes; model, texts and the reference's embeddings are kept for a second run.
        seed: decides which texts are streamed when, and the monitor's random features.
        say: takes each line of the outcome.

    Returns:
        The result of the drift run on the archive's two hours.

    Raises:
        DemonstrationError: an alarm before the shift, none after it, or a record that got lost.
        ServiceError: a process did not start, or ended by itself.
    """
    check_seed(seed)
    if is_gcs(folder):
        raise UsageError(f"folder: expected a local folder, got {folder}; the demonstration runs on this machine alone")
    home = Path(folder).absolute()
    model = fetch_model(home)
    texts = fetch_texts(home)
    now_ms = time.time_ns() // 1_000_000
    traffic = plan_traffic(texts, seed, now_ms)
    reference = str(home / "embeddings" / "stream-reference")
    window = write_window(home / "texts" / "stream-reference.jsonl", "film reviews", traffic.reference)
    run_embed([str(window.path)], str(model), reference, BackfillSettings(), "embed reference")
    work = home / "stream"
    shutil.rmtree(work, ignore_errors=True)
    with noida_broker(work / "broker") as broker:
        kafka = KafkaSettings((broker.address,))
        create_topics(kafka, dict.fromkeys((TEXTS, EMBEDDINGS, ALERTS, dead_letters_topic(TEXTS)), 1))
        commands = _commands(broker.address, str(model), reference, work, free_ports(4))
        with running(work / "logs", commands) as services:
            say(
                f"Running: a broker at {broker.address}, the server at {services[0].url}, the worker, the archive and "
                "the monitor"
            )
            stream = _Stream(kafka, Parts(*services), model.name, traffic.reference)
            shifted_from = stream.run(traffic)
        # The archive has written what it held, and all have ended.
        alert = _alert(kafka)
        _check_dead_letters(kafka, traffic)
    _say_alert(alert, shifted_from, say)
    hours = [_hour(work / "archive", part[0].timestamp_ms) for part in (traffic.quiet, traffic.shifted)]
    out = str(home / "reports" / "stream")
    remove_tree(out)  # of the demonstration before: a run writes over no report
    result = compared(run_drift(str(hours[0]), str(hours[1]), out, DriftSettings(seed=seed), "drift archive"))
    say("")
    say(
        f"The drift pipeline on the archive, {result.reference.sampled:,} vectors of the hour before against "
        f"{result.current.sampled:,} of this one: p = {result.p_value:.4f}, {result.verdict}"
    )
    say(f"Its report, to open in a browser: {Path(folder) / 'reports' / 'stream' / 'report.html'}")
    return result


def _commands(
    address: str, model: str, reference: str, work: Path, ports: Sequence[int]
) -> list[tuple[str, list[str], int, str]]:
    """Return the processes to run, as :func:`.services.running` takes them."""
    server, worker, archive, monitor = ports
    kafka = ["--bootstrap-servers", address]
    return [
        (
            "serve",
            ["--model", model, "--host", HOST, "--http-port", str(server), "--grpc-port", "-1", "--drain-delay-s", "0"],
            server,
            "/v2/health/ready",
        ),
        (
            "stream",
            [
                *kafka, "--input-topic", TEXTS, "--output-topic", EMBEDDINGS, "--model", model,
                "--group", "demo", "--instance-id", "demo-0", "--health-port", str(worker),
            ],
            worker,
            "/readyz",
        ),
        (
            "archive",
            [
                *kafka, "--topic", EMBEDDINGS, "--out", str(work / "archive"), "--instance-id", "demo-archive",
                "--max-delay-s", "5", "--health-port", str(archive),
            ],
            archive,
            "/readyz",
        ),
        (
            "monitor",
            [
                *kafka, "--topic", EMBEDDINGS, "--reference", reference, "--state", str(work / "monitor"),
                "--alerts-topic", ALERTS, "--ert", str(ERT), "--window", str(WINDOW), "--health-port", str(monitor),
            ],
            monitor,
            "/readyz",
        ),
    ]  # fmt: skip


class _Stream:
    """Sends the traffic, watches the parts, and shows how the stream stands."""

    def __init__(self, kafka: KafkaSettings, parts: Parts, model: str, asked: Sequence[Text]) -> None:
        self._parts = parts
        self._sender = Sender(kafka, TEXTS)
        self._asker = Asker(parts.server.url, model, [text.text for text in asked])
        self._embedded: deque[tuple[float, int]] = deque(maxlen=_RATE_READINGS)

    def run(self, traffic: Traffic) -> int:
        """Send both parts; return how many vectors the monitor had seen when the shift began.

        Raises:
            DemonstrationError: an alarm before the shift, or none after it.
        """
        with showing() as show, self._asker.asking():
            quiet = self._phase(show, "reviews", traffic.quiet)
            if quiet.alarms:
                raise DemonstrationError(
                    f"monitor: raised an alarm among {quiet.embedded} reviews like those of the reference; with an "
                    f"expected run of {ERT} records this happens now and then: try another --seed"
                )
            shifted = self._phase(show, "plots among the reviews", traffic.shifted)
        if not shifted.alarms:
            raise DemonstrationError("monitor: raised no alarm although plots came among the reviews; see its log")
        return quiet.embedded

    def _phase(self, show: Show, name: str, messages: Sequence[Message]) -> Reading:
        with self._sender.sending(messages) as sending:
            while sending.is_alive():
                sending.join(_POLL_S)
                self._reading(show, name)
        if self._sender.failure is not None:
            raise DemonstrationError(f"sender: {self._sender.failure}; see the broker's log")
        end = time.monotonic() + _SETTLE_TIMEOUT_S
        while True:
            reading = self._reading(show, name)
            done = reading.embedded + reading.deleted + reading.dead_letters
            if done >= self._sender.sent and self._seen >= reading.embedded and reading.archived >= reading.embedded:
                return reading
            if time.monotonic() > end:
                raise DemonstrationError(
                    f"stream: {self._sender.sent} records were sent, {done} came through, the monitor saw {self._seen} "
                    f"vectors and the archive {reading.archived}; see the logs"
                )
            time.sleep(_POLL_S)

    def _reading(self, show: Show, phase: str) -> Reading:
        self._parts.check()
        worker, archive, monitor = (
            part.metrics() for part in (self._parts.worker, self._parts.archive, self._parts.monitor)
        )
        embedded, deleted, letters = (
            int(worker.get(f"driftline_stream_written_records_total:{outcome}", 0))
            for outcome in ("embedding", "tombstone", "dead-letter")
        )
        self._sender.taken(embedded + deleted + letters)
        self._seen = int(monitor.get("driftline_monitor_records_total", 0))
        self._embedded.append((time.monotonic(), embedded))
        (first, before), (last, now) = self._embedded[0], self._embedded[-1]
        reading = Reading(
            phase=phase,
            sent=self._sender.sent,
            embedded=embedded,
            deleted=deleted,
            dead_letters=letters,
            archived=int(archive.get("driftline_archive_rows_total", 0)),
            rate=(now - before) / (last - first) if last > first else 0.0,
            lag=max(0, self._sender.sent - embedded - deleted - letters),
            p99_ms=self._asker.p99_ms,
            score=monitor.get("driftline_monitor_score", math.nan),
            threshold=monitor.get("driftline_monitor_threshold", math.inf),
            alarms=int(monitor.get("driftline_monitor_alarms_total", 0)),
        )
        show(reading)
        return reading


def _alert(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the data of the first alert's CloudEvent."""
    for record in read_topic(kafka, ALERTS):
        if record.value is not None:
            return json.loads(record.value)
    raise DemonstrationError(f"monitor: counted an alarm, but topic {ALERTS} has no alert; see its log")


def _check_dead_letters(kafka: KafkaSettings, traffic: Traffic) -> None:
    """Raise DemonstrationError unless each poison, and nothing else, is a dead letter with its reason."""
    sent = Counter(one.reason for one in (*traffic.quiet, *traffic.shifted) if one.kind == "poison")
    topic = dead_letters_topic(TEXTS)
    found = {one.reason: one.letters for one in count_letters(kafka, topic, f"{topic}.replay")}
    if found != sent:
        raise DemonstrationError(f"dead letters: expected {dict(sent)}, got {found}")


def _say_alert(alert: dict[str, Any], shifted_from: int, say: Callable[[str], None]) -> None:
    say("")
    say(
        f"The alarm: raised with vector {alert['position']:,}, {alert['position'] - shifted_from:,} after plots had "
        f"begun to come; none in the {shifted_from:,} before. Score {alert['score']:.4f}, threshold "
        f"{alert['threshold']:.4f}."
    )
    say("The texts that moved most:")
    for text in alert["moved_most"]:
        shown = " ".join((text.get("text") or text["id"]).split())
        say(f"  {shown[:100]}{'…' if len(shown) > 100 else ''}")


def _hour(archive: Path, timestamp_ms: int) -> Path:
    """Return the archive's folder for the hour of a time."""
    time_ = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return archive / f"date={time_:%Y-%m-%d}" / f"hour={time_:%H}"
