"""An encoder whose every batch waits to be let go, and which throws where it is told to."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Sequence

import numpy as np

from driftline.components.embedding.encoding.text import Encoding, Prepared, Prompt, Tokens
from driftline.components.errors import UsageError

DIMENSION = 4
MAX_TOKENS = 40
TIMEOUT_S = 30


def vector(text: str, prompt: str | None = None) -> np.ndarray:
    """The vector of a text: four numbers that no other text has."""
    return np.random.default_rng(zlib.crc32(f"{prompt}|{text}".encode())).standard_normal(DIMENSION).astype(np.float32)


class FakeEncoder:
    """A token is a word. Texts with "poison" in them fail, as do those with "unspeakable" in the tokenizer."""

    dimension = DIMENSION

    def __init__(self, batch_tokens: int = 20, *, held: bool = False, told: bool = False) -> None:
        self.batch_tokens = batch_tokens
        self.batches: list[list[str]] = []
        self.calls: list[list[str]] = []
        self.broken = False
        self._told = told
        self._held = held
        self._permits = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)

    def prepare(self, texts: Sequence[str], prompt: str | None = None) -> Prepared:
        self.calls.append(list(texts))
        if prompt == "unknown":
            raise UsageError("prompt: there is no such prompt")
        if any("unspeakable" in text for text in texts):
            raise ValueError("no token for this")
        lengths = np.asarray([len(text.split()) for text in texts], np.int64)
        sequences = [(prompt, text) for text in texts]
        tokens = Tokens(sequences, np.arange(len(texts)), lengths, np.flatnonzero(lengths > MAX_TOKENS))
        return Prepared(list(texts), tokens, Prompt(prompt, 1) if self._told and prompt else None)

    def finish(self, prepared: Prepared) -> Encoding:
        self.batches.append(list(prepared.texts))
        self._entered.release()
        if self._held and not self._permits.acquire(timeout=TIMEOUT_S):
            raise TimeoutError
        if self.broken or any("poison" in text for text in prepared.texts):
            raise RuntimeError("index out of range in self")
        vectors = np.stack([vector(text, prompt) for prompt, text in prepared.tokens.sequences])
        return Encoding(vectors, int(prepared.tokens.lengths.sum()), prepared.tokens.truncated)

    def entered(self) -> None:
        """Wait, without the event loop, until one more batch has begun."""
        if not self._entered.acquire(timeout=TIMEOUT_S):
            raise TimeoutError

    async def has_begun(self) -> None:
        """Wait until one more batch has begun."""
        await asyncio.to_thread(self.entered)

    def let_one_go(self) -> None:
        """Let the batch that runs, or the next one, end."""
        self._permits.release()

    def let_go(self) -> None:
        """Hold no batch any more."""
        self._held = False
        self._permits.release(1000)
