from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.embedding.backfill import chunks
from driftline.components.embedding.backfill.chunks import Chunk, ChunkFolder, DistinctTexts, EncodedChunk, rows_of
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


texts = st.lists(st.text("ab é", max_size=4), max_size=60)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_TEXTS", 5)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 12)


def batches(given: Sequence[str], size: int) -> list[Sequence[str]]:
    return [given[start : start + size] for start in range(0, len(given), size)]


in_small = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_small
@given(texts, st.integers(1, 9))
def test_each_text_is_in_one_chunk_in_the_order_of_its_first_row(given: list[str], size: int):
    distinct = DistinctTexts()
    chunks = list(distinct.chunks(batches(given, size)))
    first = list(dict.fromkeys(given))
    assert [text for chunk in chunks for text in chunk.texts] == first
    assert len(distinct) == len(first)
    assert distinct.numbers(given).tolist() == [first.index(text) for text in given]
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert 1 <= len(chunk.texts) <= 5
        assert len(chunk.texts) == 1 or sum(len(text.encode()) for text in chunk.texts) <= 12


@in_small
@given(texts, st.integers(1, 9), st.integers(1, 9))
def test_chunks_do_not_depend_on_batches(given: list[str], one: int, other: int):
    assert list(DistinctTexts().chunks(batches(given, one))) == list(DistinctTexts().chunks(batches(given, other)))


@in_small
@given(texts)
def test_rows_are_counted_up_to_where_a_chunk_ends(given: list[str]):
    chunks = list(DistinctTexts().chunks([given]))
    assert sum(chunk.rows for chunk in chunks) == len(given)
    start = 0
    for chunk in chunks:
        assert set(chunk.texts) <= set(given[start : start + chunk.rows])
        start += chunk.rows


def test_a_digest_is_that_of_the_texts_and_their_order():
    def digests(*given: str) -> list[str]:
        return [chunk.digest for chunk in DistinctTexts().chunks([given])]

    assert digests("a", "b") == digests("a", "a", "b")
    assert len({*digests("a", "b"), *digests("b", "a"), *digests("ab"), *digests("a")}) == 4


def test_a_text_longer_than_a_chunk_is_one_by_itself():
    chunks = list(DistinctTexts().chunks([["a", "x" * 100, "b"]]))
    assert [chunk.texts for chunk in chunks] == [("a",), ("x" * 100,), ("b",)]


def test_a_text_never_seen_has_no_number():
    distinct = DistinctTexts()
    list(distinct.chunks([["a"]]))
    assert distinct.numbers(["b", "a"]).tolist() == [-1, 0]
