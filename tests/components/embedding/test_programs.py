"""The encoder's own programs, against PyTorch in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
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
    Packing,
    attend,
    can_attend,
)
from driftline.components.embedding.encoding.encoder import Encoder, EncoderSettings, Tuning
from driftline.components.embedding.encoding.packed import attend_by_length
from driftline.components.embedding.encoding.programs.cells import cell_columns, cell_rows
from driftline.components.embedding.encoding.programs.halves import chunk_of, halved_panels, pairs_within
from tests.components.embedding.tiny_models import SCRIPTS, save_other

COLUMNS = cell_columns()
ROWS = cell_rows()
SHAPE = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 192}
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


def packing(ends: Sequence[int]) -> Packing:
    return Packing.of(tuple(ends))


@given(st.lists(st.integers(1, 9), max_size=12))
def test_rows_are_paired_within_their_sequences(lengths: list[int]):
    ends = lengths_to_ends(lengths)
    pairs, pair_ends = pairs_within(ends)
    assert pair_ends.tolist() == lengths_to_ends([-(-length // 2) for length in lengths])
    expected = [(row, min(row + 1, last - 1)) for first, last in pairwise(ends) for row in range(first, last, 2)]
    assert [tuple(pair) for pair in pairs.tolist()] == expected


def test_seven_products_are_those_of_the_definition():
    width, inner = 4 * COLUMNS, 2 * COLUMNS
    weight, rows = numbers(width, inner).double().numpy(), numbers(2, inner, seed=1).double().numpy()
    (a11, a12), (a21, a22) = rows.reshape(2, 2, -1)
    s1 = a21 + a22
    operands = a11, a12, s1 - a11, a11 - a21, a22, s1, a12 - (s1 - a11)
    panels = halved_panels(weight.astype(np.float32)).astype(np.float64)
    assert panels.shape == (2, 7, COLUMNS, COLUMNS)
    p = [(operand @ panels[:, i]).ravel() for i, operand in enumerate(operands)]
    u, v = p[0] + p[2], p[0] + p[2] + p[3]
    got = np.stack([np.concatenate([p[0] + p[1], u + p[5] + p[6]]), np.concatenate([v + p[4], v + p[5]])])
    np.testing.assert_allclose(got, rows @ weight.T, atol=1e-5)


def test_chunks_divide_what_they_are_of_and_share_a_cache():
    assert [chunk_of(size * COLUMNS) for size in (1, 2, 3, 10)] == [0, 2 * COLUMNS, 0, 10 * COLUMNS]
    assert chunk_of(1536) == chunk_of(3072) == 384
    assert chunk_of(4096) == 256
    assert chunk_of(2 * COLUMNS + 1) == 0


@pytest.mark.parametrize("lengths", [[1], [5, 1, 40, 3], [300, 2, 2], [30] * 40, [3] * 17])
@pytest.mark.parametrize(("heads", "size"), [(2, COLUMNS), (4, COLUMNS), (2, 2 * COLUMNS), (2, 3 * COLUMNS)])
def test_self_attention_is_its_products_and_then_attention(lengths: list[int], heads: int, size: int):
    ends, hidden = lengths_to_ends(lengths), heads * size
    layers = [linear(hidden, hidden), linear(hidden, hidden), linear(hidden, hidden)]
    for layer in layers[1:]:
        nn.init.normal_(layer.weight, std=0.2)
    x = numbers(ends[-1], hidden)
    q, k, v = (in_double(layer)(x.double()).unflatten(1, (heads, size)) for layer in layers)
    wanted = attend_by_length(q, k, v, ends, 0.25).flatten(1)
    assert CompiledSelfAttention.takes(hidden, heads)
    program = CompiledSelfAttention(layers, heads, 0.25)
    one = program(x, packing(ends))
    close(one, wanted, 2e-5)
    for count in (2, 5):
        with threads(count):
            assert torch.equal(program(x, packing(ends)), one)


def test_layers_of_which_there_are_no_programs():
    norm, odd = layer_norm(2 * COLUMNS), layer_norm(2 * COLUMNS, bias=False)
    assert CompiledAfterAttention.takes(2 * COLUMNS, 4 * COLUMNS, [norm, norm])
    assert not CompiledAfterAttention.takes(2 * COLUMNS, 4 * COLUMNS, [norm, odd])
    assert not CompiledAfterAttention.takes(2 * COLUMNS, 4 * COLUMNS + 1, [norm, norm])
    assert not CompiledAfterAttention.takes(3 * COLUMNS, 4 * COLUMNS, [norm, norm])
    assert not CompiledSelfAttention.takes(2 * COLUMNS, 4)
    assert not CompiledSelfAttention.takes(3 * COLUMNS, 3)


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
@pytest.mark.parametrize("between", [2 * COLUMNS, 6 * COLUMNS, 50 * COLUMNS])
@pytest.mark.parametrize("hidden", [2 * COLUMNS, 6 * COLUMNS, 34 * COLUMNS])
def test_all_that_follows_the_attention(rows: int, between: int, hidden: int):
    own, up, down = linear(hidden, hidden), linear(hidden, between), linear(between, hidden)
    first, second = layer_norm(hidden), layer_norm(hidden, eps=1e-3)
    attended, x = numbers(rows, hidden), numbers(rows, hidden, seed=1)
    middle = in_double(first)(in_double(own)(attended.double()) + x.double())
    wanted = in_double(second)(in_double(down)(nn.functional.gelu(in_double(up)(middle))) + middle)
    program = CompiledAfterAttention(own, first, up, down, second)
    cut = packing([0, rows // 3, rows])
    one = program(attended, x, cut)
    close(one, wanted, 2e-5)
    with threads(3):
        assert torch.equal(program(attended, x, cut), one)


def test_a_row_depends_on_its_neighbour_in_its_own_sequence_alone():
    hidden = 2 * COLUMNS
    norm = layer_norm(hidden)
    program = CompiledAfterAttention(linear(hidden, hidden), norm, linear(hidden, hidden), linear(hidden, hidden), norm)
    attended, x = numbers(8, hidden), numbers(8, hidden, seed=1)
    before = program(attended, x, packing([0, 3, 8]))
    attended[5] = math.nan  # with row 6 in a pair of the second sequence, which rows 3 to 7 are
    after = program(attended, x, packing([0, 3, 8]))
    assert after[5:7].isnan().all()
    rest = [0, 1, 2, 3, 4, 7]
    assert torch.equal(after[rest], before[rest])


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
