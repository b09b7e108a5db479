"""The stream worker's loop and its threads.

::

    poll loop    polls, reads records, fills the buffer; pauses; rewinds           (has the reader)
    cutter       cuts micro-batches off the buffer and has them encoded
    encoders     two, that take turns at the model: while one computes, the other tokenises the next batch
    writer       writes finished batches in the order of their records             (has the sink)

What is read is written in order or not at all: when a write fails, or partitions are reassigned, everything in hand
is void and is read again from the committed offsets on (:class:`.buffer.WriteFence`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from driftline.components.errors import DriftlineError
from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.kafka.reader import GroupReader
from driftline.serving.process import StopSignal
from driftline.serving.records.embeddings import EmbeddedText
from driftline.serving.records.record import Coordinates, TextEvent
from driftline.serving.stream.buffer import Buffer, MicroBatch, WriteFence
from driftline.serving.stream.encoding import TextEncoder, encode_each
from driftline.serving.stream.metrics import StreamMetrics
from driftline.serving.stream.settings import StreamSettings
from driftline.serving.stream.sinks import Sink, WriteError, Written
from driftline.serving.stream.spans import BatchSpans
from driftline.serving.stream.work_items import Result, ResultWriter, incoming
from driftline.serving.telemetry.tracing import Tracing

LOGGER: Final = logging.getLogger(__name__)

_POLL_S: Final = 0.1
_REST_S: Final = 0.5  # a rebalance is noticed no later
_REVOKE_TIMEOUT_S: Final = 10.0  # for a write under way; heartbeats rest meanwhile, for less than a session's 30 s
_AGAIN_S: Final = 0.5  # between attempts while the broker is away
_STUCK_S: Final = 900.0  # longer than any batch, a broker's absence or a transaction may take
_ENCODERS: Final = 2
_FINISHED_BATCHES: Final = 2  # encoded or being encoded, beside the one that is being written


class Observer(Protocol):
    """Sees what has been written, such as the online monitor."""

    def observe(self, batch: Sequence[tuple[EmbeddedText, Coordinates]]) -> None:
        """Look at a committed batch's vectors, each with the place of its text."""
        ...


@dataclass(frozen=True, slots=True)
class _Encoded:
    results: list[Result]
    spans: BatchSpans


