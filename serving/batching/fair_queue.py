"""The queue in which tokenised texts wait, and the rule by which batches are taken from it. No I/O, no clock.

**The queue.** A text's rank is the number of tokens that had been encoded when its request came, plus `DEPTH` times the
tokens of the request before it. So requests go in the order in which they came, but the end of a long one steps aside
for short ones that come later, as if it had been asked for piece by piece; nothing that comes when more tokens than a
text's rank have been encoded can get ahead of it, so that it leaves however many others keep coming, and a long request
never gets less than a `DEPTH`-th of the encoder.

**The batch.** The first in line always leaves with the next batch. The rest of the batch is filled, out of the first
`WINDOW` batches' worth of the queue, with the texts nearest to it in length: sequences of one length cost an encoder
least. No text is passed over more than `PATIENCE` times: then it goes before all that stand behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.serving.batching.request import QueuedText, Request

DEPTH: Final = 4
WINDOW: Final = 4
PATIENCE: Final = 3

_FEW: Final = 64  # so many texts without a request may stay in the queue


class FairQueue:
    """Texts that wait for a batch.

    Args:
        batch_tokens: tokens of a batch at most; a longer text makes a batch alone.

    Attributes:
        batch_tokens: as given.
        clock: tokens of all batches taken so far.
        tokens: tokens that wait, those of ended requests not counted.
    """

    def __init__(self, batch_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        self.clock = 0
        self.tokens = 0
        self._texts: list[QueuedText] = []  # by rank; of one rank, in the order in which they came
        self._abandoned = 0

    def add(self, texts: Iterable[QueuedText]) -> None:
        """Let texts join."""
        for text in texts:
            self._texts.append(text)
            self.tokens += text.tokens
            text.request.queued_tokens += text.tokens
        self._texts.sort(key=attrgetter("rank"))  # one pass over what is in order

    def abandon(self, request: Request) -> None:
        """Leave out the texts of a request that has ended."""
        self.tokens -= request.queued_tokens
        request.queued_tokens = 0
        self._abandoned += request.waiting
        if self._abandoned > max(_FEW, len(self._texts) // 2):  # each text is looked at twice at most
            self._texts = [text for text in self._texts if not text.request.ended]
            self._abandoned = 0

    def take(self) -> list[QueuedText]:
        """Take a batch by the rule; an empty one where nothing waits."""
        window, end = self._window()
        if not window:
            self._texts.clear()
            self._abandoned = 0
            return []
        chosen = self._chosen(window)
        last = int(np.flatnonzero(chosen)[-1])
        batch: list[QueuedText] = []
        left: list[QueuedText] = []
        for place, (text, taken) in enumerate(zip(window, chosen.tolist(), strict=True)):
            if taken:
                batch.append(text)
                text.request.queued_tokens -= text.tokens
            else:
                left.append(text)
                text.passed += place < last
        self._texts[:end] = [text for text in left if not text.request.ended]
        size = sum(text.tokens for text in batch)
        self.tokens -= size
        self.clock += size
        return batch

    def _window(self) -> tuple[list[QueuedText], int]:
        """Return the texts of requests that have not ended, from the front, and how much of the queue they are."""
        texts: list[QueuedText] = []
        tokens = end = 0
        for text in self._texts:
            end += 1
            if text.request.ended:
                self._abandoned = max(0, self._abandoned - 1)
                continue
            texts.append(text)
            tokens += text.tokens
            if tokens >= WINDOW * self.batch_tokens:
                break
        return texts, end

    def _chosen(self, window: list[QueuedText]) -> NDArray[np.bool_]:
        """Return which texts of the window make the batch, (texts,) bool."""
        count = len(window)
        lengths = np.fromiter((text.tokens for text in window), np.int64, count)
        patient = np.fromiter((text.passed < PATIENCE for text in window), np.bool_, count)
        fits = np.ones(count, np.bool_)
        prompt = window[0].prepared.prompt
        if any(text.prepared.prompt != prompt for text in window):
            fits = np.fromiter((text.prepared.prompt == prompt for text in window), np.bool_, count)
            waited = np.flatnonzero(~fits & ~patient)
            fits[waited[0] if len(waited) else count :] = False
        chosen = np.zeros(count, np.bool_)
        chosen[0] = True
        room = self.batch_tokens - int(lengths[0])
        for place in np.flatnonzero(fits & ~patient).tolist():
            if chosen[place]:
                continue
            if lengths[place] > room:
                return chosen  # nobody goes before it
            chosen[place] = True
            room -= int(lengths[place])
        others = np.flatnonzero(fits & ~chosen)
        nearest = others[np.argsort(np.abs(lengths[others] - lengths[0]), kind="stable")]
        # Up to the first one that does not fit: what is beyond it differs more.
        chosen[nearest[: int(np.searchsorted(np.cumsum(lengths[nearest]), room, side="right"))]] = True
        return chosen
