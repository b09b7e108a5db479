"""Finished chunks of a shard that is still being embedded: what a task that takes over need not encode again.

A chunk's file is a line of JSON, then the vectors' bytes (little-endian, row by row), then the SHA-256 of all that. It
becomes visible whole or not at all; one that is damaged all the same counts as not there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from driftline.components.embedding.backfill.deduplication import Chunk
from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import FileInfo

_DIGEST_BYTES: Final = hashlib.sha256().digest_size


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
        body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
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
