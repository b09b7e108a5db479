"""The batcher's side of the model: what runs on its threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from driftline.components.embedding.encoding.prepared import Encoding, Prepared, joined
from driftline.serving.batching.request import QueuedText

_PLAIN: Final = "a"
"""A text that every model can encode."""


class TextEncoder(Protocol):
    """What the batcher asks of :class:`driftline.components.embedding.encoding.encoder.Encoder`."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """An encoded batch.

    Attributes:
        texts: those that were still wanted when it began.
        vectors: (texts, dimension) float32.
        truncated: texts that were cut.
        began_s: `time.perf_counter()` when it began.
        seconds: it took.
    """

    texts: list[QueuedText]
    vectors: NDArray[np.float32]
    truncated: int
    began_s: float
    seconds: float


class EncodingThread:
    """Runs batches, one after another, and knows since when the one in hand has been running."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._began_s: float | None = None

    @property
    def running_s(self) -> float:
        """Seconds that the batch in hand has been running; 0 where there is none."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.perf_counter() - began_s

    def encode(self, texts: Sequence[QueuedText]) -> Batch:
        """Encode a batch, without the texts that nobody waits for any more."""
        began_s = self._began_s = time.perf_counter()
        try:
            calls: dict[Prepared, list[QueuedText]] = {}
            for text in texts:
                if not text.request.ended:
                    calls.setdefault(text.prepared, []).append(text)
            if not calls:
                return Batch([], np.zeros((0, self._encoder.dimension), np.float32), 0, began_s, 0.0)
            wanted = joined([(prepared, [text.place for text in mine]) for prepared, mine in calls.items()])
            encoding = self._encoder.finish(wanted)
            order = [text for mine in calls.values() for text in mine]
            return Batch(order, encoding.vectors, encoding.truncated, began_s, time.perf_counter() - began_s)
        finally:
            self._began_s = None

    def check(self) -> None:
        """Encode a text that any model can encode: what it raises, the model would raise at all."""
        self._began_s = time.perf_counter()
        try:
            self._encoder.finish(self._encoder.prepare([_PLAIN]))
        finally:
            self._began_s = None
