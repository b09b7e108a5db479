"""What the server counts, beside what the batcher does."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from driftline.serving.server.kserve_parts import PREDICT_HIST_TIME

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Outcome:
    """How a request ended.

    Attributes:
        code: the HTTP status, or the name of gRPC's.
    """

    code: str = "500"


class ServerMetrics:
    """Requests by protocol: how many, with which result, how long, and how many are in flight."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "driftline_server_requests", "Requests answered", ("protocol", "code"), registry=registry
        )
        self._seconds = Histogram(
            "driftline_server_request_seconds",
            "Time until a request was answered",
            ("protocol",),
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._gauge = Gauge("driftline_server_requests_in_flight", "Requests in flight", registry=registry)
        self.in_flight = 0

    @contextmanager
    def request(self, protocol: str) -> Generator[Outcome]:
        """Count a request, from its head to its answer; it yields where to say how it ended."""
        outcome = Outcome()
        self.in_flight += 1
        self._gauge.inc()
        began = time.perf_counter()
        try:
            yield outcome
        finally:
            self.in_flight -= 1
            self._gauge.dec()
            self._requests.labels(protocol, outcome.code).inc()
            self._seconds.labels(protocol).observe(time.perf_counter() - began)

    def predicted(self, model: str, seconds: float) -> None:
        """Keep KServe's own histogram of predictions true, which its dashboards read."""
        PREDICT_HIST_TIME.labels(model).observe(seconds)
