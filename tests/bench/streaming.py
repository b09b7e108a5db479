"""Throughput of the stream worker, from topic to topic, beside that of its encoder alone: `make bench-streaming`.

Real film reviews and the demonstration's model. In each round the encoder alone encodes the texts, all in one call,
then a worker with the same encoder takes them from a topic that was filled before: timed from its first text to its
last commit. Medians of the rounds. The broker is a process of its own, new for each run since the stand-in writes all
of its content once a second, and more of it the longer it runs. It shares the machine's cores with the worker, which
in a cluster it does not; so the table has the worker's throughput as it is and with the broker's processor time set
aside. Beside them what each stage takes by itself, and how much memory a long stream needs through an encoder that
costs nothing. Written to bench-results/streaming.json with a description of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import harness
import numpy as np
from prometheus_client import CollectorRegistry

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.pipelines.demo.broker import noida_broker
from driftline.pipelines.demo.data import fetch_model, fetch_texts
from driftline.serving.process import StopSignal
from driftline.serving.stream.encoding import Model
from driftline.serving.stream.run import run_stream
from driftline.serving.stream.settings import Delivery, StreamSettings
from driftline.serving.stream.work_items import ResultWriter, incoming

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.support.brokers import create_topics, fresh, produce, read_topic, settings_of

BENCH = Path(__file__).resolve().parent
LEAST = 0.9
TIMEOUT_S = 900.0
PARTITIONS = 4


class Timed:
    """An encoder that notes when it was first asked."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.max_tokens: int = encoder.max_tokens
        self.first_s = 0.0

    def encode(self, texts: Sequence[str]) -> Any:
        self.first_s = self.first_s or time.perf_counter()
        return self._encoder.encode(texts)


@dataclass
class Free:
    """An encoder that costs nothing."""

    vectors: np.ndarray
    max_tokens: int = 256

    def encode(self, texts: Sequence[str]) -> Free:
        return Free(self.vectors[: len(texts)])


class Counting:
    """Notes when so many records have been committed."""

    def __init__(self, wanted: int) -> None:
        self.done = threading.Event()
        self.last_s = 0.0
        self._left = wanted

    def observe(self, batch: Sequence[object]) -> None:
        self._left -= len(batch)
        if self._left <= 0:
            self.last_s = time.perf_counter()
            self.done.set()


def records_of(texts: Sequence[str]) -> list[Any]:
    return [(f"k{n}".encode(), json.dumps({"text": text}).encode(), ()) for n, text in enumerate(texts)]


def broker_cpu_s() -> float:
    """Return the processor's seconds so far of this process's children: the broker."""
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    fields = [Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split() for pid in children]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def run(model: Model, records: list[Any], delivery: str) -> dict[str, float]:
    """Stream records by way of a broker of their own."""
    with tempfile.TemporaryDirectory() as folder, noida_broker(Path(folder)) as broker:
        return stream(broker.address, model, records, delivery)


def stream(bootstrap: str, model: Model, records: list[Any], delivery: str) -> dict[str, float]:
    """Take records from a topic to another one, and return the seconds and what they went into."""
    source, output = fresh("texts"), fresh("embeddings")
    create_topics(bootstrap, dict.fromkeys((source, output, source + ".dead-letters"), PARTITIONS))
    produce(bootstrap, source, records)
    timed, counting = Timed(model.encoder), Counting(len(records))
    registry, stop = CollectorRegistry(), StopSignal()
    settings = StreamSettings(source, output, fresh("group"), "w0", delivery=delivery)  # type: ignore[arg-type]
    cpu_s, broker_s = time.process_time(), broker_cpu_s()
    worker = threading.Thread(
        target=run_stream,
        args=(settings, settings_of(bootstrap), lambda: Model(timed, model.name, model.revision), stop),
        kwargs={"environment": {}, "observe": lambda _: nullcontext(counting), "registry": registry},
    )
    worker.start()
    try:
        if not counting.done.wait(TIMEOUT_S):
            raise SystemExit(f"streaming: {len(records)} records have not been written in {TIMEOUT_S:.0f} s")
        cpu_s, broker_s = time.process_time() - cpu_s, broker_cpu_s() - broker_s
    finally:
        stop.set()
        worker.join()

    def total(name: str) -> float:
        return registry.get_sample_value(f"driftline_stream_{name}_seconds_sum") or 0.0

    return {
        "seconds": counting.last_s - timed.first_s,
        "cpu_seconds": cpu_s,
        "broker_cpu_seconds": broker_s,
        "produce_seconds": total("produce"),
        "commit_seconds": total("commit"),
        "batches": registry.get_sample_value("driftline_stream_commits_total") or 0.0,
    }


