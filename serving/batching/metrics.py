"""What a batcher counts."""

from __future__ import annotations

from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Rejection = Literal["overload", "deadline", "unavailable"]
REJECTIONS: Final[tuple[Rejection, ...]] = ("overload", "deadline", "unavailable")

_QUEUE_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ENCODE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS: Final = tuple(float(2**power) for power in range(13))
_TOKENS: Final = tuple(float(2**power) for power in range(3, 18))
_SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class BatchingMetrics:
    """The metrics of all batchers of a process, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ("model",)
        self.queue_texts = Gauge("driftline_queue_texts", "Texts that wait for a batch", label, registry=registry)
        self.held_characters = Gauge(
            "driftline_queue_characters", "Characters of all requests in flight", label, registry=registry
        )
        self.queue_seconds = Histogram(
            "driftline_queue_seconds",
            "Time from a request's coming until its first text was in a batch",
            label,
            registry=registry,
            buckets=_QUEUE_S,
        )
        self.batch_texts = Histogram(
            "driftline_batch_texts", "Texts in a batch", label, registry=registry, buckets=_TEXTS
        )
        self.batch_tokens = Histogram(
            "driftline_batch_tokens", "Tokens in a batch", label, registry=registry, buckets=_TOKENS
        )
        self.batch_fill = Histogram(
            "driftline_batch_fill",
            "Tokens in a batch, as a share of the most there may be",
            label,
            registry=registry,
            buckets=_SHARES,
        )
        self.encode_seconds = Histogram(
            "driftline_encode_seconds", "Time to encode a batch", label, registry=registry, buckets=_ENCODE_S
        )
        self.tokenize_seconds = Histogram(
            "driftline_tokenize_seconds",
            "Time to tokenise the requests that came together",
            label,
            registry=registry,
            buckets=_QUEUE_S,
        )
        self.texts = Counter("driftline_encoded_texts", "Texts encoded", label, registry=registry)
        self.tokens = Counter("driftline_encoded_tokens", "Tokens encoded", label, registry=registry)
        self.truncated = Counter(
            "driftline_truncated_texts", "Texts cut at the model's maximum length", label, registry=registry
        )
        self.rejected = Counter(
            "driftline_rejected_requests",
            "Requests refused or given up, by reason",
            ("model", "reason"),
            registry=registry,
        )
        self.cancelled = Counter(
            "driftline_cancelled_requests", "Requests whose caller went away first", label, registry=registry
        )
        self.failed_texts = Counter(
            "driftline_failed_texts", "Texts that the model could not encode", label, registry=registry
        )
        self.failed_batches = Counter(
            "driftline_failed_batches", "Batches that the model threw at, and that were split", label, registry=registry
        )

    def of(self, model: str) -> ModelMetrics:
        """Return one model's."""
        return ModelMetrics(self, model)


class ModelMetrics:
    """The metrics of one model's batcher; each there from the beginning, with 0."""

    def __init__(self, of_all: BatchingMetrics, model: str) -> None:
        self.queue_texts = of_all.queue_texts.labels(model)
        self.held_characters = of_all.held_characters.labels(model)
        self.queue_seconds = of_all.queue_seconds.labels(model)
        self.batch_texts = of_all.batch_texts.labels(model)
        self.batch_tokens = of_all.batch_tokens.labels(model)
        self.batch_fill = of_all.batch_fill.labels(model)
        self.encode_seconds = of_all.encode_seconds.labels(model)
        self.tokenize_seconds = of_all.tokenize_seconds.labels(model)
        self.texts = of_all.texts.labels(model)
        self.tokens = of_all.tokens.labels(model)
        self.truncated = of_all.truncated.labels(model)
        self.cancelled = of_all.cancelled.labels(model)
        self.failed_texts = of_all.failed_texts.labels(model)
        self.failed_batches = of_all.failed_batches.labels(model)
        self._rejected = {reason: of_all.rejected.labels(model, reason) for reason in REJECTIONS}

    def rejected(self, reason: Rejection) -> None:
        """Count a request that was refused or given up."""
        self._rejected[reason].inc()

    def encoded(self, texts: int, tokens: int, truncated: int, seconds: float, share: float) -> None:
        """Count a batch."""
        self.batch_texts.observe(texts)
        self.batch_tokens.observe(tokens)
        self.batch_fill.observe(share)
        self.encode_seconds.observe(seconds)
        self.texts.inc(texts)
        self.tokens.inc(tokens)
        self.truncated.inc(truncated)
