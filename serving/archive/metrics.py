"""What an archive counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

_PREFIX = "driftline_archive_"


class ArchiveMetrics:
    """An archive's metrics, in a registry of their own or another one.

    Attributes:
        registry: where they are.
        rows: rows archived.
        deletes: rows taken out, since their texts were deleted or embedded anew.
        files: files of rows written.
        bytes: their bytes.
        late_rows: rows whose hour was over and settled.
        doubtful_times: rows whose record says no time that can be right.
        merges: files made out of several ones.
        dead_letters: records that are none of the topic's, by reason.
        failures: what went wrong and was tried again, by kind.
        fenced: partitions that another worker had taken over.
        partitions: partitions that this worker holds.
        lag: records of a partition that are not archived.
        oldest_s: age of the oldest record that was read and is not archived.
        buffered_bytes: memory of what was read and is not archived, about.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, text, labels, registry=self.registry)

        self.rows = counter("rows", "Rows archived")
        self.deletes = counter("deletes", "Rows taken out, their texts being deleted or embedded anew")
        self.files = counter("files", "Files of rows written")
        self.bytes = counter("bytes", "Bytes of the files written")
        self.late_rows = counter("late_rows", "Rows whose hour was over and settled")
        self.doubtful_times = counter("doubtful_times", "Rows whose record says no time that can be right")
        self.merges = counter("merges", "Files made out of several ones")
        self.dead_letters = counter("dead_letters", "Records that are no embeddings, by reason", "reason")
        self.failures = counter("failures", "What went wrong and was tried again, by kind", "kind")
        self.fenced = counter("fenced", "Partitions that another worker had taken over")
        self.partitions = gauge("partitions", "Partitions that this worker holds")
        self.lag = gauge("lag_records", "Records that are not archived", "partition")
        self.oldest_s = gauge("oldest_unwritten_seconds", "Age of the oldest record that is read and not archived")
        self.buffered_bytes = gauge("buffered_bytes", "Memory of what is read and not archived, about")
