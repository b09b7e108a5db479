"""Counts and times of a stream worker, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_RECORDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class StreamMetrics:
    """A worker's metrics.

    Attributes:
        lag: records of each partition behind what is committed.
        received: records read, those that were read again after a failure included.
        written: records done, by outcome: ``embedding``, ``tombstone`` or ``dead-letter``.
        dead_letters: dead letters, by reason.
        batch_records: records of each micro-batch.
        batch_fill: a micro-batch's share of the largest one allowed.
        queue_s: seconds that a record waits to be encoded.
        encode_s: seconds that a batch takes to encode, its turn at the model awaited.
        produce_s: seconds until the brokers have a batch's results.
        commit_s: seconds until they count.
        commits: batches written.
        aborts: batches that were not written.
        rebalances: times that partitions were handed around.
        restarts: times that reading began anew at the committed offsets.
        buffered: records that wait to be encoded.
        buffered_bytes: bytes of these.
        paused: 1 while no more is read since the buffer is full.
        partitions: that this worker has.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"driftline_stream_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"driftline_stream_{name}", what, labels, registry=registry)

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(f"driftline_stream_{name}_seconds", what, registry=registry, buckets=_SECONDS)

        self.lag = gauge("lag_records", "Records behind what is committed.", "topic", "partition")
        self.received = counter("received_records", "Records read, again after a failure included.")
        self.written = counter("written_records", "Records done.", "outcome")
        self.dead_letters = counter("dead_letters", "Dead letters.", "reason")
        self.batch_records = Histogram(
            "driftline_stream_batch_records", "Records of a micro-batch.", registry=registry, buckets=_RECORDS
        )
        self.batch_fill = gauge("batch_fill_ratio", "The last micro-batch's share of the largest one allowed.")
        self.queue_s = seconds("queue", "Wait of a record to be encoded.")
        self.encode_s = seconds("encode", "Encoding of a batch, its turn at the model awaited.")
        self.produce_s = seconds("produce", "Until the brokers have a batch's results.")
        self.commit_s = seconds("commit", "Until a batch's results count.")
        self.commits = counter("commits", "Batches written.")
        self.aborts = counter("aborts", "Batches that were not written, and are read again.")
        self.rebalances = counter("rebalances", "Times that partitions were handed around.")
        self.restarts = counter("restarts", "Times that reading began anew at the committed offsets.")
        self.buffered = gauge("buffered_records", "Records that wait to be encoded.")
        self.buffered_bytes = gauge("buffered_bytes", "Bytes of the records that wait to be encoded.")
        self.paused = gauge("paused", "1 while no more is read since the buffer is full.")
        self.partitions = gauge("partitions", "Partitions that this worker has.")
