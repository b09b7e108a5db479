"""A batch's spans: one for each record, and one for the batch, from the encoder to the commit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from driftline.serving.stream.buffer import MicroBatch
from driftline.serving.stream.work_items import Result
from driftline.serving.telemetry.tracing import Tracing, carried, end

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class BatchSpans:
    """Spans from a batch's encoding on; with traces off, nothing.

    Args:
        tracing: where spans go; None for nowhere.
        batch: the records.
    """

    def __init__(self, tracing: Tracing | None, batch: MicroBatch) -> None:
        self._records: list[Span] = []
        self._all: list[Span] = []
        if tracing is None:
            return
        for item in batch.items:
            at = item.record.at
            attributes = {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": at.topic,
                "messaging.destination.partition.id": str(at.partition),
                "messaging.kafka.offset": at.offset,
            }
            self._records.append(tracing.begin(f"process {at.topic}", item.record.headers, attributes))
        count = {"messaging.batch.message_count": len(batch.items)}
        self._all = [*self._records, tracing.batch("driftline.stream batch", self._records, count)]

    def carried_on(self, results: Sequence[Result]) -> list[Result]:
        """Return the records' results, in their order, with headers that lead to their spans."""
        if not self._records:
            return list(results)
        return [
            dataclasses.replace(result, headers=carried(span, result.headers))
            for result, span in zip(results, self._records, strict=True)
        ]

    def end(self, error: str = "") -> None:
        """End them, with why the batch was not written if it was not."""
        for span in self._all:
            end(span, error)
