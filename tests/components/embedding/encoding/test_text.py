"""Texts to token sequences, joined anew in parts, cut into batches."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.embedding.encoding.text import (
    Prepared,
    TextTokenizer,
    Tokens,
    cut_batches,
    joined,
    without_surrogates,
)
from driftline.components.errors import UsageError
from tests.components.embedding.tiny_models import MAX_TOKENS, SCRIPTS, save_model

WORDS = tuple(
    "film plot actor music slow fast moving dull bright sea city night reviewer sequel".split()  # noqa: SIM905
)


def of(folder: Path, **settings: Any) -> TextTokenizer:
    given = {"max_tokens": MAX_TOKENS, "prompt": "", "segments": False, "overlap": 0} | settings
    return TextTokenizer(AutoTokenizer.from_pretrained(folder), **given)


def trained(kind: str) -> Any:
    """A tokenizer of another family, trained on a few words: byte-level BPE, or Unigram as SentencePiece makes it."""
    shuffled = random.Random(1)
    corpus = [" ".join(shuffled.choices(WORDS, k=20)) for _ in range(200)]
    special = ["<s>", "</s>", "<unk>"]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus, trainer)
    ids = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    return SimpleNamespace(backend_tokenizer=tokenizer)


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_the_tokens_are_those_of_the_model_s_own_tokenizer(full: Path, prompt: str):
    texts = [*SCRIPTS, "film " * 200, "x", "a\n\tb\x00c", "\u200b", ""]
    own: Any = AutoTokenizer.from_pretrained(full)
    expected = own([prompt + text for text in texts], truncation=True, max_length=MAX_TOKENS)["input_ids"]
    found = of(full, prompt=prompt)(texts)
    assert [sequence.tolist() for sequence in found.sequences] == expected
    assert found.lengths.tolist() == list(map(len, expected))
    assert found.texts.tolist() == list(range(len(texts)))
    assert found.truncated == 1


def test_only_texts_that_lose_something_count_as_truncated(full: Path):
    tokenizer = of(full)
    content = MAX_TOKENS - 2
    assert tokenizer(["film " * content]).truncated == 0
    assert tokenizer(["film " * (content + 1)]).truncated == 1


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("max_tokens", [8, 64])
def test_a_huge_text_gives_what_its_whole_would_give_though_only_its_front_is_tokenised(kind: str, max_tokens: int):
    shuffled = random.Random(2)
    tokenizer = trained(kind)
    whole = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    whole.enable_truncation(max_tokens)
    cut = TextTokenizer(tokenizer, max_tokens=max_tokens, prompt="", segments=False, overlap=0)
    texts = [
        " ".join(shuffled.choices(WORDS, k=30_000)),
        " " * 20_000 + "film",
        "film" + "\n" * 50_000 + "plot",
        "moving" * 20_000,
    ]
    for text in texts:
        assert cut([text]).sequences[0].tolist() == whole.encode(text).ids


def test_ten_megabytes_are_tokenised_as_fast_as_their_front(full: Path):
    text = "film plot " * 1_000_000
    found = of(full)([text])
    assert found.truncated == 1
    assert found.sequences[0].tolist() == of(full)([text[:10_000]]).sequences[0].tolist()


def test_windows_cover_a_long_text_and_overlap_as_asked(full: Path):
    own: Any = AutoTokenizer.from_pretrained(full)
    text = " ".join(random.Random(0).choices(["film", "plot", "the", "x", "y", "z"], k=300))
    plain = own(text, add_special_tokens=False)["input_ids"]
    found = of(full, segments=True, overlap=10)([text, "film", text])
    assert found.truncated == 0
    windows = [sequence.tolist() for sequence, owner in zip(found.sequences, found.texts, strict=True) if owner == 0]
    assert max(map(len, windows)) == MAX_TOKENS
    assert all(window[0] == own.cls_token_id and window[-1] == own.sep_token_id for window in windows)
    contents = [window[1:-1] for window in windows]
    joined = contents[0] + [token for content in contents[1:] for token in content[10:]]
    assert joined == plain
    assert found.texts.tolist() == sorted(found.texts.tolist())
    assert (found.texts == 1).sum() == 1


def test_the_prompt_stands_in_every_window_once(full: Path):
    own: Any = AutoTokenizer.from_pretrained(full)
    prompt = own("document film", add_special_tokens=False)["input_ids"]
    found = of(full, segments=True, prompt="document film ")(["x y z " * 100])
    assert len(found.sequences) > 3
    assert all(sequence.tolist()[1 : 1 + len(prompt)] == prompt for sequence in found.sequences)
    assert found.lengths.max() == MAX_TOKENS
    assert of(full, prompt="document film ").prompt_tokens == len(prompt) + 1


def test_a_prompt_without_room_for_a_text_is_refused(full: Path):
    with pytest.raises(UsageError, match=r"^prompt: \d+ tokens leave none of the 8 for the text; [^\n]+$"):
        of(full, prompt="film " * 10, max_tokens=8)


def test_half_surrogate_pairs_become_the_replacement_character(full: Path):
    assert without_surrogates("a\ud800b\udfffc") == "a\ufffdb\ufffdc"
    assert without_surrogates("🙂") == "🙂"
    damaged, mended = of(full)(["film", "a\ud800b"]), of(full)(["film", "a\ufffdb"])
    for one, other in zip(damaged.sequences, mended.sequences, strict=True):
        np.testing.assert_array_equal(one, other)


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


LENGTHS = st.lists(st.integers(1, 300), max_size=200).map(lambda values: np.array(values, np.int64))


@given(lengths=LENGTHS, bound=st.integers(1, 2000), padded=st.booleans(), streams=st.integers(1, 8))
def test_every_row_once_within_the_bound_and_the_longest_first(
    lengths: np.ndarray, bound: int, padded: bool, streams: int
):
    batches = cut_batches(lengths, bound, padded=padded, streams=streams)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        computed = int(lengths[batch].max()) * len(batch) if padded else int(lengths[batch].sum())
        assert computed <= bound or len(batch) == 1
    ordered = [int(lengths[row]) for batch in batches for row in batch]
    assert ordered == sorted(ordered, reverse=True)


@given(lengths=LENGTHS.filter(len), bound=st.integers(1, 2000), padded=st.booleans())
def test_no_two_neighbouring_batches_would_have_fitted_in_one(lengths: np.ndarray, bound: int, padded: bool):
    batches = cut_batches(lengths, bound, padded=padded)
    for batch, after in pairwise(batches):
        together = lengths[np.append(batch, after[0])]
        assert (int(together.max()) * len(together) if padded else int(together.sum())) > bound


def test_enough_batches_for_every_stream():
    assert len(cut_batches(np.full(8, 10), 512, padded=False, streams=4)) == 4
    assert len(cut_batches(np.full(2, 10), 512, padded=False, streams=4)) == 2


@given(
    lengths=st.lists(st.integers(1, 20), min_size=100, max_size=300).map(np.array),
    bound=st.integers(300, 2000),
    streams=st.integers(2, 4),
)
def test_streams_have_as_many_batches_of_as_many_tokens(lengths: np.ndarray, bound: int, streams: int):
    wanted = -(-int(lengths.sum()) // (bound * streams)) * streams
    share = lengths.sum() / wanted
    assume(lengths.max() <= bound - share)
    batches = cut_batches(lengths, bound, padded=False, streams=streams)
    assert len(batches) == wanted
    for batch in batches:
        assert abs(lengths[batch].sum() - share) <= lengths.max()


def test_equal_lengths_stay_in_order():
    assert np.concatenate(cut_batches(np.array([5, 9, 5, 9, 5]), 100, padded=False)).tolist() == [1, 3, 0, 2, 4]