def stage_seconds(bootstrap: str, model: Model, records: list[Any]) -> dict[str, float]:
    """Return what reading records and writing results take by themselves, without a broker's answer awaited."""
    topic = fresh("stages")
    create_topics(bootstrap, {topic: 1})
    produce(bootstrap, topic, records)
    found = read_topic(bootstrap, topic)
    writer = ResultWriter("out", "dead", model.name, model.revision, "numbers", with_text=True)
    began_s = time.perf_counter()
    read = [incoming(record, "json", 0.0) for record in found]
    parsed_s = time.perf_counter()
    vector = np.random.default_rng(0).normal(size=384).astype(np.float32)
    for item in read:
        writer.embedding(item.record, item.parsed, vector)  # type: ignore[arg-type]
    return {"parse_seconds": parsed_s - began_s, "serialise_seconds": time.perf_counter() - parsed_s}


def memory_growth(bootstrap: str, count: int) -> dict[str, float]:
    """Return megabytes of the process after the first and the last part of a long stream."""
    model = Model(Free(np.zeros((512, 64), np.float32)), "free", "r")
    text = records_of(["a text of some words, as they come along"] * (count // 8))
    sizes = []
    for _ in range(8):
        stream(bootstrap, model, text, "exactly-once")
        sizes.append(_resident_mb())
    return {"after_first_mb": sizes[1], "after_last_mb": sizes[-1], "records": float(count)}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure, print the table and the promise, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-records", type=int, default=80_000)
    parser.add_argument("--home", type=Path, default=BENCH.parents[1] / ".demo", help="where model and texts are kept")
    parser.add_argument("--out", type=Path, default=Path("bench-results/streaming.json"))
    options = parser.parse_args()
    encoder = Encoder.load(fetch_model(options.home), "model", EncoderSettings())
    model = Model(encoder, "model", "r")
    texts = [row.text for row in fetch_texts(options.home)]
    random.Random(0).shuffle(texts)
    texts = texts[: options.texts]
    records = records_of(texts)
    described = harness.machine(("torch", "kafka-python", "noida-db"))
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ("encoder alone", *get_args(Delivery))}
    encoder.encode(texts[:256])
    for _ in range(options.rounds):
        cpu_s, began_s = time.process_time(), time.perf_counter()
        encoder.encode(texts)
        seconds = time.perf_counter() - began_s
        rounds["encoder alone"].append({"seconds": seconds, "cpu_seconds": time.process_time() - cpu_s})
        for delivery in get_args(Delivery):
            rounds[delivery].append(run(model, records, delivery))
    with tempfile.TemporaryDirectory() as folder, noida_broker(Path(folder)) as broker:
        stages = stage_seconds(broker.address, model, records)
        memory = memory_growth(broker.address, options.memory_records)
    medians = {name: harness.medians(figures) for name, figures in rounds.items()}
    alone_s, cores = medians["encoder alone"]["seconds"], len(os.sched_getaffinity(0))

    def share(name: str, *, broker: bool) -> float:
        figures = medians[name]
        return alone_s / (figures["seconds"] - (0.0 if broker else figures.get("broker_cpu_seconds", 0.0) / cores))

    lines = [
        (
            name,
            harness.three_digits(figures["seconds"]),
            f"{len(texts) / figures['seconds']:,.0f}",
            harness.three_digits(share(name, broker=True)),
            harness.three_digits(share(name, broker=False)),
            harness.three_digits(figures["cpu_seconds"]),
            harness.three_digits(figures.get("broker_cpu_seconds")),
        )
        for name, figures in medians.items()
    ]
    print(f"{len(texts)} texts, {options.rounds} rounds\n")
    print(
        harness.table(
            ("", "seconds", "texts/s", "of the encoder's", "broker aside", "CPU, s", "broker's CPU, s"), lines
        )
    )
    once = medians["exactly-once"]
    parts = {
        "parse": stages["parse_seconds"],
        "encode": alone_s,
        "serialise": stages["serialise_seconds"],
        "produce": once["produce_seconds"],
        "commit": once["commit_seconds"],
    }
    shares = [
        (name, harness.three_digits(seconds), f"{100 * seconds / once['seconds']:.1f}%")
        for name, seconds in parts.items()
    ]
    print(f"\n{harness.table(('stage, by itself', 'seconds', 'of the whole'), shares)}")
    growth = memory["after_last_mb"] - memory["after_first_mb"]
    print(
        f"\nmemory: {memory['after_first_mb']:,.0f} MB after a quarter of {options.memory_records:,} records, "
        f"{memory['after_last_mb']:,.0f} MB after all ({growth:+,.0f} MB); peak "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB"
    )
    promises = [
        {"promise": f"topic to topic, the broker aside, {name}", "ratio": share(name, broker=False), "least": LEAST}
        for name in get_args(Delivery)
    ]
    held = [
        (
            str(one["promise"]),
            harness.three_digits(one["ratio"]),
            f"{LEAST}",
            "holds" if one["ratio"] >= LEAST else "MISSED",
        )
        for one in promises
    ]
    print(f"\n{harness.table(('', 'ratio', 'at least', ''), held)}")
    content = {"machine": described, "rounds": rounds, "medians": medians, "stages": parts, "memory": memory}
    harness.write_json(options.out, {**content, "promises": promises})


if __name__ == "__main__":
    main()
