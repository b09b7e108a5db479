"""The encoder's own programs, against PyTorch in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from driftline.components.embedding.encoding import compiled
from driftline.components.embedding.encoding.compiled import (
    CompiledAfterAttention,
    CompiledLinear,
    CompiledSelfAttention,
    attend,
    can_attend,
)
from driftline.components.embedding.encoding.encoder import Encoder, EncoderSettings, Tuning
from driftline.components.embedding.encoding.packed import attend_by_length
from driftline.components.embedding.encoding.programs.cells import cell_columns, cell_rows
from tests.components.embedding.tiny_models import SCRIPTS, save_other

COLUMNS = cell_columns()
ROWS = cell_rows()
SHAPE = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 160}
AWKWARD = (1, ROWS - 1, ROWS, ROWS + 1, 47, 48, 49, 200)


@contextmanager
def threads(number: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def linear(inner: int, width: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inner * 1000 + width)
    return nn.Linear(inner, width, bias=bias)


def layer_norm(width: int, **settings: Any) -> nn.LayerNorm:
    norm = nn.LayerNorm(width, **settings)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def in_double(module: nn.Module) -> Callable[..., Tensor]:
    return copy.deepcopy(module).double()


def close(got: Tensor, wanted: Tensor, within: float = 2e-6) -> None:
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=within, atol=within * float(wanted.abs().max()))


def lengths_to_ends(lengths: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(lengths).tolist()]


@pytest.fixture(autouse=True)
def _no_gradients() -> Generator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("rows", AWKWARD)
@pytest.mark.parametrize(("inner", "width"), [(1, COLUMNS), (7, COLUMNS + 1), (33, 2 * COLUMNS), (64, 3 * COLUMNS - 5)])
def test_a_linear_layer_and_what_follows_it(rows: int, inner: int, width: int):
    layer, norm = linear(inner, width), layer_norm(width)
    x, other = numbers(rows, inner), numbers(rows, width, seed=1)
    product = in_double(layer)(x.double())
    close(CompiledLinear(layer)(x), product)
    close(CompiledLinear(layer, gelu=True)(x), nn.functional.gelu(product))
    close(CompiledLinear(layer).plus_normed(x, other, norm), in_double(norm)(product + other.double()), 1e-5)


@given(
    rows=st.integers(0, 150), inner=st.integers(1, 40), width=st.integers(COLUMNS, 4 * COLUMNS), count=st.integers(1, 3)
)
def test_any_shape_on_any_number_of_threads(rows: int, inner: int, width: int, count: int):
    layer = linear(inner, width, bias=bool(rows % 2))
    x = numbers(rows, inner)
    with torch.inference_mode(), threads(count):
        got = CompiledLinear(layer)(x)
        assert got.shape == (rows, width)
        if rows:
            close(got, in_double(layer)(x.double()))


def test_batches_of_rows_and_rows_that_do_not_lie_side_by_side():
    layer = linear(24, COLUMNS)
    x = numbers(3, 5, 48)[..., ::2]
    close(CompiledLinear(layer)(x), in_double(layer)(x.double()))
    close(CompiledLinear(layer)(x[0].T.contiguous().T), in_double(layer)(x[0].double()))


def test_a_norm_that_no_program_has_is_pytorch_s():
    layer = linear(8, 2 * COLUMNS)
    x, other = numbers(9, 8), numbers(9, 2 * COLUMNS, seed=1)
    for norm in (layer_norm(2 * COLUMNS, elementwise_affine=False), layer_norm(2 * COLUMNS, bias=False)):
        wanted = in_double(norm)(in_double(layer)(x.double()) + other.double())
        close(CompiledLinear(layer).plus_normed(x, other, norm), wanted, 1e-5)


def test_gelu_is_gelu():
    layer = nn.Linear(1, COLUMNS)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    x = np.concatenate([np.linspace(-12, 12, 48_001), [0.0, -0.0, 1e-30, -1e-30, 50.0, -50.0, 1e30, -1e30]])
    x = x.astype(np.float32)
    got = CompiledLinear(layer, gelu=True)(torch.from_numpy(x)[:, None])[:, 0].double().numpy()
    wanted = np.array([value * 0.5 * math.erfc(-value / math.sqrt(2)) for value in x.astype(np.float64)])
    np.testing.assert_array_less(np.abs(got - wanted), 2e-7 + np.abs(x) * 6e-8)
    odd = CompiledLinear(layer, gelu=True)(torch.tensor([[math.nan], [1.0]]))
    assert odd.isnan().tolist() == [[True] * COLUMNS, [False] * COLUMNS]


@pytest.mark.parametrize(
    "lengths", [[1], [1, 2, 3], [COLUMNS, COLUMNS], [ROWS, ROWS + 1, 5 * COLUMNS + 3], [300, 1, 17]]
)
@pytest.mark.parametrize(("heads", "size"), [(1, COLUMNS), (3, COLUMNS + 4), (2, 2 * COLUMNS)])
def test_attention_within_sequences(lengths: list[int], heads: int, size: int):
    ends = lengths_to_ends(lengths)
    q, k, v = (3 * part for part in numbers(ends[-1], 3, heads, size).unbind(1))
    wanted = attend_by_length(q.double(), k.double(), v.double(), ends, 0.3)
    assert can_attend(q, k, v)
    close(attend(q, k, v, ends, 0.3), wanted, 1e-5)
    close(attend(q, k, v, ends, None), attend_by_length(q.double(), k.double(), v.double(), ends, None), 1e-5)


def test_what_attention_does_not_take():
    narrow = numbers(4, 2, COLUMNS - 1)
    wide = numbers(4, 2, COLUMNS)
    assert not can_attend(narrow, narrow, narrow)
    assert not can_attend(wide, wide, wide.double())
    assert not can_attend(wide, wide, wide.transpose(0, 1).contiguous().transpose(0, 1))
    assert can_attend(wide, wide, wide)


@pytest.mark.parametrize("lengths", [[1], [5, 1, 40, 3], [300, 2, 2], [30] * 40])
@pytest.mark.parametrize(("heads", "size"), [(1, COLUMNS), (3, COLUMNS), (2, 2 * COLUMNS)])
def test_self_attention_is_its_products_and_then_attention(lengths: list[int], heads: int, size: int):
    ends, hidden = lengths_to_ends(lengths), heads * size
    layers = [linear(hidden, hidden), linear(hidden, hidden), linear(hidden, hidden)]
    for layer in layers[1:]:
        nn.init.normal_(layer.weight, std=0.2)
    x = numbers(ends[-1], hidden)
    q, k, v = (in_double(layer)(x.double()).unflatten(1, (heads, size)) for layer in layers)
    wanted = attend_by_length(q, k, v, ends, 0.25).flatten(1)
    program = CompiledSelfAttention(layers, heads, 0.25)
    for count in (1, 2, 5):
        with threads(count):
            close(program(x, ends), wanted, 1e-5)


def test_scores_that_are_far_apart_and_nan():
    ends = [0, 5, 9]
    given = numbers(9, 3, 1, COLUMNS)
    given[:, :2] *= 40  # differences of scores beyond what e^x of float32 holds
    q, k, v = given.unbind(1)
    close(attend(q, k, v, ends, 1.0), attend_by_length(q.double(), k.double(), v.double(), ends, 1.0), 1e-5)
    given[6, 1, 0, 3] = math.nan
    got = attend(q, k, v, ends, 1.0)
    assert got[:5].isfinite().all()
    assert got[5:].isnan().all()


@pytest.mark.parametrize("rows", AWKWARD)
@pytest.mark.parametrize("between", [COLUMNS, 3 * COLUMNS + 1])
def test_all_that_follows_the_attention(rows: int, between: int):
    hidden = 2 * COLUMNS
    own, up, down = linear(hidden, hidden), linear(hidden, between), linear(between, hidden)
    first, second = layer_norm(hidden), layer_norm(hidden, eps=1e-3)
    attended, x = numbers(rows, hidden), numbers(rows, hidden, seed=1)
    middle = in_double(first)(in_double(own)(attended.double()) + x.double())
    wanted = in_double(second)(in_double(down)(nn.functional.gelu(in_double(up)(middle))) + middle)
    program = CompiledAfterAttention(
        CompiledLinear(own), first, CompiledLinear(up, gelu=True), CompiledLinear(down), second
    )
    one, several = program(attended, x), None
    close(one, wanted, 1e-5)
    with threads(3):
        several = program(attended, x)
    assert torch.equal(one, several)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of which every layer is programs, whatever the processor."""
    return save_other(tmp_path_factory.mktemp("programs") / "bert", "bert", hidden=128, **SHAPE)