class StreamWorker:
    """A reader of texts that encodes them and writes their vectors, until it is told to end.

    Args:
        settings: what to read and write.
        encoder: turns texts into vectors.
        results: makes what is written.
        sink: writes batches.
        metrics: of this worker.
        tracing: where spans go; None for nowhere.
        observer: sees what has been written; None for nobody.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: StreamSettings,
        encoder: TextEncoder,
        results: ResultWriter,
        sink: Sink,
        metrics: StreamMetrics,
        *,
        tracing: Tracing | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._results = results
        self._sink = sink
        self._metrics = metrics
        self._tracing = tracing
        self._observer = observer
        self._clock = clock
        self._fence = WriteFence()
        self._buffer = Buffer(settings.batch, settings.buffer, encoder.max_tokens, clock)
        self._finished: queue.Queue[tuple[MicroBatch, Future[_Encoded]] | None] = queue.Queue(_FINISHED_BATCHES)
        self._committed: dict[int, int] = {}
        self._shown: set[int] = set()
        self._failure: DriftlineError | None = None
        self._rewound = self._drained = False
        self._turned_s = self._wrote_s = clock()
        self._partitions = 0

    def live(self) -> str | None:
        """Return None while the worker goes on, else what is stuck."""
        now = self._clock()
        if now - self._turned_s > _STUCK_S:
            return f"the poll loop has not turned for {now - self._turned_s:.0f} s"
        if self._buffer.full and now - self._wrote_s > _STUCK_S:
            return f"the buffer is full and nothing has been written for {now - self._wrote_s:.0f} s"
        return None

    def ready(self) -> str | None:
        """Return None while the worker reads and writes, else why it does not."""
        if not self._partitions:
            return "no partitions are assigned"
        if not self._rewound:
            return "the committed offsets are being asked for; is the broker there?"
        return None

    def on_revoked(self) -> None:
        """Let a write under way end, and begin no other: the partitions are about to be another worker's."""
        timeout_s = 0.0 if self._drained else _REVOKE_TIMEOUT_S
        if not self._fence.shut(timeout_s):
            LOGGER.warning("a write under way has not ended in %s s; the broker will refuse it", timeout_s)

    def run(self, source: GroupReader, stop: StopSignal) -> None:
        """Work until told to end; what is in hand then is finished.

        Raises:
            FencedError: another worker has this one's name.
            UnavailableError: the broker refuses, or the model is broken.
        """
        with ThreadPoolExecutor(_ENCODERS, "driftline-encode-batch") as encoders:
            cutter = self._thread("driftline-cut", lambda: self._cut(encoders))
            writer = self._thread("driftline-write", self._write_all)
            try:
                while not stop.is_set and writer.is_alive() and cutter.is_alive():
                    self._turn(source)
                self._buffer.close()
                self._drain(source, writer)
            finally:
                self._buffer.close()
                self._fence.shut(0.0)
        if self._failure is not None:
            raise self._failure

    def _turn(self, source: GroupReader) -> None:
        """Poll once and do what has to be done between polls."""
        enough = self._rewound and self._buffer.holds_batch
        polled = source.poll(0.0 if enough else _POLL_S, self._settings.batch.records)
        records = [record for found in polled.values() for record in found]
        if enough and not records:
            # What came now would wait anyhow, and asking for it takes time from the encoder.
            self._buffer.wait_for_need(_REST_S)
        self._turned_s = self._clock()
        self._partitions = len(source.assigned())
        membership = source.membership()
        rebalanced = source.take_rebalanced()
        if rebalanced:
            self._metrics.rebalances.inc()
        if rebalanced or membership is None or not self._fence.is_open:
            self._rewound = False
        if not self._rewound:
            # What was polled lies behind records that are void; all of it is read again.
            self._rewind(source)
        elif records:
            self._metrics.received.inc(len(records))
            read = [incoming(record, self._settings.payload, self._turned_s) for record in records]
            self._buffer.add(read, membership)
        self._commit(source)
        self._balance(source)

    def _rewind(self, source: GroupReader) -> None:
        """Go back to the committed offsets, as soon as nothing is being written and the broker says which they are."""
        if not self._partitions or not self._fence.shut(0.0):
            return
        try:
            self._committed = source.rewind()
        except UnavailableError as error:
            LOGGER.warning("%s; trying again", error)
            time.sleep(_AGAIN_S)
            return
        self._buffer.restart(self._fence.next_epoch())
        self._rewound = True
        self._metrics.restarts.inc()

    def _commit(self, source: GroupReader) -> None:
        """Commit what a sink without transactions has written."""
        try:
            source.commit(self._sink.take_committable_offsets())
        except UnavailableError as error:
            LOGGER.warning("%s; what was written may be written again", error)

    def _balance(self, source: GroupReader) -> None:
        """Pause where the buffer is full, go on where it has room, and show how far behind the work is."""
        metrics = self._metrics
        if self._buffer.full:
            source.pause(source.assigned())
            metrics.paused.set(1)
        elif self._buffer.has_room:
            source.pause(())
            metrics.paused.set(0)
        metrics.buffered.set(len(self._buffer))
        metrics.buffered_bytes.set(self._buffer.bytes)
        metrics.partitions.set(self._partitions)
        known = {number: source.end(number) for number in source.assigned()}
        ends = {number: end for number, end in known.items() if end is not None}
        for number in self._shown - ends.keys():
            metrics.lag.remove(source.topic, str(number))
        for number, end in ends.items():
            behind = max(0, end - self._committed.get(number, end))
            metrics.lag.labels(source.topic, str(number)).set(behind)
        self._shown = set(ends)

    def _drain(self, source: GroupReader, writer: threading.Thread) -> None:
        """Finish what has been cut, as a member still; what waits in the buffer is read again by the next worker."""
        end_s = self._clock() + self._settings.drain_timeout_s
        while writer.is_alive() and self._clock() < end_s:
            source.pause(source.assigned())
            source.poll(_POLL_S, 1)
            self._turned_s = self._clock()
        self._drained = True
        if writer.is_alive():
            LOGGER.warning("what was in hand has not been written in %s s", self._settings.drain_timeout_s)
        self._commit(source)

    def _cut(self, encoders: ThreadPoolExecutor) -> None:
        while (batch := self._buffer.take()) is not None:
            now = self._clock()
            for item in batch.items:
                self._metrics.queue_s.observe(now - item.received_s)
            self._metrics.batch_records.observe(len(batch.items))
            self._metrics.batch_fill.set(len(batch.items) / self._settings.batch.records)
            self._finished.put((batch, encoders.submit(self._encode, batch)))
        self._finished.put(None)

    def _encode(self, batch: MicroBatch) -> _Encoded:
        began_s = self._clock()
        spans = BatchSpans(self._tracing, batch)
        texts = [text for item in batch.items if (text := item.text) is not None]
        vectors = iter(encode_each(self._encoder, texts))
        results: list[Result] = []
        for item in batch.items:
            parsed = item.parsed
            if isinstance(parsed, TextEvent) and parsed.text is not None:
                vector = next(vectors)
                results.append(
                    self._results.dead_letter(item.record, vector)
                    if isinstance(vector, PoisonError)
                    else self._results.embedding(item.record, parsed, vector)
                )
            elif isinstance(parsed, TextEvent):
                results.append(self._results.tombstone(item.record, parsed))
            else:
                results.append(self._results.dead_letter(item.record, parsed))
        self._metrics.encode_s.observe(self._clock() - began_s)
        return _Encoded(spans.carried_on(results), spans)

    def _write_all(self) -> None:
        while (taken := self._finished.get()) is not None:
            batch, encoding = taken
            encoded = encoding.result()
            if not self._fence.acquire(batch.epoch):
                encoded.spans.end("void: partitions were handed around, or an earlier batch was not written")
                continue
            done = False
            try:
                self._write(batch, encoded)
                done = True
            except WriteError as error:
                LOGGER.warning("a batch was not written: %s; reading it again", error)
                self._metrics.aborts.inc()
                encoded.spans.end(str(error))
                time.sleep(_AGAIN_S)
            finally:
                self._fence.release(written=done)

    def _write(self, batch: MicroBatch, encoded: _Encoded) -> None:
        offsets: dict[int, int] = {}
        for item in batch.items:
            at = item.record.at
            offsets[at.partition] = at.offset + 1
        written = self._sink.write(encoded.results, offsets, batch.membership)
        self._wrote_s = self._clock()
        self._committed.update(offsets)
        encoded.spans.end()
        self._count(written)
        if self._observer is not None:
            found = [(result.embedded, result.record.at) for result in written.results if result.embedded is not None]
            self._observer.observe(found)

    def _count(self, written: Written) -> None:
        metrics = self._metrics
        metrics.commits.inc()
        metrics.produce_s.observe(written.produce_s)
        metrics.commit_s.observe(written.commit_s)
        for result in written.results:
            if result.reason:
                metrics.dead_letters.labels(result.reason).inc()
            outcome = "dead-letter" if result.reason else "embedding" if result.embedded else "tombstone"
            metrics.written.labels(outcome).inc()

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run work in a thread that does not outlive the process; what it raises, the loop raises."""

        def run() -> None:
            done = False
            try:
                work()
                done = True
            except DriftlineError as error:
                self._failure = self._failure or error
                done = True
            finally:
                if not done:  # the traceback is in the log
                    self._failure = self._failure or UnavailableError(f"thread {name} ended; see the log")

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread
