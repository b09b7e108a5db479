"""The two who use what the demonstration runs: one sends records, the other asks the server for vectors."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from driftline.pipelines.demo.traffic import Message
from driftline.serving.kafka.client import open_producer
from driftline.serving.kafka.settings import KafkaSettings

RECORDS_A_SECOND: Final = 150
MOST_AHEAD: Final = 600
"""Records that may wait for the worker: on a slow machine the stream is as fast as the worker."""

_STEP_S: Final = 0.1
_QUERY_INTERVAL_S: Final = 0.25
_QUERY_TIMEOUT_S: Final = 30.0
_QUERIES_KEPT: Final = 200


class Sender:
    """Produces messages at a steady rate, in order, as long as the worker keeps up."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._taken = 0
        self.sent = 0
        self.failure: BaseException | None = None

    def taken(self, records: int) -> None:
        """Hear how many records the worker has taken since the start."""
        self._taken = records

    @contextmanager
    def sending(self, messages: Sequence[Message]) -> Generator[threading.Thread]:
        """Send messages in a thread of its own; the block's end stops it."""
        stop = threading.Event()

        def send() -> None:
            try:
                self._send(messages, stop)
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits
                self.failure = error

        thread = threading.Thread(target=send, name="demo-sender", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join()

    def _send(self, messages: Sequence[Message], stop: threading.Event) -> None:
        producer = open_producer(self._kafka)
        try:
            began, done = time.monotonic(), 0
            while done < len(messages) and not stop.is_set():
                due = min(len(messages), int((time.monotonic() - began) * RECORDS_A_SECOND))
                room = MOST_AHEAD - (self.sent - self._taken)
                for message in messages[done : min(due, done + max(room, 0))]:
                    producer.send(self._topic, key=message.key, value=message.value, timestamp_ms=message.timestamp_ms)
                    self.sent += 1
                    done += 1
                stop.wait(_STEP_S)
            producer.flush()
        finally:
            producer.close()


class Asker:
    """Asks the server for the vector of one text after another, and times the answers."""

    def __init__(self, url: str, model: str, texts: Sequence[str]) -> None:
        self._url = f"{url}/openai/v1/embeddings"
        self._model = model
        self._texts = texts
        self._seconds: deque[float] = deque(maxlen=_QUERIES_KEPT)
        self.answers = 0
        self.failures = 0

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the latest answers' times; NaN before the first."""
        found = sorted(self._seconds)
        return 1000 * found[math.ceil(0.99 * len(found)) - 1] if found else math.nan

    @contextmanager
    def asking(self) -> Generator[None]:
        """Ask in a thread of its own, as long as the block lasts."""
        stop = threading.Event()

        def ask() -> None:
            while not stop.wait(_QUERY_INTERVAL_S):
                self._ask(self._texts[(self.answers + self.failures) % len(self._texts)])

        thread = threading.Thread(target=ask, name="demo-asker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _ask(self, text: str) -> None:
        body = json.dumps({"model": self._model, "input": text}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=_QUERY_TIMEOUT_S) as answer:
                answer.read()
        except (urllib.error.URLError, OSError):
            self.failures += 1
        else:
            self.answers += 1
            self._seconds.append(time.perf_counter() - began)
