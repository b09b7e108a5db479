"""Batches bounded by tokens, of texts of like length. Pure: lengths in, row numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cut_batches(
    lengths: NDArray[np.int64], batch_tokens: int, *, padded: bool, streams: int = 1
) -> list[NDArray[np.int64]]:
    """Cut sequences into batches, the longest first: the last ones to run are then the shortest, on every stream.

    Args:
        lengths: tokens of each sequence, (n,) int64, each at least 1.
        batch_tokens: the most tokens in a batch; one longer sequence makes a batch alone.
        padded: whether a batch takes as many tokens as its longest sequence for each of its sequences.
        streams: batches that run at a time; with several, batches are made so much smaller that all streams have as
            many, of as many tokens, and end together.

    Returns:
        Row numbers of each batch, int64, every row once; equal lengths in the order given.
    """
    order = np.argsort(-lengths, kind="stable")
    if not len(order):
        return []
    total = int(lengths.sum())
    wanted = -(-total // (batch_tokens * streams)) * streams if streams > 1 else 1
    batches: list[NDArray[np.int64]] = []
    first = before = done = 0  # the batch's first place, and tokens before it, and before this place
    longest = int(lengths[order[0]])
    for place, length in enumerate(lengths[order].tolist()):
        taken = longest * (place - first + 1) if padded else done - before + length
        if place > first and (taken > batch_tokens or (done + length) * wanted > total * (len(batches) + 1)):
            batches.append(order[first:place])
            first, before, longest = place, done, length
        done += length
    batches.append(order[first:])
    return batches