def test_a_text_s_vector_is_the_same_to_the_bit_whatever_it_is_encoded_with(
    model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compiled, "is_faster", lambda: True)
    texts = [*SCRIPTS, *(" ".join(["film", "plot", "the"] * count) for count in range(1, 20))]
    encoder = Encoder.load(model, "m", EncoderSettings(), device="cpu")
    kinds = {type(module) for module in cast("Any", encoder._engine.forward)._model.modules()}
    assert {CompiledSelfAttention, CompiledAfterAttention} <= kinds
    together = encoder.encode(texts).vectors
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(encoder.encode([text]).vectors[0], together[row])
    for tuning in (Tuning(batch_tokens=40), Tuning(threads=2, streams=1)):
        encoder.tune(tuning)
        np.testing.assert_array_equal(encoder.encode(texts[::-1]).vectors[::-1], together)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "mpnet"])
def test_programs_give_sentence_transformers_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    names = ("dim", "n_heads", "hidden_dim") if kind == "distilbert" else SHAPE
    folder = save_other(tmp_path / kind, kind, hidden=128, **dict(zip(names, SHAPE.values(), strict=True)))
    texts = [*SCRIPTS, *(" ".join(["film", "plot", "the"] * count) for count in range(1, 20))]
    monkeypatch.setattr(compiled, "is_faster", lambda: True)
    own = np.asarray(SentenceTransformer(str(folder), device="cpu").encode(texts))
    np.testing.assert_allclose(Encoder.load(folder, "m", device="cpu").encode(texts).vectors, own, atol=1e-5)
