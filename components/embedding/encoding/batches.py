"""Batches bounded by tokens, of texts of like length. Pure: lengths in, row numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cut_batches(
    lengths: NDArray[np.int64], batch_tokens: int, *, padded: bool, least: int = 1
) -> list[NDArray[np.int64]]:
    """Cut sequences into batches, the longest first: the last ones to run are then the shortest, on every stream.

    Args:
        lengths: tokens of each sequence, (n,) int64, each at least 1.
        batch_tokens: the most tokens in a batch; one longer sequence makes a batch alone.
        padded: whether a batch takes as many tokens as its longest sequence for each of its sequences.
        least: batches to make at least, by smaller ones, where there are so many sequences.

    Returns:
        Row numbers of each batch, int64, every row once; equal lengths in the order given.
    """
    order = np.argsort(-lengths, kind="stable")
    if not len(order):
        return []
    bound = batch_tokens if least == 1 else max(1, min(batch_tokens, -(-int(lengths.sum()) // least)))
    batches: list[NDArray[np.int64]] = []
    first = tokens = 0
    longest = int(lengths[order[0]])
    for place, length in enumerate(lengths[order].tolist()):
        taken = longest * (place - first + 1) if padded else tokens + length
        if taken > bound and place > first:
            batches.append(order[first:place])
            first, tokens, longest = place, 0, length
        tokens += length
    batches.append(order[first:])
    return batches
