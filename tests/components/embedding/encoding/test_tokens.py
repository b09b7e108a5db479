from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from driftline.components.embedding.encoding.tokens import TextTokenizer, without_surrogates
from driftline.components.errors import UsageError
from tests.components.embedding.tiny_models import MAX_TOKENS, SCRIPTS

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
