"""Streams of embeddings for the monitor's tests: mixtures of Gaussians, as records of a topic or already read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.components.mmd.online import OnlineSettings
from driftline.serving.monitor.monitor import ObservedRecord, read_record
from driftline.serving.monitor.outbox import Delivery
from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings
from driftline.serving.records.embeddings import EmbeddedText, write_embedding
from driftline.serving.records.record import Coordinates, Record
from tests.support.datasets import write_embeddings

TOPIC = "embeddings"
DIMENSION = 16
SMALL = OnlineSettings(ert=6_000, window=100, steps=10, features=32)
CENTRES = np.random.default_rng(0).normal(size=(4, DIMENSION))


def vectors(rows: int, seed: int, *, shift_at: int | None = None) -> NDArray[np.float32]:
    """Rows of a mixture of four Gaussians; from one row on, of two of them alone."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(4, size=rows)
    if shift_at is not None:
        topic[shift_at:] %= 2
    return (CENTRES[topic] + 0.5 * rng.normal(size=(rows, DIMENSION))).astype(np.float32)


def reference(folder: Path | str, rows: int = 4000, **changes: str) -> str:
    """Write a reference dataset and return its URI."""
    return write_embeddings(str(folder), vectors(rows, 1), **changes)


def monitor_settings(dataset: str, state: str, **changes: object) -> MonitorSettings:
    """Settings of a small detector."""
    chosen = ReferenceSettings(dataset, components=8, online=SMALL)
    return MonitorSettings(**{"topic": TOPIC, "reference": chosen, "state": state, "save_interval_s": 0.0, **changes})


def value(number: int, vector: NDArray[np.float32], *, model: str = "tiny", revision: str = "r1") -> bytes:
    return write_embedding(EmbeddedText(f"id-{number}", model, revision, vector, f"text {number}"), "base64")


def record(number: int, content: bytes | None, *, partition: int = 0, offset: int | None = None) -> Record:
    """A record of the topic, one a second."""
    at = Coordinates(TOPIC, partition, number if offset is None else offset, 1_700_000_000_000 + 1000 * number)
    return Record(f"id-{number}".encode(), content, (), at)


def stream(rows: NDArray[np.float32]) -> list[ObservedRecord]:
    """The rows as one partition's records."""
    return [read_record(record(number, value(number, row))) for number, row in enumerate(rows)]


@dataclass
class Inbox:
    """A delivery target that keeps what it is given, and refuses as often as it is told."""

    refusals: Sequence[Exception] = ()
    got: list[Delivery] = field(default_factory=list)
    tries: int = 0

    def deliver(self, delivery: Delivery) -> None:
        self.tries += 1
        if self.tries <= len(self.refusals):
            raise self.refusals[self.tries - 1]
        self.got.append(delivery)
