"""Distinct texts of a shard, in chunks: each text is encoded once, a chunk at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CHUNK_TEXTS: Final = 4096
"""Texts in a chunk at most: many batches for the encoder to sort by length, seconds of work to lose."""

CHUNK_BYTES: Final = 4 << 20
"""UTF-8 bytes in a chunk at most; a longer text is a chunk by itself."""

# 128 bits: no two texts of any corpus share a digest, not even ones that were sought out.
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """Texts that are encoded together.

    Attributes:
        number: its place among the shard's chunks.
        texts: distinct texts that no earlier chunk has, at least one.
        digest: identity of the texts and their order.
        rows: rows of the shard read up to here since the chunk before, repeated texts included.
    """

    number: int
    texts: tuple[str, ...]
    digest: str
    rows: int


class DistinctTexts:
    """The distinct texts of a shard, numbered in the order in which they first appear.

    Memory: about 150 bytes a distinct text, and the texts of one chunk.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def chunks(self, batches: Iterable[Sequence[str]]) -> Iterator[Chunk]:
        """Cut the texts that are new into chunks.

        Where the cuts fall follows from the texts alone, not from how they are cut into batches: a task that takes
        over finds its predecessor's chunks.

        Args:
            batches: the shard's texts, in order.
        """
        texts: list[str] = []
        identity = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        size = rows = number = 0
        for batch in batches:
            for text in batch:
                content = text.encode()
                digest = _digest(content)
                if digest not in self._numbers:
                    if texts and (len(texts) == CHUNK_TEXTS or size + len(content) > CHUNK_BYTES):
                        yield Chunk(number, tuple(texts), identity.hexdigest(), rows)
                        texts, identity = [], hashlib.blake2b(digest_size=_DIGEST_BYTES)
                        size, rows, number = 0, 0, number + 1
                    self._numbers[digest] = len(self._numbers)
                    texts.append(text)
                    identity.update(digest)
                    size += len(content)
                rows += 1
        if texts:
            yield Chunk(number, tuple(texts), identity.hexdigest(), rows)

    def numbers(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of each text, shape (texts,); -1 for one that `chunks` has not seen."""
        return np.fromiter(
            (self._numbers.get(_digest(text.encode()), -1) for text in texts), dtype=np.int64, count=len(texts)
        )


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
