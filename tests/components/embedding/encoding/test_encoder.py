from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoTokenizer

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import DataError, UsageError
from tests.components.embedding.tiny_models import HIDDEN, SCRIPTS, by_hand, save_transformer

TEXTS = (*SCRIPTS, "film", "the plot " * 12, "x")


def encoder(folder: Path, prompt: str = "") -> Encoder:
    return Encoder.load(folder, folder.name, EncoderSettings(prompt=prompt), device="cpu")


def sentence_transformers(folder: Path, texts: Sequence[str], **settings: Any) -> np.ndarray:
    return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(list(texts), **settings))


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_each_pooling_gives_what_the_model_s_files_say_by_hand(models: Path, pooling: str):
    vectors = encoder(models / pooling).encode(TEXTS).vectors
    assert vectors.shape == (len(TEXTS), HIDDEN)
    assert_close(vectors, by_hand(models / pooling, TEXTS, pooling=pooling))
    assert_close(vectors, sentence_transformers(models / pooling, TEXTS))


def test_the_poolings_differ_so_that_the_comparison_by_hand_can_fail(models: Path):
    mean, cls, largest = (by_hand(models / "mean", TEXTS, pooling=name) for name in ("mean", "cls", "max"))
    assert min(np.abs(mean - cls).max(), np.abs(mean - largest).max(), np.abs(cls - largest).max()) > 0.1


def test_dense_layer_and_normalisation_are_honoured(full: Path):
    loaded = encoder(full)
    vectors = loaded.encode(TEXTS).vectors
    assert (loaded.dimension, loaded.normalized) == (8, True)
    assert vectors.shape == (len(TEXTS), 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert_close(vectors, by_hand(full, TEXTS))
    assert_close(vectors, sentence_transformers(full, TEXTS))


def test_normalisation_before_a_dense_layer_does_not_make_vectors_of_length_one(tmp_path: Path):
    raw = save_transformer(tmp_path / "raw")
    modules: list[Any] = [Transformer(str(raw)), Pooling(HIDDEN), Normalize(), Dense(HIDDEN, 8)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"), create_model_card=False)
    loaded = encoder(tmp_path / "model")
    assert not loaded.normalized
    assert np.abs(np.linalg.norm(loaded.encode(TEXTS).vectors, axis=1) - 1).max() > 0.01


@pytest.mark.parametrize(("prompt", "text"), [("query", "query: "), ("document", "document film "), ("", "")])
def test_a_prompt_goes_before_every_text(full: Path, prompt: str, text: str):
    vectors = encoder(full, prompt).encode(TEXTS).vectors
    assert_close(vectors, by_hand(full, TEXTS, prompt=text))
    assert_close(vectors, sentence_transformers(full, TEXTS, prompt_name=prompt or None))


def test_prompts_change_the_vectors(full: Path):
    plain, query, document = (encoder(full, prompt).encode(TEXTS).vectors for prompt in ("", "query", "document"))
    assert min(np.abs(plain - query).max(), np.abs(plain - document).max(), np.abs(query - document).max()) > 0.01


def test_the_model_s_default_prompt_is_used_where_none_is_named(models: Path):
    folder = models / "default"
    assert_close(encoder(folder).encode(TEXTS).vectors, by_hand(folder, TEXTS, prompt="query: "))
    assert_close(encoder(folder, "document").encode(TEXTS).vectors, by_hand(folder, TEXTS))


@pytest.mark.parametrize(("name", "known"), [("full", "document, query"), ("plain", "none")])
def test_an_unknown_prompt_is_refused_with_those_there_are(models: Path, name: str, known: str):
    with pytest.raises(UsageError, match=rf"^prompt: model {name} has no prompt 'passage'; it has: {known}$"):
        encoder(models / name, "passage")


def test_a_plain_transformers_folder_works_by_mean_pooling(models: Path):
    loaded = encoder(models / "plain")
    assert (loaded.dimension, loaded.normalized) == (HIDDEN, False)
    assert_close(loaded.encode(TEXTS).vectors, by_hand(models / "plain", TEXTS))


def test_the_order_is_kept_for_texts_of_very_different_length(full: Path):
    shuffled = random.Random(3)
    texts = ["film " * shuffled.choice([1, 2, 5, 20, 55]) + f"number {n}" for n in range(41)]
    shuffled.shuffle(texts)
    loaded = encoder(full)
    together = loaded.encode(texts).vectors
    assert_close(together, np.concatenate([loaded.encode([text]).vectors for text in texts]))
    assert len(np.unique(together.round(4), axis=0)) > len(texts) / 2


def test_a_text_past_the_maximum_length_is_cut_there(full: Path):
    loaded = encoder(full)
    long, longer = loaded.encode(["film " * 200, "film " * 200 + "and then something else"]).vectors
    np.testing.assert_allclose(long, longer, atol=1e-6)
    assert_close(long[None], by_hand(full, ["film " * 200]))


def test_no_texts_give_no_vectors(full: Path):
    vectors = encoder(full).encode([]).vectors
    assert vectors.shape == (0, 8)
    assert vectors.dtype == np.float32


def test_six_scripts_have_vectors_of_their_own(full: Path):
    vectors = encoder(full).encode(SCRIPTS).vectors
    gram = vectors @ vectors.T
    assert (gram[~np.eye(len(SCRIPTS), dtype=bool)] < 0.9999).all()


def test_blank_and_odd_texts_are_encoded_like_any_other(full: Path):
    texts = ["\u200b", "a\nb\tc", "🙂", "e\u0301", "\ufeffmark"]
    assert_close(encoder(full).encode(texts).vectors, by_hand(full, texts))


def test_weights_that_are_not_there_are_refused_instead_of_made_up(copy: Path):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(DataError, match=r"of its weights are not in its files, the first is encoder\.layer\.2"):
        Encoder.load(copy, "short")


def test_a_missing_pooling_head_that_nothing_reads_is_no_harm(copy: Path):
    weights = load_file(copy / "model.safetensors")
    expected = Encoder.load(copy, "whole").encode(["a film"]).vectors
    save_file({k: v for k, v in weights.items() if "pooler." not in k}, copy / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(Encoder.load(copy, "headless").encode(["a film"]).vectors, expected)


def test_weights_that_give_nan_whatever_the_text_are_refused_at_once(copy: Path):
    weights = load_file(copy / "2_Dense" / "model.safetensors")
    weights["linear.bias"][3] = np.nan
    save_file(weights, copy / "2_Dense" / "model.safetensors")
    with pytest.raises(DataError, match=r"^model copy: its vectors hold NaN or infinite values whatever the text; "):
        encoder(copy)


def test_one_text_whose_vector_is_not_finite_is_named(copy: Path):
    weights = load_file(copy / "model.safetensors")
    vocabulary = AutoTokenizer.from_pretrained(copy).get_vocab()
    weights["embeddings.word_embeddings.weight"][vocabulary["plot"]] = np.inf
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="text 'the plot' holds NaN"):
        encoder(copy).encode(["film", "the plot", "query"])


def test_the_real_model_gives_what_sentence_transformers_gives(model_folder: Path):
    loaded = encoder(model_folder)
    assert (loaded.dimension, loaded.normalized) == (384, True)
    vectors = loaded.encode(TEXTS).vectors
    assert_close(vectors, sentence_transformers(model_folder, TEXTS))
    close, far, other = loaded.encode(
        ["a very funny film", "the movie made me laugh", "interest rates rose again"]
    ).vectors
    assert close @ far > close @ other + 0.2
