"""Texts made ready apart from being encoded: joined anew, in parts, with one prompt or another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from driftline.components.embedding.encoding.encoder import Encoder, EncoderSettings
from driftline.components.embedding.encoding.prepared import Prepared, joined
from driftline.components.embedding.encoding.tokens import Tokens
from driftline.components.errors import UsageError
from tests.components.embedding.tiny_models import save_model

TEXTS = ("film", "the plot, at length", "film " * 200, "x", "the film " * 60, "a plot")


def load(folder: Path, **settings: Any) -> Encoder:
    return Encoder.load(folder, folder.name, EncoderSettings(**settings), device="cpu")


def by_sentence_transformers(folder: Path, prompt: str, texts: Sequence[str]) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    return np.asarray(model.encode(list(texts), prompt_name=prompt))


@pytest.mark.parametrize("segments", ["", "mean", "max"])
def test_parts_joined_have_the_vectors_of_their_texts(full: Path, segments: str):
    encoder = load(full, segments=segments)
    whole = encoder.encode(TEXTS)
    first, second = encoder.prepare(TEXTS[:3]), encoder.prepare(TEXTS[3:])
    together = joined([(second, [1, 0]), (first, [2]), (second, [2]), (first, [0])])
    assert list(together.texts) == [TEXTS[4], TEXTS[3], TEXTS[2], TEXTS[5], TEXTS[0]]
    found = encoder.finish(together)
    np.testing.assert_allclose(found.vectors, whole.vectors[[4, 3, 2, 5, 0]], atol=1e-6)
    assert found.truncated == (0 if segments else 2)
    assert found.tokens == together.text_lengths().sum()


def test_the_tokens_of_a_text_are_those_of_all_of_its_windows(full: Path):
    lengths = load(full, segments="mean").prepare(TEXTS).text_lengths()
    assert [load(full, segments="mean").prepare([text]).text_lengths()[0] for text in TEXTS] == lengths.tolist()
    assert lengths[2] > 200


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Prepared, list[int]]:
    """Texts of one to three sequences each, some of them cut, and rows to take, in any order and repeatedly."""
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    label = draw(st.integers(0, 1000))
    names = [(label, text, part) for text, count in enumerate(counts) for part in range(count)]
    owners = np.repeat(np.arange(len(counts)), counts)
    cut = np.flatnonzero(draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))))
    lengths = np.asarray([1 + part + 10 * text for _, text, part in names], np.int64)
    rows = draw(st.lists(st.integers(0, len(counts) - 1), max_size=8))
    return Prepared([f"{label}/{text}" for text in range(len(counts))], Tokens(names, owners, lengths, cut)), rows


@given(st.lists(sequences(), min_size=1, max_size=4))
def test_joining_keeps_each_text_with_its_own_sequences(parts: list[tuple[Prepared, list[int]]]):
    together = joined(parts)
    wanted = [(prepared, row) for prepared, rows in parts for row in rows]
    assert list(together.texts) == [prepared.texts[row] for prepared, row in wanted]
    for place, (prepared, row) in enumerate(wanted):
        mine = [s for s, owner in zip(together.tokens.sequences, together.tokens.texts, strict=True) if owner == place]
        theirs = [s for s, owner in zip(prepared.tokens.sequences, prepared.tokens.texts, strict=True) if owner == row]
        assert mine == theirs
        assert (place in together.tokens.cut) == (row in prepared.tokens.cut)
        assert together.text_lengths()[place] == prepared.text_lengths()[row]


def test_a_prompt_asked_for_gives_what_an_encoder_with_that_prompt_gives(full: Path):
    encoder = load(full)
    assert encoder.prompts == ("document", "query")
    for prompt in encoder.prompts:
        found = encoder.finish(encoder.prepare(TEXTS, prompt)).vectors
        np.testing.assert_array_equal(found, load(full, prompt=prompt).encode(TEXTS).vectors)
        np.testing.assert_allclose(found, by_sentence_transformers(full, prompt, TEXTS), atol=1e-5)
    again = load(full, prompt="query")
    np.testing.assert_array_equal(again.finish(again.prepare(TEXTS, "")).vectors, encoder.encode(TEXTS).vectors)


def test_texts_of_several_prompts_may_be_encoded_together(full: Path):
    encoder = load(full)
    parts = {prompt: encoder.prepare(TEXTS, prompt) for prompt in ("", "query", "document")}
    assert {prepared.prompt for prepared in parts.values()} == {None}
    together = encoder.finish(joined([(prepared, range(len(TEXTS))) for prepared in parts.values()])).vectors
    apart = np.concatenate([encoder.finish(prepared).vectors for prepared in parts.values()])
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_a_pooling_that_leaves_the_prompt_out_is_told_which_one_it_is(tmp_path: Path):
    folder = save_model(tmp_path / "without", prompts={"query": "query: ", "document": "document film the "})
    place = folder / "1_Pooling" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"include_prompt": False}))
    encoder = load(folder, prompt="query")
    query, document = encoder.prepare(TEXTS), encoder.prepare(TEXTS, "document")
    assert query.prompt != document.prompt
    np.testing.assert_allclose(
        encoder.finish(query).vectors, by_sentence_transformers(folder, "query", TEXTS), atol=1e-5
    )
    np.testing.assert_allclose(
        encoder.finish(document).vectors, by_sentence_transformers(folder, "document", TEXTS), atol=1e-5
    )


def test_a_prompt_that_the_model_has_not_is_refused(full: Path):
    with pytest.raises(UsageError, match=r"^prompt: model full has no prompt 'title'; it has: document, query$"):
        load(full).prepare(TEXTS, "title")
