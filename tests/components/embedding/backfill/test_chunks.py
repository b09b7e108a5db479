from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftline.components.embedding.backfill.chunks import ChunkFolder, EncodedChunk, rows_of
from driftline.components.embedding.backfill.deduplication import Chunk
from driftline.components.errors import StorageConflict
from driftline.components.storage.objects.store import join

CHUNK = Chunk(3, ("a", "b"), "d1", 2)
VECTORS = np.array([[1.5, -2.0, 3.25], [0.1, 1e-7, -1e30]], np.float32)


@pytest.fixture(params=["local", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = request.getfixturevalue("gcs_bucket") if request.param == "gs" else str(tmp_path)
    return join(folder, "chunks")


def test_what_is_kept_is_read_again(place: str):
    folder = ChunkFolder(place, 3, "float32")
    assert folder.read(CHUNK) is None
    kept = folder.keep(CHUNK, EncodedChunk(VECTORS, 17, 1))
    found = ChunkFolder(place, 3, "float32").read(CHUNK)
    assert found is not None
    for chunk in (kept, found):
        np.testing.assert_array_equal(chunk.vectors, VECTORS)
        assert chunk.vectors.dtype == np.float32
        assert (chunk.tokens, chunk.truncated) == (17, 1)
    folder.remove()
    assert ChunkFolder(place, 3, "float32").read(CHUNK) is None


def test_float16_is_kept_as_it_will_be_stored(tmp_path: Path):
    kept = ChunkFolder(str(tmp_path), 3, "float16").keep(CHUNK, EncodedChunk(VECTORS, 17, 1))
    found = ChunkFolder(str(tmp_path), 3, "float16").read(CHUNK)
    assert found is not None
    with np.errstate(over="ignore"):
        expected = VECTORS.astype(np.float16)
    assert np.isinf(expected).any(), "too large a number: refused when the shard is written"
    np.testing.assert_array_equal(kept.vectors, expected)
    np.testing.assert_array_equal(found.vectors, expected)
    assert (tmp_path / "chunk-00003.bin").stat().st_size < 12 + 32 + 100


def test_no_damage_goes_unnoticed(tmp_path: Path):
    ChunkFolder(str(tmp_path), 3, "float32").keep(CHUNK, EncodedChunk(VECTORS, 17, 1))
    path = tmp_path / "chunk-00003.bin"
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole + b"\0", whole * 2]
    for content in damaged:
        path.write_bytes(content)
        assert ChunkFolder(str(tmp_path), 3, "float32").read(CHUNK) is None
    folder = ChunkFolder(str(tmp_path), 3, "float32")
    folder.keep(CHUNK, EncodedChunk(VECTORS, 17, 1))
    assert path.read_bytes() == whole, "a damaged one is written over"


def test_the_chunk_of_other_texts_or_another_shape_is_not_taken(tmp_path: Path):
    ChunkFolder(str(tmp_path), 3, "float32").keep(CHUNK, EncodedChunk(VECTORS, 17, 1))
    assert ChunkFolder(str(tmp_path), 3, "float32").read(Chunk(3, ("a", "c"), "d2", 2)) is None
    assert ChunkFolder(str(tmp_path), 3, "float16").read(CHUNK) is None
    assert ChunkFolder(str(tmp_path), 4, "float32").read(CHUNK) is None


def test_of_two_tasks_the_first_one_s_vectors_hold(place: str):
    one, other = ChunkFolder(place, 3, "float32"), ChunkFolder(place, 3, "float32")
    one.keep(CHUNK, EncodedChunk(VECTORS, 17, 1))
    kept = other.keep(CHUNK, EncodedChunk(VECTORS + 1e-6, 17, 1))
    np.testing.assert_array_equal(kept.vectors, VECTORS)


def test_what_is_no_chunk_is_not_written_over_once_it_came_between(place: str):
    one, other = ChunkFolder(place, 3, "float32"), ChunkFolder(place, 3, "float32")
    other.keep(Chunk(3, ("x", "y"), "d2", 2), EncodedChunk(VECTORS, 1, 0))
    with pytest.raises(StorageConflict):
        one.keep(CHUNK, EncodedChunk(VECTORS, 17, 1))


def test_rows_are_gathered_from_chunks():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(11, 3)).astype(np.float32)
    chunks = [EncodedChunk(part, 0, 0) for part in (vectors[:4], vectors[4:5], vectors[5:])]
    numbers = rng.integers(0, 11, 40)
    np.testing.assert_array_equal(rows_of(chunks, np.array([0, 4, 5]), numbers), vectors[numbers])
