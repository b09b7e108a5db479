"""Stream workers in threads of the test's process, on a real broker, with an encoder that can be told to fail."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from driftline.serving.process import StopSignal
from driftline.serving.records.embeddings import read_embedding
from driftline.serving.records.record import Record
from driftline.serving.stream.encoding import Model
from driftline.serving.stream.run import run_stream
from driftline.serving.stream.settings import StreamSettings
from tests.support.brokers import Sent, create_topics, fresh, settings_of

DIMENSION = 8


@dataclass
class Vectors:
    vectors: np.ndarray


@dataclass
class FakeEncoder:
    """Vectors that follow from the text alone; ``fails`` names texts that it raises on."""

    fails: frozenset[str] = frozenset()
    seconds: float = 0.0
    error: type[Exception] = RuntimeError
    max_tokens: int = 64
    batches: list[int] = field(default_factory=list)

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(len(texts))
        time.sleep(self.seconds)
        if self.fails.intersection(texts):
            raise self.error("this text is too much")
        return Vectors(np.stack([vector_of(text) for text in texts]))


def vector_of(text: str) -> np.ndarray:
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return np.frombuffer(digest[:DIMENSION], np.uint8).astype(np.float32) / 256


@dataclass
class Topics:
    """A source and the topics of its results, new for each test."""

    bootstrap: str
    source: str
    output: str
    dead_letters: str
    group: str

    @classmethod
    def create(cls, bootstrap: str, partitions: int = 4) -> Topics:
        source = fresh("texts")
        topics = cls(bootstrap, source, fresh("embeddings"), source + ".dead-letters", fresh("group"))
        create_topics(bootstrap, dict.fromkeys((topics.source, topics.output, topics.dead_letters), partitions))
        return topics

    def settings(self, **changes: Any) -> StreamSettings:
        plain: dict[str, Any] = {"source": self.source, "output": self.output, "group": self.group, "instance_id": "w0"}
        return StreamSettings(**{**plain, **changes})


class RunningWorker:
    """A worker in a thread."""

    def __init__(self, topics: Topics, encoder: FakeEncoder, settings: StreamSettings, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.stop = StopSignal()
        self.error: BaseException | None = None
        self.port = 0
        self._run: Callable[[], None] = lambda: run_stream(
            settings,
            settings_of(topics.bootstrap),
            lambda: Model(encoder, "tiny", "sha256:0"),
            self.stop,
            registry=self.registry,
            on_listening=self._told,
            **{"environment": {}, **options},
        )
        self.thread = threading.Thread(target=self._guarded, daemon=True)
        self.thread.start()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"driftline_stream_{name}", labels) or 0.0

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def _told(self, port: int) -> None:
        self.port = port

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error


@contextmanager
def running(topics: Topics, encoder: FakeEncoder | None = None, **changes: Any) -> Generator[RunningWorker]:
    """Run a worker for as long as the block lasts; it must end without an error."""
    options = changes.pop("options", {})
    worker = RunningWorker(topics, encoder or FakeEncoder(), topics.settings(**changes), **options)
    try:
        yield worker
    finally:
        worker.end()
    if worker.error is not None:
        raise worker.error


def texts(count: int, keys: int = 0, start: int = 0) -> list[Sent]:
    """Records of `count` texts, of so many keys in turn; 0 for one key each."""
    return [
        (f"k{number % keys if keys else number}".encode(), json.dumps({"text": f"text {number}"}).encode(), ())
        for number in range(start, start + count)
    ]


def by_source(records: Sequence[Record]) -> Mapping[tuple[str, str], list[Record]]:
    """Records by the partition and offset of what they were made of."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        headers = dict(record.headers)
        place = headers["driftline-source-partition"].decode(), headers["driftline-source-offset"].decode()
        found.setdefault(place, []).append(record)
    return found


def check_vectors(records: Sequence[Record]) -> None:
    """Every vector is that of the text beside it."""
    assert records
    for record in records:
        assert record.value is not None
        embedded = read_embedding(record.value)
        assert embedded.text is not None
        np.testing.assert_array_equal(embedded.vector, vector_of(embedded.text))
        assert record.key == embedded.id.encode()
