"""Attention over sequences laid end to end, without padding: each attends to itself alone.

Registered with transformers as an attention implementation, so that every architecture that goes through its attention
interface can run on packed sequences; the sequences' ends travel as `cu_seq_lens_q`, as they do for Flash Attention.
On a GPU in half precision PyTorch's own variable-length Flash Attention computes it; elsewhere the sequences of one
length go together, which on a sorted batch are few calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

PACKED: Final = "driftline_packed"
"""Name of the implementation, for `model.set_attn_implementation`."""

_FLASH_DTYPES: Final = (torch.float16, torch.bfloat16)


class NotPackedError(Exception):
    """A model, or a layer of it, cannot run on packed sequences; the caller then pads."""


def pack(sequences: Sequence[NDArray[np.int64]], first_position: int) -> dict[str, Any]:
    """Lay sequences end to end.

    Args:
        sequences: token numbers, int64, of each sequence.
        first_position: position number of a sequence's first token; not 0 for RoBERTa's descendants.

    Returns:
        The features that transformers takes, on the CPU: `input_ids` and `position_ids`, (1, tokens) int64; `seq_idx`,
        each token's sequence, (1, tokens) int32; the sequences' ends, (sequences + 1,) int32; the longest length.
    """
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    owners = np.repeat(np.arange(len(sequences)), lengths)
    positions = np.arange(ends[-1]) - ends[owners] + first_position
    cumulative = torch.from_numpy(ends.astype(np.int32))
    longest = int(lengths.max())
    return {
        "input_ids": torch.from_numpy(np.concatenate(sequences))[None],
        "position_ids": torch.from_numpy(positions)[None],
        "seq_idx": torch.from_numpy(owners.astype(np.int32))[None],
        "cu_seq_lens_q": cumulative,
        "cu_seq_lens_k": cumulative,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def first_position(model: nn.Module) -> int:
    """Return the position number of a text's first token: RoBERTa's descendants count on from the padding's."""
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return padding + 1
    return 0


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within each of the packed sequences.

    Args:
        module: the attention layer.
        query: (1, heads, tokens, head size), as are key and value.
        key: the keys.
        value: the values.
        attention_mask: None.
        scaling: of the products; None for 1/√(head size).
        dropout: not used: nothing is trained here.
        is_causal: whether the layer looks back only; None for what the layer itself says.
        sliding_window: None.
        cu_seq_lens_q: ends of the sequences, (sequences + 1,) int32.
        max_length_q: the longest sequence.
        others: what else the architecture passes.

    Returns:
        (1, tokens, heads, head size), and no weights.

    Raises:
        NotPackedError: the layer wants what this does not compute; the caller then pads instead.
    """
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    biased = any(others.get(name) is not None for name in ("position_bias", "softcap", "s_aux", "head_mask"))
    if cu_seq_lens_q is None or causal or biased or sliding_window or attention_mask is not None:
        raise NotPackedError("attention of a kind that is not computed without padding")
    if key.shape != query.shape or query.shape[0] != 1:
        raise NotPackedError("grouped heads are not computed without padding")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if q.is_cuda and q.dtype in _FLASH_DTYPES:
        from torch.nn.attention.varlen import varlen_attn  # PyTorch 2.10 and later

        ends = cu_seq_lens_q
        out = varlen_attn(q, k, v, ends, ends, max_length_q, max_length_q, scale=scaling)
        return _tensor(out)[None], None
    return attend_by_length(q, k, v, cu_seq_lens_q.tolist(), scaling)[None], None


def _tensor(value: Any) -> Tensor:
    return value


def attend_by_length(q: Tensor, k: Tensor, v: Tensor, ends: list[int], scaling: float | None) -> Tensor:
    """Attend within sequences, those of one length that stand side by side in one call.

    Args:
        q: the queries, (tokens, heads, head size); may be a view, as may keys and values.
        k: the keys.
        v: the values.
        ends: where the sequences end, beginning with 0.
        scaling: of the products; None for 1/√(head size).

    Returns:
        (tokens, heads, head size).
    """
    out: Tensor | None = None
    for first, count, length in _runs(ends):
        last = first + count * length
        queries, keys, values = (
            tensor[first:last].unflatten(0, (count, length)).transpose(1, 2) for tensor in (q, k, v)
        )
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values, scale=scaling).transpose(1, 2)
        attended = attended.reshape(last - first, *q.shape[1:])
        if last - first == q.shape[0]:
            return attended
        if out is None:
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        out[first:last] = attended
    return q if out is None else out


def _runs(ends: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (first token, sequences, length) for each run of neighbours of one length."""
    first, count, length = 0, 0, 0
    for begin, end in pairwise(ends):
        if end - begin != length:
            if count:
                yield first, count, length
            first, count, length = begin, 0, end - begin
        count += 1
    if count:
        yield first, count, length


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)
