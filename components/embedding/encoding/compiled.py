"""Linear layers and attention of a transformer on a CPU, in float32, by the programs of :mod:`.programs`.

A program runs in the thread that calls it, or in as many as PyTorch would take there; other threads run meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from driftline.components.embedding.encoding.programs.after_attention import after_attention_program
from driftline.components.embedding.encoding.programs.attention import attention_program
from driftline.components.embedding.encoding.programs.cells import cell_columns, cell_rows, panel_starts
from driftline.components.embedding.encoding.programs.halves import (
    can_halve,
    chunk_of,
    halved_panels,
    operands_shape,
    pairs_within,
)
from driftline.components.embedding.encoding.programs.row_wise import After, linear_program
from driftline.components.embedding.encoding.programs.self_attention import self_attention_program
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


@dataclass(frozen=True, slots=True)
class Packing:
    """How sequences that are laid end to end are gone through.

    Attributes:
        ends: where the sequences end, beginning with 0, int64.
        pairs: rows that are multiplied together, (pairs, 2) int64, none of two sequences.
        pair_ends: where the sequences' pairs end, beginning with 0, int64.
        groups: the first sequence of each group, and the number of sequences, int64.
        longest: tokens of the longest sequence.
        largest: tokens of the largest group.
    """

    ends: NDArray[np.int64]
    pairs: NDArray[np.int64]
    pair_ends: NDArray[np.int64]
    groups: NDArray[np.int64]
    longest: int
    largest: int

    @staticmethod
    @lru_cache(maxsize=16)
    def of(ends: tuple[int, ...]) -> Packing:
        """Return it for sequences that end where said, beginning with 0; the same for all layers of a model."""
        bounds = np.array(ends, np.int64)
        groups = _groups(ends)
        longest, largest = (int(np.diff(each).max(initial=1)) for each in (bounds, bounds[groups]))
        return Packing(bounds, *pairs_within(ends), groups, longest, largest)


class CompiledSelfAttention(nn.Module):
    """Attention with the products that make its queries, keys and values, in one program.

    Args:
        layers: the linear layers of the queries, the keys and the values, all with biases.
        heads: heads; of them :meth:`takes` is true.
        scaling: of the products.
    """

    def __init__(self, layers: Sequence[nn.Linear], heads: int, scaling: float) -> None:
        super().__init__()
        hidden = layers[0].in_features
        by_head = torch.stack([layer.weight.detach().unflatten(0, (heads, -1)) for layer in layers], 1)
        self.weight = torch.from_numpy(halved_panels(by_head.reshape(-1, hidden).numpy()))
        self.bias = torch.stack([layer.bias.detach().unflatten(0, (heads, -1)) for layer in layers], 1).contiguous()
        self._heads = heads
        self._scaling = torch.tensor([scaling])

    @staticmethod
    def takes(hidden: int, heads: int) -> bool:
        """Say whether there is a program for so many numbers of a token and heads."""
        return hidden % heads == 0 and (hidden // heads) % cell_columns() == 0 and can_halve(hidden, 3 * hidden)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Return the attended values, (tokens, hidden)."""
        x = x.contiguous()
        tokens, hidden = x.shape
        size = hidden // self._heads
        y = torch.empty_like(x)
        columns = cell_columns()
        room = -(-packing.longest // columns) * columns
        program = self_attention_program(self._heads, size)

        numbers = (packing.ends, packing.pairs, packing.pair_ends, packing.groups)
        given = (x.data_ptr(), self.weight.data_ptr(), self.bias.data_ptr(), *(each.ctypes.data for each in numbers))
        heads = (3, packing.largest, hidden)
        shapes = operands_shape(hidden, hidden), heads, (room, size), (cell_rows(), room)

        def run(first: int, last: int) -> None:
            spaces = [torch.empty(shape) for shape in shapes]
            working = (space.data_ptr() for space in spaces)
            program.call(*given, self._scaling.data_ptr(), *working, y.data_ptr(), first, last, room)

        ends_of_groups = packing.ends[packing.groups]
        _shared(run, [0, *np.searchsorted(ends_of_groups, _cut(tokens)[1:-1]).tolist(), len(packing.groups) - 1])
        return y


class CompiledAfterAttention(nn.Module):
    """What follows the attention in a layer of BERT's kind, in one program.

    Args:
        attended: the linear layer of the attended values; this and the others have biases, and :meth:`takes` is true
            of them all.
        attention_norm: the norm of that and the attention's inputs.
        up: the feed-forward's first linear layer, which GELU follows.
        down: its second.
        norm: the norm of that and what went into it.
    """

    def __init__(
        self,
        attended: nn.Linear,
        attention_norm: nn.LayerNorm,
        up: nn.Linear,
        down: nn.Linear,
        norm: nn.LayerNorm,
    ) -> None:
        super().__init__()
        self._hidden, between = up.in_features, up.out_features
        self._chunk = chunk_of(between)
        starts = range(0, between, self._chunk)
        self._chunks = len(starts)
        chunks = [slice(start, start + self._chunk) for start in starts]
        own, wide, narrow = (layer.weight.detach().numpy() for layer in (attended, up, down))
        panels = [own], [wide[chunk] for chunk in chunks], [narrow[:, chunk] for chunk in chunks]
        weights = [torch.from_numpy(np.stack([halved_panels(part) for part in parts])) for parts in panels]
        biases = [layer.bias.detach().contiguous() for layer in (attended, up, down)]
        norms = [(each.weight, each.bias, torch.tensor([each.eps])) for each in (attention_norm, norm)]
        # In the program's order.
        self._given = weights[0], biases[0], *norms[0], weights[1], biases[1], weights[2], biases[2], *norms[1]

    @staticmethod
    def takes(hidden: int, between: int, norms: Sequence[nn.LayerNorm]) -> bool:
        """Say whether there is a program for so many numbers of a token and between up and down, and these norms."""
        chunk = chunk_of(between)
        halves = chunk > 0 and can_halve(hidden, hidden) and can_halve(hidden, chunk) and can_halve(chunk, hidden)
        return halves and all(can_norm(norm) for norm in norms)

    def forward(self, attended: Tensor, inputs: Tensor, packing: Packing) -> Tensor:
        """Return the layer's result, (tokens, hidden), from the attended values and the attention's inputs."""
        attended, inputs = attended.contiguous(), inputs.contiguous()
        y = torch.empty_like(inputs)
        program = after_attention_program(self._hidden, self._chunk, self._chunks)
        given = (attended.data_ptr(), inputs.data_ptr(), packing.pairs.ctypes.data)
        parameters = [parameter.data_ptr() for parameter in self._given]

        def run(first: int, last: int) -> None:
            spaces = [torch.empty(operands_shape(self._hidden, inner)) for inner in (self._hidden, self._chunk)]
            program.call(*given, *parameters, *(space.data_ptr() for space in spaces), y.data_ptr(), first, last)

        _shared(run, _cut(len(packing.pairs)))
        return y


def _groups(ends: Sequence[int]) -> NDArray[np.int64]:
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
