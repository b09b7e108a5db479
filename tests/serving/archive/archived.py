"""Topics of embeddings in memory, an archive that is driven turn by turn, and what should come of it."""

from __future__ import annotations

import base64
import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from driftline.components.storage.dataset.partitions import dataset_folders
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects import store
from driftline.serving.archive.layout import hour_path, model_folder
from driftline.serving.archive.metrics import ArchiveMetrics
from driftline.serving.archive.settings import ArchiveSettings, FileLimits, MaintenanceRules
from driftline.serving.archive.worker import Archiver
from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText, write_embedding
from driftline.serving.records.record import Coordinates, Record

TOPIC = "embeddings"
NOW_S = 1_764_077_400.0  # 2025-11-25 13:30 UTC
NOW_MS = int(NOW_S * 1000)
HOUR_MS = 3_600_000
DIMENSION = 4
MODEL, REVISION = "org/tiny", "sha256:0123"
FOLDER = model_folder(MODEL, REVISION)


def vector_of(seed: int, dimension: int = DIMENSION) -> np.ndarray:
    """A vector of length 1, float32."""
    vector = np.random.default_rng(seed).standard_normal(dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def embedding(
    name: str,
    seed: int,
    *,
    text: str | None = "a text",
    model: str = MODEL,
    revision: str = REVISION,
    dimension: int = DIMENSION,
) -> bytes:
    """The value of a record."""
    return write_embedding(EmbeddedText(name, model, revision, vector_of(seed, dimension), text), "base64")


class Log:
    """A topic's partitions in memory, each a list of records; offsets have gaps where transactions ended."""

    def __init__(self, partitions: int = 1) -> None:
        self.records: dict[int, list[Record]] = {number: [] for number in range(partitions)}
        self.ends: dict[int, int] = dict.fromkeys(range(partitions), 0)

    def add(
        self, key: str | None, value: bytes | None, *, time_ms: int = NOW_MS, partition: int = 0, **more: Any
    ) -> Record:
        """Append a record."""
        at = Coordinates(TOPIC, partition, self.ends[partition], time_ms)
        record = Record(None if key is None else key.encode(), value, (), at)
        self.records[partition].append(dataclasses.replace(record, **more))
        self.ends[partition] += 1
        return record

    def row(self, name: str, seed: int, *, time_ms: int = NOW_MS, partition: int = 0, **more: Any) -> Record:
        """Append an embedding."""
        return self.add(name, embedding(name, seed, **more), time_ms=time_ms, partition=partition)

    def end_transaction(self, partition: int = 0) -> None:
        """Leave out an offset."""
        self.ends[partition] += 1


def busy_log(seed: int, events: int, partitions: int = 1, ids: int = 40) -> Log:
    """Embeddings of few ids, some of them again and again, some deleted, over four hours, with some poison."""
    moments = random.Random(seed)
    log = Log(partitions)
    for number in range(events):
        name = f"t{moments.randrange(ids)}"
        partition = int(name[1:]) % partitions
        time_ms = NOW_MS - moments.randrange(4) * HOUR_MS
        kind = moments.random()
        if kind < 0.15:
            log.add(name, None, time_ms=time_ms, partition=partition)
        elif kind < 0.2:
            log.add(name, b"no embedding", time_ms=time_ms, partition=partition)
        else:
            text = None if kind < 0.3 else f"text {number}"
            log.row(name, number, time_ms=time_ms, partition=partition, text=text)
        if moments.random() < 0.1:
            log.end_transaction(partition)
    return log


@dataclass
class FakeSource:
    """Reads a log; see `driftline.serving.archive.source.Source`."""

    log: Log
    mine: set[int]
    revoked: set[int] = field(default_factory=set)
    positions: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    closed: bool = False

    def poll(self, timeout_s: float, max_records: int) -> dict[int, list[Record]]:
        polled: dict[int, list[Record]] = {}
        for number in sorted(self.mine):
            start = self.positions.setdefault(number, self.committed.get(number, 0))
            records = [r for r in self.log.records[number] if r.at.offset >= start][:max_records]
            at_end = len(records) < max_records
            self.positions[number] = self.log.ends[number] if at_end else records[-1].at.offset + 1
            if records:
                polled[number] = records
        return polled

    def assigned(self) -> set[int]:
        return set(self.mine)

    def take_revoked(self) -> set[int]:
        revoked, self.revoked = self.revoked, set()
        return revoked

    def go_to(self, partition: int, offset: int) -> int:
        self.positions[partition] = offset
        return offset

    def seek(self, partition: int, offset: int) -> None:
        self.positions[partition] = offset

    def position(self, partition: int) -> int:
        return self.positions[partition]

    def end(self, partition: int) -> int | None:
        return self.log.ends[partition]

    def commit(self, offsets: Mapping[int, int]) -> None:
        self.committed |= offsets

    def pause(self, partitions: set[int]) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeLetters:
    """Keeps dead letters."""

    letters: list[tuple[Record, str]] = field(default_factory=list)

    def send(self, record: Record, error: PoisonError) -> None:
        self.letters.append((record, error.reason))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Clock:
    """A clock that goes when it is told to."""

    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


def settings_of(out: str, **more: Any) -> ArchiveSettings:
    """Settings with which all is written at each turn, and compacted and removed as soon as possible."""
    limits = {"max_delay_s": 0.0}
    limits |= {key: more.pop(key) for key in ("max_delay_s", "rows", "bytes", "buffered_bytes") if key in more}
    rules = {"compact_after_s": 0.0, "vacuum_after_s": 0.0}
    names = ("compact_after_s", "compact_files", "vacuum_after_s", "purge_after_s")
    rules |= {key: more.pop(key) for key in names if key in more}
    return ArchiveSettings(TOPIC, out, files=FileLimits(**limits), maintenance=MaintenanceRules(**rules), **more)


@dataclass
class Driven:
    """An archiver on a log, turned by hand."""

    archiver: Archiver
    source: FakeSource
    letters: FakeLetters
    metrics: ArchiveMetrics
    clock: Clock

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.now_s += 2.0  # longer than the pauses between compactions
            self.archiver.turn(0.0)

    def value(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(f"driftline_archive_{name}", labels or None)
        assert found is not None, name
        return found


def driven(log: Log, settings: ArchiveSettings, index: Path, mine: Sequence[int] | None = None) -> Driven:
    """An archiver on some partitions of a log, all by default."""
    source = FakeSource(log, set(log.records) if mine is None else set(mine))
    letters, metrics, clock = FakeLetters(), ArchiveMetrics(), Clock()
    archiver = Archiver(settings, source, letters, metrics, index, clock, clock)
    return Driven(archiver, source, letters, metrics, clock)


Content = dict[tuple[str, str], tuple[int, int, str | None, int, bytes]]
"""For each model's folder and id: partition, offset, text, time in ms, and the vector's bytes."""


def archived(out: str, topic: str = TOPIC) -> Content:
    """What an archive's readers see while nobody writes; no id of a model may be there twice."""
    found: Content = {}
    for place in dataset_folders(out):
        dataset = EmbeddingsDataset.open(store.join(out, place))
        assert dataset.manifest.columns == ("text", "time", "topic", "partition", "offset")
        for batch in dataset.batches(("id", "embedding", "text", "time", "topic", "partition", "offset")):
            table = batch.table.append_column("time_ms", batch.table["time"].cast(pa.int64()))
            for row, vector in zip(table.to_pylist(), batch.embeddings, strict=True):
                key = (place.rpartition("model=")[2], row["id"])
                assert key not in found, f"{key} is there twice"
                assert row["topic"] == topic
                assert place == hour_path(row["time_ms"], key[0])
                found[key] = (row["partition"], row["offset"], row["text"], row["time_ms"], vector.tobytes())
    return found


def offsets_of(out: str) -> set[tuple[int, int]]:
    """Partitions and offsets of the rows that an archive's readers see, also while it is being written."""
    places = [store.join(out, place) for place in dataset_folders(out)]
    tables = [
        batch.table for place in places for batch in EmbeddingsDataset.open(place).batches(("partition", "offset"))
    ]
    return {(row["partition"], row["offset"]) for table in tables for row in table.to_pylist()}


def expected(log: Log) -> Content:
    """What should come of a log."""
    return expected_of(record for number in log.records for record in log.records[number])


def expected_of(records: Iterable[Record]) -> Content:
    """What should come of records, partition by partition, whose times can be right: the latest row of each id."""
    found: Content = {}
    for record in records:
        name = (record.key or b"").decode()
        if record.value is None:
            for key in [key for key in found if key[1] == name]:
                del found[key]
        elif record.value != b"no embedding":
            value = orjson.loads(record.value)
            key = (model_folder(value["model"], value["revision"]), value["id"])
            vector = base64.b64decode(value["embedding"])
            found[key] = (record.at.partition, record.at.offset, value.get("text"), record.at.timestamp_ms, vector)
    return found


def files_of(out: str) -> list[str]:
    """Names of all files of rows in an archive, within it."""
    base = out.rstrip("/") + "/"
    return [info.uri[len(base) :] for info in store.list_files(out) if info.uri.rsplit("/", 1)[-1].startswith("part-")]


def named_files(out: str) -> list[str]:
    """Names of all files of rows that the manifests name."""
    return sorted(
        f"{place}/{shard.name}"
        for place in dataset_folders(out)
        for shard in EmbeddingsDataset.open(store.join(out, place)).manifest.shards
    )
