"""Chunks: the distinct texts of a shard, each encoded once, and those that are finished, kept until the shard is.

A task that takes over encodes only what is not finished. A chunk's file is a line of JSON, then the vectors' bytes
(little-endian, row by row), then the SHA-256 of all that. It becomes visible whole or not at all; one that is damaged
all the same counts as not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import FileInfo

CHUNK_TEXTS: Final = 4096
"""Texts in a chunk at most: many batches for the encoder to sort by length, seconds of work to lose."""

CHUNK_BYTES: Final = 4 << 20
"""UTF-8 bytes in a chunk at most; a longer text is a chunk by itself."""

_FILE_DIGEST_BYTES: Final = hashlib.sha256().digest_size
# 128 bits: no two texts of any corpus share a digest, not even ones that were sought out.
_TEXT_DIGEST_BYTES: Final = 16


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
        identity = hashlib.blake2b(digest_size=_TEXT_DIGEST_BYTES)
        size = rows = number = 0
        for batch in batches:
            for text in batch:
                content = text.encode()
                digest = _digest(content)
                if digest not in self._numbers:
                    if texts and (len(texts) == CHUNK_TEXTS or size + len(content) > CHUNK_BYTES):
                        yield Chunk(number, tuple(texts), identity.hexdigest(), rows)
                        texts, identity = [], hashlib.blake2b(digest_size=_TEXT_DIGEST_BYTES)
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
    return hashlib.blake2b(content, digest_size=_TEXT_DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True, eq=False)
class EncodedChunk:
    """The vectors of a chunk's texts.

    Attributes:
        vectors: (texts, dimension), of the dataset's dtype.
        tokens: tokens that the texts have.
        truncated: texts that were cut at the model's maximum length.
    """

    vectors: NDArray[Any]
    tokens: int
    truncated: int


class ChunkFolder:
    """The chunks of one shard.

    Args:
        uri: their folder.
        dimension: length of a vector.
        dtype: of the vectors that are kept.
    """

    def __init__(self, uri: str, dimension: int, dtype: str) -> None:
        self._uri = uri
        self._dimension = dimension
        self._dtype = dtype
        # As first seen: a chunk is written only over what was there then.
        self._seen: dict[str, FileInfo] = {info.uri.rsplit("/", 1)[-1]: info for info in store.list_files(uri)}

    def read(self, chunk: Chunk) -> EncodedChunk | None:
        """Return a chunk that was there, whole and of these very texts, when this object was made; else None."""
        return self._read(chunk) if _name(chunk) in self._seen else None

    def keep(self, chunk: Chunk, encoded: EncodedChunk) -> EncodedChunk:
        """Write a chunk and return it; where another task has done so meanwhile, return what that one wrote.

        So tasks that were given the same shard go on from the same vectors.

        Raises:
            StorageConflict: another task wrote something else.
            StorageError: it cannot be written.
        """
        name = _name(chunk)
        with np.errstate(over="ignore"):  # what is too large for float16 is refused when the shard is written
            vectors = np.ascontiguousarray(encoded.vectors, self._dtype)
        kept = EncodedChunk(vectors, encoded.tokens, encoded.truncated)
        content = self._content(chunk, kept)
        try:
            with store.create(store.join(self._uri, name), over=self._seen.get(name)) as handle:
                handle.write(content)
        except StorageConflict:
            theirs = self._read(chunk)
            if theirs is None:
                raise
            return theirs
        return kept

    def remove(self) -> None:
        """Remove all chunks; none is fine."""
        store.remove_tree(self._uri)

    def _content(self, chunk: Chunk, encoded: EncodedChunk) -> bytes:
        header = {
            "of": chunk.digest,
            "dtype": self._dtype,
            "dimension": self._dimension,
            "tokens": encoded.tokens,
            "truncated": encoded.truncated,
        }
        numbers = encoded.vectors.astype(encoded.vectors.dtype.newbyteorder("<"), copy=False).tobytes()
        content = json.dumps(header).encode() + b"\n" + numbers
        return content + hashlib.sha256(content).digest()

    def _read(self, chunk: Chunk) -> EncodedChunk | None:
        uri = store.join(self._uri, _name(chunk))
        try:
            content = store.read_bytes(uri)
        except StorageError:
            if store.exists(uri):
                raise
            return None  # the task that finished the shard has removed it
        body, digest = content[:-_FILE_DIGEST_BYTES], content[-_FILE_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        line, _, numbers = body.partition(b"\n")
        header = cast("dict[str, Any]", json.loads(line))
        expected = {"of": chunk.digest, "dtype": self._dtype, "dimension": self._dimension}
        if any(header.get(name) != value for name, value in expected.items()):
            return None
        vectors = np.frombuffer(numbers, np.dtype(self._dtype).newbyteorder("<"))
        return EncodedChunk(
            vectors.reshape(len(chunk.texts), self._dimension), int(header["tokens"]), int(header["truncated"])
        )


def _name(chunk: Chunk) -> str:
    return f"chunk-{chunk.number:05d}.bin"


def rows_of(chunks: list[EncodedChunk], starts: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Gather vectors from chunks, without joining these.

    Args:
        chunks: in order.
        starts: number of each chunk's first text, shape (chunks,).
        numbers: of the texts whose vectors are wanted, shape (rows,).

    Returns:
        Shape (rows, dimension), of the chunks' dtype.
    """
    vectors = np.empty((len(numbers), chunks[0].vectors.shape[1]), chunks[0].vectors.dtype)
    places = np.searchsorted(starts, numbers, side="right") - 1
    for place in np.unique(places).tolist():
        mask = places == place
        vectors[mask] = chunks[place].vectors[numbers[mask] - starts[place]]
    return vectors
