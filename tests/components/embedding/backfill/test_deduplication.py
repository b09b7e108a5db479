from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.embedding.backfill import deduplication
from driftline.components.embedding.backfill.deduplication import DistinctTexts

texts = st.lists(st.text("ab é", max_size=4), max_size=60)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication, "CHUNK_TEXTS", 5)
    monkeypatch.setattr(deduplication, "CHUNK_BYTES", 12)


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
