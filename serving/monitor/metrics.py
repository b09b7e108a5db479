"""Metrics of a monitor."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class MonitorMetrics:
    """A monitor's metrics; each has its meaning in its help text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make them.

        Args:
            registry: where; a stream worker's own where the monitor is in the worker.
        """
        self.score = Gauge(
            "driftline_monitor_score",
            "Unbiased MMD² between the reference and the window; 0 without drift",
            registry=registry,
        )
        self.threshold = Gauge(
            "driftline_monitor_threshold",
            "What the score is compared with; infinite in the first window",
            registry=registry,
        )
        self.sample_size = Gauge(
            "driftline_monitor_sample_size", "Effective number of records in the window", registry=registry
        )
        self.drifting = Gauge("driftline_monitor_drifting", "1 while an alarm stands", registry=registry)
        self.reference_rows = Gauge(
            "driftline_monitor_reference_rows", "Rows of the reference compared with", registry=registry
        )
        self.alarms = Counter("driftline_monitor_alarms", "Alarms raised", registry=registry)
        self.last_alarm = Gauge(
            "driftline_monitor_last_alarm_timestamp_seconds",
            "Time of the record with which the latest alarm was raised; 0 before the first",
            registry=registry,
        )
        self.records = Counter("driftline_monitor_records", "Records compared with the reference", registry=registry)
        self.skipped = Counter(
            "driftline_monitor_skipped", "Records that are not compared, by reason", ["reason"], registry=registry
        )
        self.lost = Counter(
            "driftline_monitor_lost", "Records removed from the topic before they were watched", registry=registry
        )
        self.lag = Gauge(
            "driftline_monitor_lag_records", "Records of a partition not taken yet", ["partition"], registry=registry
        )
        self.saves = Counter("driftline_monitor_saves", "Times that the state was written", registry=registry)
        self.save_failures = Counter(
            "driftline_monitor_save_failures", "Times that the state could not be written", registry=registry
        )
        self.deliveries = Counter(
            "driftline_monitor_deliveries",
            "Alerts and runs, by what became of them: sent, failed (to be tried again) or dropped",
            ["kind", "outcome"],
            registry=registry,
        )
        self.pending = Gauge("driftline_monitor_pending", "Alerts and runs not delivered yet", registry=registry)
