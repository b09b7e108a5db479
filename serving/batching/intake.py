"""Requests to texts in line: tokenised in a thread, all that came meanwhile together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np

from driftline.components.embedding.encoding.prepared import Prepared
from driftline.components.errors import DriftlineError
from driftline.serving.batching.encoding import TextEncoder
from driftline.serving.batching.line import DEPTH
from driftline.serving.batching.metrics import ModelMetrics
from driftline.serving.batching.request import QueuedText, Request, poison

# Characters that are tokenised in one go: some tens of milliseconds, within which the first of them are not needed.
_CALL_CHARACTERS: Final = 200_000


class Intake:
    """Tokenises requests in the order in which they come; its state belongs to the event loop.

    Args:
        encoder: the model, whose `prepare` runs on a thread of its own.
        metrics: what it counts.
        ready: told of texts that are tokenised.
    """

    def __init__(self, encoder: TextEncoder, metrics: ModelMetrics, ready: Callable[[list[QueuedText]], None]) -> None:
        self._encoder = encoder
        self._metrics = metrics
        self._ready = ready
        self._thread = ThreadPoolExecutor(1, "driftline-tokens")
        self._arrived: dict[Request, None] = {}  # in order
        self._again: deque[list[Request]] = deque()  # parts of calls at which the tokenizer threw
        self._busy = False

    def add(self, request: Request) -> None:
        """Take a request."""
        self._arrived[request] = None
        self._go_on()

    def abandon(self, request: Request) -> None:
        """Leave out a request that has ended."""
        self._arrived.pop(request, None)

    def close(self) -> None:
        """Tokenise nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _go_on(self) -> None:
        """Hand what has come to the thread, unless it is busy."""
        if self._busy:
            return
        taken = self._next_call()
        if not taken:
            return
        self._busy = True
        texts = [text for request in taken for text in request.texts]
        began_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._encoder.prepare, texts, taken[0].prompt)
        future.add_done_callback(partial(self._tokenized, taken, began_s))

    def _next_call(self) -> list[Request]:
        """Return requests to tokenise in one call, of one prompt, in the order in which they came."""
        while self._again:
            again = [request for request in self._again.popleft() if not request.ended]
            if again:
                return again
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

    def _tokenized(self, taken: list[Request], began_s: float, future: asyncio.Future[Prepared]) -> None:
        self._busy = False
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._metrics.tokenize_seconds.observe(time.perf_counter() - began_s)
            self._ready(_queued(taken, future.result()))
        elif len(taken) > 1:
            half = len(taken) // 2
            self._again.extend((taken[:half], taken[half:]))
        else:
            self._metrics.failed_texts.inc()
            taken[0].fail(error if isinstance(error, DriftlineError) else poison("tokenizer", error))
        self._go_on()


def _queued(taken: list[Request], prepared: Prepared) -> list[QueuedText]:
    """Return the texts of a call, with their ranks in line, and tell the requests what is known of them now."""
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
