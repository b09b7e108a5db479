"""Linear layers and attention of a transformer on a CPU, in float32, by the programs of :mod:`.programs`.

A program runs in the thread that calls it, or in as many as PyTorch would take there; other threads run meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from driftline.components.embedding.encoding.programs.attention import attention_program, self_attention_program
from driftline.components.embedding.encoding.programs.cells import cell_columns, cell_rows, panel_starts
from driftline.components.embedding.encoding.programs.row_wise import (
    BLOCK_ROWS,
    After,
    after_attention_program,
    linear_program,
)
from driftline.components.vector_code import host_registers

_LEAST_ROWS: Final = 64
"""Fewer rows are not shared among threads."""

_GROUP_TOKENS: Final = 256
"""Tokens of sequences that attend head by head together: so many that their vectors stay in a level 2 cache."""


@cache
def is_faster() -> bool:
    """Say whether these programs are faster than PyTorch's libraries on this processor.

    Measured on an AMD EPYC of the third generation: with AVX2, and without AVX-512. Decided by what the processor can
    do, not by a measurement: the same machine must give the same bits every time.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and host_registers().bytes == 32


class CompiledLinear(nn.Module):
    """A linear layer with its weights laid out once, and what follows it: GELU, or a sum and a norm.

    Args:
        linear: of no fewer results than :func:`.programs.cells.cell_columns`, in float32.
        gelu: whether its results go through GELU.
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        weight = linear.weight.detach().numpy()
        columns = cell_columns()
        panels = [weight[start : start + columns].T for start in panel_starts(len(weight))]
        self.weight = torch.from_numpy(np.ascontiguousarray(np.stack(panels)))
        bias = cast("Tensor | None", linear.bias)
        self.bias = torch.zeros(len(weight)) if bias is None else bias.detach().contiguous()
        self._after: After = "gelu" if gelu else "nothing"

    def forward(self, x: Tensor) -> Tensor:
        """Return x·Wᵀ + b, (…, width), through GELU if asked for."""
        return self._run(x, self._after, self.bias, self.bias, self.bias, 0.0)

    def plus_normed(self, x: Tensor, other: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Return norm(x·Wᵀ + b + other), (…, width)."""
        other = other.contiguous()
        if can_norm(norm):
            return self._run(x, "sum and norm", other, norm.weight, norm.bias, norm.eps)
        return norm(self._run(x, "sum", other, self.bias, self.bias, 0.0))

    def _run(self, x: Tensor, after: After, other: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
        x = x.contiguous()
        inner, width = x.shape[-1], len(self.bias)
        y = torch.empty((*x.shape[:-1], width), dtype=torch.float32)
        program = linear_program(inner, width, after)
        arrays = (x, self.weight, self.bias, other, scale, shift, torch.tensor([epsilon]), y)
        addresses = [array.data_ptr() for array in arrays]

        def run(first: int, last: int) -> None:
            program.call(*addresses, first, last)

        rows = x.numel() // inner
        _shared(run, _cut(rows))
        return y


def can_norm(norm: nn.LayerNorm) -> bool:
    """Say whether a layer's program can bring its result to this norm."""
    has_both = cast("Tensor | None", norm.weight) is not None and cast("Tensor | None", norm.bias) is not None
    return has_both and len(norm.normalized_shape) == 1 and norm.normalized_shape[0] % cell_columns() == 0


def can_attend(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Say whether :func:`attend` takes these, (tokens, heads, head size)."""
    size = q.shape[2]
    return size >= cell_columns() and all(
        tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.shape == q.shape
        and tensor.stride() == (q.stride(0), size, 1)
        for tensor in (q, k, v)
    )


def attend(q: Tensor, k: Tensor, v: Tensor, ends: list[int], scaling: float | None) -> Tensor:
    """Attend within sequences.

    Args:
        q: the queries, (tokens, heads, head size), float32; a token's numbers side by side, as those of keys and
            values, of which :func:`can_attend` is true.
        k: the keys.
        v: the values.
        ends: where the sequences end, beginning with 0.
        scaling: of the products; None for 1/√(head size).

    Returns:
        (tokens, heads, head size).
    """
    tokens, heads, size = q.shape
    y = torch.empty(q.shape, dtype=torch.float32)
    bounds = np.asarray(ends, np.int64)
    columns = cell_columns()
    room = -(-int(np.diff(bounds).max(initial=1)) // columns) * columns
    across = -(-size // columns) * columns
    factor = torch.tensor([size**-0.5 if scaling is None else scaling])
    program = attention_program(heads, size)

    def run(first: int, last: int) -> None:
        spaces = [torch.empty(shape) for shape in ((room, size), (room, across), (cell_rows(), room))]
        arrays = (q.data_ptr(), k.data_ptr(), v.data_ptr(), bounds.ctypes.data, factor.data_ptr())
        working = (space.data_ptr() for space in spaces)
        program.call(*arrays, *working, y.data_ptr(), first, last, q.stride(0), room)

    _shared(run, [0, *np.searchsorted(bounds, _cut(tokens)[1:-1]).tolist(), len(bounds) - 1])
    return y


class CompiledSelfAttention(nn.Module):
    """Attention with the products that make its queries, keys and values, in one program.

    Args:
        layers: the linear layers of the queries, the keys and the values.
        heads: heads; their size is a multiple of :func:`.programs.cells.cell_columns`.
        scaling: of the products.
    """

    def __init__(self, layers: Sequence[nn.Linear], heads: int, scaling: float) -> None:
        super().__init__()
        columns = cell_columns()
        weights = np.stack([layer.weight.detach().numpy() for layer in layers])  # (3, hidden, hidden)
        hidden = weights.shape[2]
        by_head = weights.reshape(3, heads, -1, hidden).swapaxes(0, 1).reshape(-1, columns, hidden)
        self.weight = torch.from_numpy(np.ascontiguousarray(by_head.swapaxes(1, 2)))
        biases = torch.stack([layer.bias.detach() for layer in layers])
        self.bias = biases.unflatten(1, (heads, -1)).transpose(0, 1).contiguous()
        self._heads = heads
        self._scaling = torch.tensor([scaling])

    def forward(self, x: Tensor, ends: list[int]) -> Tensor:
        """Return the attended values, (tokens, hidden), of sequences that end where said, beginning with 0."""
        x = x.contiguous()
        tokens, hidden = x.shape
        size = hidden // self._heads
        y = torch.empty_like(x)
        bounds = np.asarray(ends, np.int64)
        groups = _groups(ends)
        largest = int(np.diff(bounds[groups]).max(initial=1))
        columns = cell_columns()
        room = -(-int(np.diff(bounds).max(initial=1)) // columns) * columns
        program = self_attention_program(self._heads, size)

        def run(first: int, last: int) -> None:
            spaces = [torch.empty(shape) for shape in ((3, largest, size), (room, size), (cell_rows(), room))]
            given = (x.data_ptr(), self.weight.data_ptr(), self.bias.data_ptr(), bounds.ctypes.data, groups.ctypes.data)
            working = (space.data_ptr() for space in spaces)
            program.call(*given, self._scaling.data_ptr(), *working, y.data_ptr(), first, last, room)

        _shared(run, [0, *np.searchsorted(bounds[groups], _cut(tokens)[1:-1]).tolist(), len(groups) - 1])
        return y


class CompiledAfterAttention(nn.Module):
    """What follows the attention in a layer of BERT's kind, in one program.

    Args:
        attended: the linear layer of the attended values.
        attention_norm: the norm of that and the attention's inputs; :func:`can_norm` is true of it, as of ``norm``.
        up: the feed-forward's first linear layer, with its GELU.
        down: its second.
        norm: the norm of that and what went into it.
    """

    def __init__(
        self,
        attended: CompiledLinear,
        attention_norm: nn.LayerNorm,
        up: CompiledLinear,
        down: CompiledLinear,
        norm: nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.attended, self.attention_norm, self.up, self.down, self.norm = attended, attention_norm, up, down, norm
        self._epsilons = torch.tensor([attention_norm.eps, norm.eps])

    def forward(self, attended: Tensor, inputs: Tensor) -> Tensor:
        """Return the layer's result, (tokens, hidden), from the attended values and the attention's inputs."""
        attended, inputs = attended.contiguous(), inputs.contiguous()
        y = torch.empty_like(inputs)
        rows, hidden = inputs.shape
        between = len(self.up.bias)
        program = after_attention_program(hidden, between)
        norms = self.attention_norm, self.norm
        first, second = ((norm.weight, norm.bias, epsilon) for norm, epsilon in zip(norms, self._epsilons, strict=True))
        weights = [(layer.weight, layer.bias) for layer in (self.attended, self.up, self.down)]
        arrays = (attended, inputs, *weights[0], *first, *weights[1], *weights[2], *second)
        addresses = [array.data_ptr() for array in arrays]

        def run(first: int, last: int) -> None:
            spaces = [torch.empty(BLOCK_ROWS, width) for width in (hidden, between)]
            program.call(*addresses, *(space.data_ptr() for space in spaces), y.data_ptr(), first, last)

        _shared(run, _cut(rows))
        return y


def _groups(ends: list[int]) -> NDArray[np.int64]:
    """Return the first sequence of each group of sequences, and their number: groups of few tokens, or one sequence."""
    groups = [0]
    for place in range(1, len(ends)):
        if ends[place] - ends[groups[-1]] > _GROUP_TOKENS and place - 1 > groups[-1]:
            groups.append(place - 1)
    return np.array([*groups, len(ends) - 1], np.int64)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, "driftline-layers")


def _cut(rows: int) -> list[int]:
    """Return where rows are cut into as many parts as threads should share them, beginning with 0."""
    threads = max(1, min(torch.get_num_threads(), rows // _LEAST_ROWS))
    return [rows * part // threads for part in range(threads + 1)]


def _shared(run: Callable[[int, int], None], bounds: list[int]) -> None:
    """Run the parts between the bounds, each in a thread, the first in this one."""
    mine, *others = pairwise(bounds)
    waited = [_pool().submit(run, *part) for part in others]
    run(*mine)
    for one in waited:
        one.result()
