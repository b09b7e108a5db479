"""The dynamic batcher: requests' texts in, batches through the encoder, each request's vectors out.

All of its state belongs to the event loop. Two threads work for it: one tokenises the requests that came meanwhile, all
together; one runs batches. A lone request is encoded at once. While a batch runs, the next one waits for more texts
until it is full; a full one is handed over before the running one ends, so that the encoder never pauses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from driftline.components.embedding.encoding.text import Encoding, Prepared, joined
from driftline.components.errors import DriftlineError, one_line
from driftline.serving.batching.fair_queue import DEPTH, FairQueue
from driftline.serving.batching.halving import PROBE_TEXT, HalvedBatches
from driftline.serving.batching.limits import BatcherLimits
from driftline.serving.batching.metrics import ModelMetrics
from driftline.serving.batching.request import Embedded, QueuedText, Request
from driftline.serving.errors import DeadlineError, OverloadError, PoisonError, UnavailableError

_AHEAD: Final = 2  # batches handed to the encoder's thread: the one that runs, and the one after it
# Characters that are tokenised in one go: some tens of milliseconds, within which the first of them are not needed.
_CALL_CHARACTERS: Final = 200_000


class TextEncoder(Protocol):
    """The part of :class:`driftline.components.embedding.encoding.encoder.Encoder` that the batcher uses."""

    @property
    def batch_tokens(self) -> int:
        """Tokens that run at a time."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def prepare(self, texts: Sequence[str], prompt: str | None = None) -> Prepared:
        """Tokenise texts; called from one thread while another one encodes."""
        ...

    def finish(self, prepared: Prepared) -> Encoding:
        """Return the vectors of tokenised texts; called from one thread."""
        ...


