"""A request in flight, and its texts while they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from driftline.components.embedding.encoding.text import Prepared


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Some texts' vectors.

    Attributes:
        vectors: (texts, dimension) float32, finite, in the texts' order.
        tokens: tokens that the model saw of all texts together.
        truncated: texts longer than the model's maximum, which were cut.
    """

    vectors: NDArray[np.float32]
    tokens: int
    truncated: int


@dataclass(slots=True, eq=False)
class Request:
    """Texts that are to be encoded for one caller.

    Attributes:
        texts: the texts, one at least.
        prompt: name of the prompt before them; None for the encoder's own.
        characters: of all texts.
        arrived_s: `time.perf_counter()` when it came.
        clock: tokens that the batcher had encoded when it came.
        answer: done when the vectors are there, or never will be.
        waiting: texts that no batch has taken yet.
        missing: texts without a vector yet.
        queued_tokens: tokens of its texts that are in the queue.
        tokens: of all texts; known once they are tokenised.
        truncated: texts that were cut.
        vectors: (texts, dimension) float32, filled batch by batch; None before the first.
    """

    texts: Sequence[str]
    prompt: str | None
    characters: int
    arrived_s: float
    clock: int
    answer: asyncio.Future[Embedded]
    waiting: int = field(init=False)
    missing: int = field(init=False)
    queued_tokens: int = 0
    tokens: int = 0
    truncated: int = 0
    vectors: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        self.waiting = self.missing = len(self.texts)

    @property
    def ended(self) -> bool:
        """Whether nobody waits for it any more: it is answered, cancelled, or its time has passed."""
        return self.answer.done()

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless it has ended."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def fill(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Put some texts' vectors in their places; answer with the last ones.

        Args:
            rows: the texts' numbers.
            vectors: (rows, dimension) float32, the request's from now on.
        """
        if self.answer.done():
            return
        if self.vectors is None:
            # Most requests are in one batch: theirs need no second copy.
            in_order = len(rows) == len(self.texts) and list(rows) == list(range(len(rows)))
            self.vectors = vectors if in_order else np.empty((len(self.texts), vectors.shape[1]), np.float32)
        if self.vectors is not vectors:
            self.vectors[list(rows)] = vectors
        self.missing -= len(rows)
        if not self.missing:
            self.answer.set_result(Embedded(self.vectors, self.tokens, self.truncated))


@dataclass(slots=True, eq=False)
class QueuedText:
    """A tokenised text in the queue.

    Attributes:
        request: whose it is.
        row: its number among the request's texts.
        prepared: the call that tokenised it, together with others.
        place: its number in that call.
        tokens: its length.
        rank: its place in the queue, in tokens; see :class:`.fair_queue.FairQueue`.
        passed: batches that took a text from behind it.
    """

    request: Request
    row: int
    prepared: Prepared
    place: int
    tokens: int
    rank: int
    passed: int = 0
