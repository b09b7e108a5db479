"""Metrics of an archive."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

_PREFIX = "driftline_archive_"


class ArchiveMetrics:
    """An archive's metrics, in a registry of their own or another one.

    Attributes:
        registry: where they are.
        rows: rows archived.
        deletes: rows deleted, since their texts were deleted or embedded again.
        files: files of rows written.
        bytes: their size.
        late_rows: rows whose hour was over and due for compaction.
        doubtful_times: rows whose record has no plausible time.
        compactions: files that replaced others.
        dead_letters: records that are no embeddings, by reason.
        failures: failures that were retried, by kind.
        fenced: partitions that another worker had taken over.
        partitions: partitions that this worker holds.
        lag: records of a partition that are not archived.
        oldest_s: age of the oldest record that was read and is not archived.
        buffered_bytes: memory of what was read and is not archived, approximately.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, text, labels, registry=self.registry)

        self.rows = counter("rows", "Rows archived")
        self.deletes = counter("deletes", "Rows deleted, since their texts were deleted or embedded again")
        self.files = counter("files", "Files of rows written")
        self.bytes = counter("bytes", "Bytes of the files written")
        self.late_rows = counter("late_rows", "Rows whose hour was over and due for compaction")
        self.doubtful_times = counter("doubtful_times", "Rows whose record has no plausible time")
        self.compactions = counter("compactions", "Files that replaced others")
        self.dead_letters = counter("dead_letters", "Records that are no embeddings, by reason", "reason")
        self.failures = counter("failures", "Failures that were retried, by kind", "kind")
        self.fenced = counter("fenced", "Partitions that another worker had taken over")
        self.partitions = gauge("partitions", "Partitions that this worker holds")
        self.lag = gauge("lag_records", "Records that are not archived", "partition")
        self.oldest_s = gauge("oldest_unwritten_seconds", "Age of the oldest record that is read and not archived")
        self.buffered_bytes = gauge("buffered_bytes", "Memory of what is read and not archived, approximately")