class Batcher:
    """Encodes texts of many callers in common batches.

    * A request's texts may be spread over batches, and a batch holds texts of several requests; the order is
      that of :class:`.fair_queue.FairQueue`.
    * A request that is cancelled, or whose time has passed, leaves with all of its texts that do not run yet.
    * A text at which the model throws fails its own request alone: its batch is halved until it is found, and it is
      taken for poison only where the model still encodes another one.
    """

    def __init__(
        self, encoder: TextEncoder, limits: BatcherLimits, metrics: ModelMetrics, *, executor: Executor | None = None
    ) -> None:
        """Create the batcher; it takes requests from :meth:`start` on.

        Args:
            encoder: the model.
            limits: of batches and queue.
            metrics: what it counts.
            executor: one thread that runs the batches, shared with other models' batchers on the same device; None for
                one of its own.
        """
        self._encoder = encoder
        self._limits = limits
        self._metrics = metrics
        self._own = None if executor else ThreadPoolExecutor(1, "driftline-batches")
        self._executor = executor or self._own
        self._intake = Intake(encoder, metrics, self._enqueue)
        self._rate = DrainRate()
        self._queue = FairQueue(limits.batch_tokens or encoder.batch_tokens)
        self._runner = BatchRunner(encoder)
        self._refusing: str | None = "the batcher is not started"
        self._broken: str | None = None
        self._requests: set[Request] = set()
        self._failed = HalvedBatches[QueuedText](lambda text: not text.request.ended)
        self._running = 0
        self._queue_texts = 0
        self._characters = 0

    def start(self) -> None:
        """Begin to take requests; to be called on the event loop that will bring them."""
        self._loop = asyncio.get_running_loop()
        self._refusing = None

    @property
    def queue_texts(self) -> int:
        """Texts that wait for a batch."""
        return self._queue_texts

    @property
    def queue_characters(self) -> int:
        """Characters of all requests in flight."""
        return self._characters

    def stuck(self) -> str | None:
        """Return why no text will be encoded any more; None where texts are."""
        if self._runner.running_s > self._limits.stuck_s:
            return f"a batch has been running for {self._runner.running_s:.0f} s"
        return self._broken

    async def encode(
        self, texts: Sequence[str], *, prompt: str | None = None, deadline_s: float | None = None
    ) -> Embedded:
        """Return the vectors of some texts, as the encoder gives them.

        Args:
            texts: the texts; not to be changed meanwhile.
            prompt: name of one of the model's prompts; None for the one that the encoder's settings name.
            deadline_s: seconds from now after which the answer is of no use; None where it always is.

        Raises:
            OverloadError: the queue has no room for the texts.
            DeadlineError: the deadline has passed before all were encoded.
            PoisonError: the model throws at one of the texts.
            UnavailableError: the batcher has ended, or the model throws at any text.
            UsageError: the model has no such prompt.
        """
        if self._refusing is not None:
            self._metrics.rejected("unavailable")
            raise UnavailableError(self._refusing)
        if not texts:
            return Embedded(np.zeros((0, self._encoder.dimension), np.float32), 0, 0)
        request = self._admitted(texts, prompt, deadline_s)
        timer = None if deadline_s is None else self._loop.call_later(deadline_s, self._expire, request, deadline_s)
        try:
            return await request.answer
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(request)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests, and finish those in flight.

        Args:
            timeout_s: after so many seconds what is left is answered with UnavailableError.

        Returns:
            Whether all were finished.
        """
        self._refusing = self._refusing or "the server is shutting down; send it to another one"
        answers = [request.answer for request in self._requests]
        if answers:
            await asyncio.wait(answers, timeout=max(timeout_s, 0.0))
        left = [request for request in self._requests if not request.ended]
        for request in left:
            request.fail(UnavailableError("the server is shutting down, and had no time left for these texts"))
        self._intake.close()
        if self._own is not None:
            self._own.shutdown(wait=False, cancel_futures=True)
        return not left

    # --- requests come and go

    def _admitted(self, texts: Sequence[str], prompt: str | None, deadline_s: float | None) -> Request:
        if deadline_s is not None and deadline_s <= 0:
            self._metrics.rejected("deadline")
            raise DeadlineError("the time for these texts had passed when they came")
        characters = sum(map(len, texts))
        limits = self._limits
        texts_over = self._queue_texts + len(texts) - limits.queue_texts
        characters_over = self._characters + characters - limits.queue_characters
        # One that is too large for an empty queue is taken all the same: it would never find room.
        if (texts_over > 0 and self._queue_texts) or (characters_over > 0 and self._characters):
            self._metrics.rejected("overload")
            wait_s = self._rate.seconds_for(texts_over, characters_over)
            raise OverloadError(
                f"the queue holds {self._queue_texts} texts of {self._characters} characters, and has no room for "
                f"{len(texts)} more; try again in {wait_s:.1f} s",
                wait_s,
            )
        request = Request(texts, prompt, characters, time.perf_counter(), self._queue.clock, self._loop.create_future())
        self._requests.add(request)
        self._characters += characters
        self._count_waiting(len(texts))
        self._intake.add(request)
        return request

    def _expire(self, request: Request, deadline_s: float) -> None:
        if not request.ended:
            self._metrics.rejected("deadline")
            request.fail(DeadlineError(f"the texts could not be encoded within {deadline_s:.3g} s"))

    def _leave(self, request: Request) -> None:
        """Forget a request that has ended, with those of its texts that still wait."""
        if request.answer.cancelled():
            self._metrics.cancelled.inc()
        self._requests.discard(request)
        self._intake.abandon(request)
        self._characters -= request.characters
        self._queue.abandon(request)
        self._count_waiting(-request.waiting)
        request.waiting = 0

    def _count_waiting(self, texts: int) -> None:
        self._queue_texts += texts
        self._metrics.queue_texts.set(self._queue_texts)
        self._metrics.held_characters.set(self._characters)

    # --- batches to vectors

    def _enqueue(self, texts: list[QueuedText]) -> None:
        self._queue.add(texts)
        self._run()

    def _run(self) -> None:
        """Hand batches to the encoder's thread, as far ahead as is of use."""
        while self._running < _AHEAD and (texts := self._next_batch()):
            self._running += 1
            future = self._loop.run_in_executor(self._executor, self._runner.run, texts)
            future.add_done_callback(partial(self._on_batch_ended, texts))

    def _next_batch(self) -> list[QueuedText]:
        if again := self._failed.take():
            return again
        if self._running and self._queue.tokens < self._queue.batch_tokens:
            return []  # it may still fill up while the one before it runs
        batch = self._queue.take()
        now_s = time.perf_counter()
        for text in batch:
            request = text.request
            if request.waiting == len(request.texts):
                self._metrics.queue_seconds.observe(now_s - request.arrived_s)
            request.waiting -= 1
        self._count_waiting(-len(batch))
        return batch

    def _on_batch_ended(self, texts: list[QueuedText], future: asyncio.Future[EncodedBatch]) -> None:
        self._running -= 1
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._run()
            self._deliver(future.result())
            return
        self._metrics.failed_batches.inc()
        if (text := self._failed.split(texts)) is not None:
            probe = self._loop.run_in_executor(self._executor, self._runner.probe)
            probe.add_done_callback(partial(self._on_probed, text.request, error))
        self._run()

    def _on_probed(self, request: Request, error: BaseException, probe: asyncio.Future[None]) -> None:
        """Answer a request at one of whose texts the model threw: is the text at fault, or the model?"""
        if probe.cancelled():
            return
        if probe.exception() is not None:
            self._broken = f"the model throws at any text: {one_line(error)}"
            request.fail(UnavailableError(self._broken))
            return
        self._metrics.failed_texts.inc()
        request.fail(_poison("model", error))

    def _deliver(self, batch: EncodedBatch) -> None:
        if not batch.texts:
            return
        self._broken = None
        places: dict[Request, list[int]] = {}
        for place, text in enumerate(batch.texts):
            places.setdefault(text.request, []).append(place)
        for request, mine in places.items():
            request.fill([batch.texts[place].row for place in mine], batch.vectors[mine])
        tokens = sum(text.tokens for text in batch.texts)
        characters = sum(len(text.prepared.texts[text.place]) for text in batch.texts)
        self._rate.add(len(batch.texts), characters, batch.seconds)
        self._metrics.encoded(
            len(batch.texts), tokens, batch.truncated, batch.seconds, tokens / self._queue.batch_tokens
        )


