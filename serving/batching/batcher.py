"""The dynamic batcher: requests' texts in, batches through the encoder, each request's vectors out.

All of its state belongs to the event loop. Two threads work for it: one tokenises the requests that came meanwhile, all
together; one runs batches. A lone request is encoded at once. While a batch runs, the next one waits for more texts
until it is full; a full one is handed over before the running one ends, so that the encoder never pauses.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np

from driftline.components.errors import one_line
from driftline.serving.batching.encoding import Batch, EncodingThread, TextEncoder
from driftline.serving.batching.intake import Intake
from driftline.serving.batching.limits import Limits
from driftline.serving.batching.line import Line
from driftline.serving.batching.metrics import ModelMetrics
from driftline.serving.batching.rate import Rate
from driftline.serving.batching.request import Embedded, QueuedText, Request, poison
from driftline.serving.errors import DeadlineError, OverloadError, UnavailableError

_AHEAD: Final = 2  # batches handed to the encoder's thread: the one that runs, and the one after it


class Batcher:
    """Encodes texts of many callers in common batches.

    * A request's texts may be spread over batches, and a batch holds texts of several requests; the order is told in
      :mod:`.line`.
    * A request that is cancelled, or whose time has passed, leaves with all of its texts that do not run yet.
    * A text at which the model throws fails its own request alone: its batch is halved until it is found, and it is
      taken for poison only where the model still encodes another one.
    """

    def __init__(
        self, encoder: TextEncoder, limits: Limits, metrics: ModelMetrics, *, executor: Executor | None = None
    ) -> None:
        """Make it; it takes requests from :meth:`start` on.

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
        self._intake = Intake(encoder, metrics, self._join)
        self._rate = Rate()
        self._line = Line(limits.batch_tokens or encoder.batch_tokens)
        self._thread = EncodingThread(encoder)
        self._refusing: str | None = "the batcher is not started"
        self._broken: str | None = None
        self._requests: set[Request] = set()
        self._rerun: deque[list[QueuedText]] = deque()  # parts of batches at which the model threw
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
        """Characters of all requests in hand."""
        return self._characters

    def stuck(self) -> str | None:
        """Return why no text will be encoded any more; None where texts are."""
        if self._thread.running_s > self._limits.stuck_s:
            return f"a batch has been running for {self._thread.running_s:.0f} s"
        return self._broken

    async def embed(
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
        """Take no more requests, and finish those in hand.

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
        request = Request(texts, prompt, characters, time.perf_counter(), self._line.clock, self._loop.create_future())
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
        self._line.abandon(request)
        self._count_waiting(-request.waiting)
        request.waiting = 0

    def _count_waiting(self, texts: int) -> None:
        self._queue_texts += texts
        self._metrics.queue_texts.set(self._queue_texts)
        self._metrics.held_characters.set(self._characters)

    # --- batches to vectors

    def _join(self, texts: list[QueuedText]) -> None:
        self._line.add(texts)
        self._run()

    def _run(self) -> None:
        """Hand batches to the encoder's thread, as far ahead as is of use."""
        while self._running < _AHEAD and (texts := self._next_batch()):
            self._running += 1
            future = self._loop.run_in_executor(self._executor, self._thread.encode, texts)
            future.add_done_callback(partial(self._encoded, texts))

    def _next_batch(self) -> list[QueuedText]:
        while self._rerun:
            again = [text for text in self._rerun.popleft() if not text.request.ended]
            if again:
                return again
        if self._running and self._line.tokens < self._line.batch_tokens:
            return []  # it may still fill up while the one before it runs
        batch = self._line.take()
        now_s = time.perf_counter()
        for text in batch:
            request = text.request
            if request.waiting == len(request.texts):
                self._metrics.queue_seconds.observe(now_s - request.arrived_s)
            request.waiting -= 1
        self._count_waiting(-len(batch))
        return batch

    def _encoded(self, texts: list[QueuedText], future: asyncio.Future[Batch]) -> None:
        self._running -= 1
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._run()
            self._deliver(future.result())
            return
        self._metrics.failed_batches.inc()
        wanted = [text for text in texts if not text.request.ended]
        if len(wanted) > 1:
            half = len(wanted) // 2
            self._rerun.extend((wanted[:half], wanted[half:]))
        elif wanted:
            check = self._loop.run_in_executor(self._executor, self._thread.check)
            check.add_done_callback(partial(self._checked, wanted[0].request, error))
        self._run()

    def _checked(self, request: Request, error: BaseException, check: asyncio.Future[None]) -> None:
        """Answer a request at one of whose texts the model threw, knowing how the model is."""
        if check.cancelled():
            return
        if check.exception() is not None:
            self._broken = f"the model throws at any text: {one_line(error)}"
            request.fail(UnavailableError(self._broken))
            return
        self._metrics.failed_texts.inc()
        request.fail(poison("model", error))

    def _deliver(self, batch: Batch) -> None:
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
        self._rate.encoded(len(batch.texts), characters, batch.seconds)
        self._metrics.encoded(
            len(batch.texts), tokens, batch.truncated, batch.seconds, tokens / self._line.batch_tokens
        )
