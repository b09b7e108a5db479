"""The encoder's faster ways, without padding, fused, in half precision: each against sentence-transformers."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import nn

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.forward import engine as engines
from driftline.components.embedding.encoding.forward import forward as forwards
from driftline.components.embedding.encoding.forward import linear, packed
from driftline.components.embedding.encoding.forward.forward import Forward
from driftline.components.embedding.encoding.forward.linear import can_fuse
from driftline.components.embedding.encoding.settings import EncoderSettings, Tuning
from driftline.components.embedding.encoding.text import Prepared
from driftline.components.errors import DataError, UsageError
from tests.components.embedding.tiny_models import HIDDEN, MAX_TOKENS, SCRIPTS, save_other

CPU = torch.device("cpu")


def texts(count: int, seed: int = 0) -> list[str]:
    shuffled = random.Random(seed)
    return [
        " ".join(shuffled.choices(["film", "plot", "x", "y", "the"], k=shuffled.randint(1, 80))) for _ in range(count)
    ]


TEXTS = (*SCRIPTS, *texts(60))


def load(folder: Path, tuning: Tuning | None = None, **settings: Any) -> Encoder:
    return Encoder.load(folder, folder.name, EncoderSettings(**settings), tuning=tuning, device="cpu")


def own(folder: Path, given: Any = TEXTS, **settings: Any) -> np.ndarray:
    return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(list(given), **settings))


def forward_of(encoder: Encoder) -> Forward:
    return cast("Forward", encoder._engine.forward)


def layers_of(encoder: Encoder) -> list[type]:
    return [type(layer) for layer in cast("Any", forward_of(encoder)._model[0]).auto_model.modules()]


def refuse(*_: Any, **__: Any) -> None:
    raise packed.NotPackedError


@pytest.mark.parametrize("name", ["mean", "cls", "max", "full", "plain"])
def test_bert_runs_without_padding_and_gives_the_same(models: Path, name: str):
    encoder = load(models / name)
    assert forward_of(encoder).packed
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(models / name), atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "distilbert"])
def test_other_architectures_give_the_same_whichever_way_they_allow(tmp_path: Path, kind: str):
    folder = save_other(tmp_path / kind, kind)
    encoder = load(folder)
    # MPNet's attention has a bias by position, and is no part of transformers' attention interface
    assert forward_of(encoder).packed == (kind != "mpnet")
    assert encoder.max_tokens == MAX_TOKENS
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(folder), atol=1e-5)


def test_a_decoder_s_causal_attention_is_not_run_without_padding(tmp_path: Path):
    folder = save_other(tmp_path / "causal", "bert", is_decoder=True)
    encoder = load(folder)
    assert not forward_of(encoder).packed
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(folder), atol=1e-5)


@pytest.mark.skipif(not can_fuse(CPU, torch.float32), reason="PyTorch here has no oneDNN")
@pytest.mark.parametrize("broken", ["attention", "product", "both"])
def test_a_faster_way_that_gives_other_vectors_is_not_taken(full: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    if broken in ("attention", "both"):
        monkeypatch.setattr(packed, "_runs", lambda ends: iter([(0, 1, ends[-1])]))  # each looks at all
    if broken in ("product", "both"):
        monkeypatch.setattr(linear._PrepackedLinear, "forward", lambda self, x: refuse())
    encoder = load(full)
    assert forward_of(encoder).packed == (broken == "product")
    assert (forward_of(encoder)._layers is not None) == (broken == "attention")
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(full), atol=1e-5)


@pytest.mark.skipif(not can_fuse(CPU, torch.float32), reason="PyTorch here has no oneDNN")
@pytest.mark.parametrize("kind", ["full", "distilbert", "roberta", "mpnet"])
def test_every_linear_layer_is_fused_and_gives_the_same(full: Path, tmp_path: Path, kind: str):
    folder = full if kind == "full" else save_other(tmp_path / kind, kind)
    encoder = load(folder)
    layers = layers_of(encoder)
    assert linear._PrepackedLinear in layers
    assert nn.Linear not in layers
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(folder), atol=1e-5)


@pytest.mark.skipif(not can_fuse(CPU, torch.bfloat16), reason="no bfloat16 by oneDNN on this processor")
def test_bfloat16_is_fused_too(full: Path):
    encoder = load(full, precision="bfloat16")
    layers = layers_of(encoder)
    assert linear._PrepackedLinear in layers
    assert not {nn.Linear, linear._HalfLinear} & set(layers)
    assert (encoder.encode(TEXTS).vectors * own(full)).sum(axis=1).min() >= 0.999


def test_a_model_of_which_no_way_gives_its_vectors_is_refused(full: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Forward, "__call__", refuse)
    with pytest.raises(DataError, match=r"^model full: its vectors in float32 differ by inf [^\n]+$"):
        load(full)


@pytest.mark.parametrize("batch_tokens", [1, 100, 512, 1 << 20])
@pytest.mark.parametrize("streams", [1, 3])
def test_the_tuning_changes_vectors_by_rounding_alone(full: Path, batch_tokens: int, streams: int):
    encoder = load(full, Tuning(batch_tokens, streams, threads=3))
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(full), atol=1e-5)


def test_the_same_call_gives_the_same_bits(full: Path):
    encoder, other = load(full), load(full)
    first = encoder.encode(TEXTS).vectors
    encoder.encode(TEXTS[:5])
    np.testing.assert_array_equal(encoder.encode(TEXTS).vectors, first)
    np.testing.assert_array_equal(other.encode(TEXTS).vectors, first)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_the_direction(model_folder: Path, precision: str):
    encoder = load(model_folder, precision=precision)
    vectors = encoder.encode(TEXTS).vectors
    assert encoder.precision == precision
    assert vectors.dtype == np.float32
    cosine = (vectors * own(model_folder)).sum(axis=1)
    assert cosine.min() >= 0.999
    assert cosine.min() < 1 - 1e-7  # it is half precision


def test_auto_is_float32_on_a_cpu(full: Path):
    assert load(full).precision == "float32"


def test_a_shorter_vector_is_the_front_of_the_whole_one_brought_to_length_one(full: Path, models: Path):
    whole = own(full)[:, :5]
    found = load(full, dimension=5)
    assert found.dimension == 5
    np.testing.assert_allclose(
        found.encode(TEXTS).vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5
    )
    # a model that does not normalise is cut alone
    np.testing.assert_allclose(
        load(models / "mean", dimension=3).encode(TEXTS).vectors, own(models / "mean")[:, :3], atol=1e-5
    )
    with pytest.raises(UsageError, match=r"^dimension: model full has vectors of 8 numbers, got 9$"):
        load(full, dimension=9)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_segments_pool_the_vectors_of_a_long_text_s_windows(full: Path, pooling: str):
    content = MAX_TOKENS - 2
    shuffled = random.Random(5)
    words = shuffled.choices(["film", "plot", "x", "y", "the"], k=content * 2)  # one token each: two windows and a rest
    encoder = load(full, segments=pooling, overlap=1)
    found = encoder.encode(["film", " ".join(words), "plot"])
    windows = [words[start : start + content] for start in (0, content - 1, 2 * (content - 1))]
    parts = own(full, [" ".join(window) for window in windows])
    pooled = parts.mean(axis=0) if pooling == "mean" else parts.max(axis=0)
    np.testing.assert_allclose(found.vectors[1], pooled / np.linalg.norm(pooled), atol=1e-5)
    np.testing.assert_allclose(found.vectors[[0, 2]], own(full, ["film", "plot"]), atol=1e-5)
    assert found.truncated == 0
    assert np.abs(found.vectors[1] - own(full, [" ".join(words)])[0]).max() > 0.01


def test_tokens_and_cut_texts_are_counted(full: Path):
    found = load(full).encode(["film", "film " * 500, "the plot"])
    assert (found.tokens, found.truncated) == (3 + MAX_TOKENS + 4, 1)
    assert load(full, max_tokens=5).encode(["film " * 9, "film"]).tokens == 5 + 3


def test_chunks_give_what_they_give_alone_and_wait_to_be_asked_for(full: Path):
    encoder = load(full)
    chunks = [list(TEXTS[:7]), list(TEXTS[7:40]), [], list(TEXTS[40:])]
    read: list[int] = []
    ran: list[int] = []
    plain = encoder._run

    def counted(prepared: Prepared) -> np.ndarray:
        ran.append(len(prepared.texts))
        return plain(prepared)

    def source() -> Iterator[list[str]]:
        for number, chunk in enumerate(chunks):
            read.append(number)
            yield chunk

    expected = [encoder.encode(chunk) for chunk in chunks]
    encoder._run = counted
    found = []
    for encoding in encoder.encode_chunks(source()):
        found.append(encoding)
        assert len(ran) == len(found)  # the next forward pass has not begun
        assert len(read) <= len(found) + 1  # one chunk ahead, no more
    assert len(found) == len(chunks)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
        assert (one.tokens, one.truncated) == (other.tokens, other.truncated)


def test_an_error_of_the_source_comes_after_the_chunks_before_it(full: Path):
    def source() -> Iterator[list[str]]:
        yield ["film"]
        raise DataError("row 2: damaged")

    chunks = load(full).encode_chunks(source())
    assert next(chunks).vectors.shape == (1, 8)
    with pytest.raises(DataError, match="row 2: damaged"):
        next(chunks)


def test_no_thread_stays_behind_when_chunks_are_not_read_to_the_end(full: Path):
    chunks = load(full).encode_chunks(iter([["film"], ["plot"], ["the"]]))
    next(chunks)
    cast("Any", chunks).close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("driftline-tokens")]


def test_threads_take_turns_and_get_their_own_vectors(full: Path):
    encoder = load(full)
    groups = [list(TEXTS[start : start + 9]) for start in range(0, 54, 9)]
    expected = [encoder.encode(group).vectors for group in groups]
    with ThreadPoolExecutor(6) as pool:
        for found, wanted in zip(pool.map(encoder.encode, groups * 3), expected * 3, strict=True):
            np.testing.assert_array_equal(found.vectors, wanted)


def test_a_batch_too_large_for_the_device_runs_in_halves(
    full: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    encoder = load(full, Tuning(batch_tokens=1 << 20, streams=1))
    plain = Forward.__call__

    def limited(self: Forward, sequences: Any, prompt: Any = None) -> torch.Tensor:
        if sum(map(len, sequences)) > 300:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return plain(self, sequences)

    monkeypatch.setattr(Forward, "__call__", limited)
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(full), atol=1e-5)
    assert "has no memory for a batch of" in caplog.text
    caplog.clear()
    encoder.encode(TEXTS)
    assert not caplog.text  # it remembers


def test_warming_up_finds_the_batch_that_fits(full: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = load(full, Tuning(batch_tokens=4096, streams=1))
    ran: list[tuple[int, int]] = []
    plain = Forward.__call__

    def limited(self: Forward, sequences: Any, prompt: Any = None) -> torch.Tensor:
        if sum(map(len, sequences)) > 1500:
            raise torch.OutOfMemoryError("CUDA out of memory")
        ran.append((len(sequences), len(sequences[0])))
        return plain(self, sequences)

    monkeypatch.setattr(Forward, "__call__", limited)
    encoder._warm()
    assert {length for _, length in ran} == {8, 32, MAX_TOKENS}
    assert encoder._batch_tokens <= 1500


def test_a_text_too_large_for_the_device_alone_is_named(full: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = load(full)

    def limited(self: Forward, sequences: Any, prompt: Any = None) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Forward, "__call__", limited)
    with pytest.raises(DataError, match=r"^model full: cpu has no memory for a single text of 4 tokens, 'the film'; "):
        encoder.encode(["the film"])


def test_another_error_of_the_device_is_not_taken_for_one_of_memory(full: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = load(full)

    def broken(self: Forward, sequences: Any, prompt: Any = None) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Forward, "__call__", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        encoder.encode(["the film", "plot"])


def test_a_model_without_a_transformer_works_through_its_own_preprocessing(full: Path, tmp_path: Path):
    torch.manual_seed(0)
    static = StaticEmbedding(Tokenizer.from_file(str(full / "tokenizer.json")), embedding_dim=HIDDEN)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"), create_model_card=False)
    encoder = load(tmp_path / "static")
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(tmp_path / "static"), atol=1e-5)
    assert encoder.encode([]).vectors.shape == (0, HIDDEN)
    with pytest.raises(UsageError, match=r"^segments: model static is no plain text transformer, [^\n]+$"):
        load(tmp_path / "static", segments="mean")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_compiled_it_gives_the_same(full: Path):
    encoder = load(full, Tuning(compile=True))
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, own(full), atol=1e-5)


def test_packed_attention_refuses_what_it_does_not_compute():
    layer = nn.Module()
    q = torch.zeros(1, 2, 6, 4)
    ends = torch.tensor([0, 2, 6], dtype=torch.int32)
    for settings in (
        {},
        {"cu_seq_lens_q": ends, "is_causal": True},
        {"cu_seq_lens_q": ends, "sliding_window": 3},
        {"cu_seq_lens_q": ends, "position_bias": q},
    ):
        with pytest.raises(packed.NotPackedError):
            packed.packed_attention(layer, q, q, q, None, **cast("Any", settings))
    with pytest.raises(packed.NotPackedError):
        packed.packed_attention(layer, q, q[:, :1], q[:, :1], None, cu_seq_lens_q=ends)


@pytest.mark.parametrize("lengths", [[3], [1, 1, 1], [5, 5, 2, 2, 2, 1], [1, 7, 1]])
def test_packed_attention_is_attention_of_each_sequence_alone(lengths: list[int]):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, sum(lengths), 4, dtype=torch.float64) for _ in range(3))
    ends = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)
    found, _ = packed.packed_attention(nn.Module(), q, k, v, None, cu_seq_lens_q=ends, scaling=0.3)
    for begin, end in pairwise(ends.tolist()):
        for head in range(2):
            rows = slice(begin, end)
            weights = torch.softmax(0.3 * q[0, head, rows] @ k[0, head, rows].T, dim=-1)
            np.testing.assert_allclose(found[0, rows, head], weights @ v[0, head, rows], atol=1e-12)


def test_modes_are_tried_the_fastest_first():
    modes = forwards._modes(CPU, torch.float32, torch_compile=False)
    assert (modes[0].pack, modes[-1].pack, modes[-1].fuse) == (True, False, False)
    assert engines.DTYPES.keys() == {"float32", "bfloat16", "float16"}