class Intake:
    """The way of requests into the queue: tokenised in a thread, in the order in which they come.

    Its state belongs to the event loop.

    Args:
        encoder: the model, whose `prepare` runs on a thread of its own.
        metrics: what it counts.
        on_tokenized: called with texts that are tokenised.
    """

    def __init__(
        self, encoder: TextEncoder, metrics: ModelMetrics, on_tokenized: Callable[[list[QueuedText]], None]
    ) -> None:
        self._encoder = encoder
        self._metrics = metrics
        self._on_tokenized = on_tokenized
        self._thread = ThreadPoolExecutor(1, "driftline-tokens")
        self._arrived: dict[Request, None] = {}  # in order
        self._failed = HalvedBatches[Request](lambda request: not request.ended)
        self._busy = False

    def add(self, request: Request) -> None:
        """Take a request."""
        self._arrived[request] = None
        self._tokenize()

    def abandon(self, request: Request) -> None:
        """Leave out a request that has ended."""
        self._arrived.pop(request, None)

    def close(self) -> None:
        """Tokenise nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _tokenize(self) -> None:
        """Hand what has come to the thread, unless it is busy."""
        if self._busy:
            return
        taken = self._failed.take() or self._next_call()
        if not taken:
            return
        self._busy = True
        texts = [text for request in taken for text in request.texts]
        began_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._encoder.prepare, texts, taken[0].prompt)
        future.add_done_callback(partial(self._on_call_ended, taken, began_s))

    def _next_call(self) -> list[Request]:
        """Return requests to tokenise in one call, of one prompt, in the order in which they came."""
        taken: list[Request] = []
        characters = 0
        for request in self._arrived:
            if request.ended:
                continue
            if taken and (request.prompt != taken[0].prompt or characters >= _CALL_CHARACTERS):
                break
            taken.append(request)
            characters += request.characters
        for request in taken:
            del self._arrived[request]
        return taken

    def _on_call_ended(self, taken: list[Request], began_s: float, future: asyncio.Future[Prepared]) -> None:
        self._busy = False
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._metrics.tokenize_seconds.observe(time.perf_counter() - began_s)
            self._on_tokenized(_queued(taken, future.result()))
        elif (request := self._failed.split(taken)) is not None:
            self._metrics.failed_texts.inc()
            request.fail(error if isinstance(error, DriftlineError) else _poison("tokenizer", error))
        self._tokenize()


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBatch:
    """A batch's vectors.

    Attributes:
        texts: those that were still wanted when it began.
        vectors: (texts, dimension) float32.
        truncated: texts that were cut.
        seconds: it took.
    """

    texts: list[QueuedText]
    vectors: NDArray[np.float32]
    truncated: int
    seconds: float


class BatchRunner:
    """The encoder's side: it runs batches, one after another, in whichever thread calls it."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._began_s: float | None = None

    @property
    def running_s(self) -> float:
        """Seconds that the current batch has been running; 0 where there is none."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.perf_counter() - began_s

    def run(self, texts: Sequence[QueuedText]) -> EncodedBatch:
        """Encode a batch, without the texts that nobody waits for any more."""
        began_s = self._began_s = time.perf_counter()
        try:
            calls: dict[Prepared, list[QueuedText]] = {}
            for text in texts:
                if not text.request.ended:
                    calls.setdefault(text.prepared, []).append(text)
            if not calls:
                return EncodedBatch([], np.zeros((0, self._encoder.dimension), np.float32), 0, 0.0)
            wanted = joined([(prepared, [text.place for text in mine]) for prepared, mine in calls.items()])
            encoding = self._encoder.finish(wanted)
            order = [text for mine in calls.values() for text in mine]
            return EncodedBatch(order, encoding.vectors, encoding.truncated, time.perf_counter() - began_s)
        finally:
            self._began_s = None

    def probe(self) -> None:
        """Encode a text that every model can encode; a broken model throws at it, too."""
        self._began_s = time.perf_counter()
        try:
            self._encoder.finish(self._encoder.prepare([PROBE_TEXT]))
        finally:
            self._began_s = None


class DrainRate:
    """Texts and characters that are encoded a second, averaged over the last batches.

    It tells a caller who finds the queue full when it is worth trying again.
    """

    _WEIGHT: Final = 0.2  # of a new batch: some ten of them make up most of the figure
    _UNKNOWN_S: Final = 1.0
    _LEAST_S: Final = 0.05
    _MOST_S: Final = 300.0

    def __init__(self) -> None:
        self._texts = self._characters = self._seconds = 0.0

    def add(self, texts: int, characters: int, seconds: float) -> None:
        """Count a batch."""
        keep = 1 - self._WEIGHT
        self._texts = keep * self._texts + texts
        self._characters = keep * self._characters + characters
        self._seconds = keep * self._seconds + seconds

    def seconds_for(self, texts: int, characters: int) -> float:
        """Return the seconds within which so many texts, or so many characters, whichever takes longer, are encoded."""
        if not self._seconds:
            return self._UNKNOWN_S
        shares = (max(texts, 0) / max(self._texts, 1.0), max(characters, 0) / max(self._characters, 1.0))
        return min(max(max(shares) * self._seconds, self._LEAST_S), self._MOST_S)


def _queued(taken: list[Request], prepared: Prepared) -> list[QueuedText]:
    """Return the texts of a call, with their ranks, and note in the requests what is known of them now."""
    lengths: list[int] = prepared.text_lengths().tolist()
    cut = np.zeros(len(lengths), np.bool_)
    cut[prepared.tokens.cut] = True
    queued: list[QueuedText] = []
    first = 0
    for request in taken:
        last = first + len(request.texts)
        request.tokens = sum(lengths[first:last])
        request.truncated = int(cut[first:last].sum())
        rank = request.clock
        if not request.ended:
            for row, tokens in enumerate(lengths[first:last]):
                queued.append(QueuedText(request, row, prepared, first + row, tokens, rank))
                rank += DEPTH * tokens
        first = last
    return queued


def _poison(part: str, error: BaseException) -> PoisonError:
    return PoisonError("model", f"the {part} cannot make a vector of one of the texts: {one_line(error)}")
