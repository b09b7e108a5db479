"""Counter-based random bits: the word for row *i* of stream *s* is a function of (seed, s, i) and of nothing else.

No generator state is shipped between tasks, nothing depends on how many tasks there are or on the version of a
library: every task can compute the bits of just the rows it holds. The generator is Threefry-2×32 with 20 rounds
(Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011), which passes BigCrush.

The functions take NumPy or JAX arrays alike: they use only operators.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError

_ROTATIONS: Final = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY: Final = 0x1BD11BDA
_CHUNK_ROWS: Final = 1 << 20

SAMPLE_REFERENCE: Final = 0x8000_0001
"""Stream that picks the sampled rows of the reference. Streams below 2³¹ are permutations' numbers."""
SAMPLE_CURRENT: Final = 0x8000_0002
"""Stream that picks the sampled rows of the current window."""
SAMPLE_BANDWIDTH: Final = 0x8000_0003
"""Stream that picks the rows on which the median heuristic looks."""
SAMPLE_PICTURE: Final = 0x8000_0004
"""Stream that picks the points that the report draws."""
SAMPLE_ORDER: Final = 0x8000_0005
"""Stream that shuffles the rows of a sample (:func:`shuffled_order`)."""
FEATURE_FREQUENCIES: Final = 0x8000_0011
"""Stream of the frequencies of random features."""
CROSS_PERMUTATIONS: Final = 0x8000_0012
"""Stream of the permutations of the scores of a small cross-MMD test."""
CALIBRATION: Final = 0x8000_0013
"""Stream of the simulated streams that calibrate the online detector."""

SHUFFLED_ROWS: Final = 65_536
"""Rows of a window within which rows are shuffled."""

MAX_SEED: Final = 2**63 - 1


def check_seed(seed: int) -> None:
    """Raise UsageError unless ``seed`` is a whole number in [0, 2⁶³)."""
    if not 0 <= seed <= MAX_SEED or seed != int(seed):
        raise UsageError(f"seed: expected a whole number from 0 to {MAX_SEED}, got {seed}")


def threefry2x32(key0: Any, key1: Any, count0: Any, count1: Any) -> tuple[Any, Any]:
    """Return the two uint32 words of Threefry-2×32-20 for a key and a counter.

    Args:
        key0: first word of the key, a uint32 array (NumPy or JAX) of any shape; all four broadcast together.
        key1: second word of the key.
        count0: first word of the counter.
        count1: second word of the counter.
    """
    keys = (key0, key1, key0 ^ key1 ^ _PARITY)
    x0 = count0 + keys[0]
    x1 = count1 + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << rotation) | (x1 >> (32 - rotation))
            x1 = x1 ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + (group + 1)
    return x0, x1


def seed_words(seed: int) -> tuple[int, int]:
    """Split a seed in [0, 2⁶³) into the two words of the key, low word first."""
    check_seed(seed)
    return seed & 0xFFFF_FFFF, seed >> 32


def row_bits(seed: int, stream: int, start: int, stop: int) -> NDArray[np.uint32]:
    """Return the random words of rows ``start`` to ``stop`` of one stream, shape (stop − start,).

    Rows 2c and 2c + 1 take the two words of counter c, so that no bit is computed in vain.
    """
    low, high = (np.full(1, word, np.uint32) for word in seed_words(seed))
    counters = np.arange(start // 2, (stop + 1) // 2, dtype=np.uint32)
    even, odd = threefry2x32(low, high, np.full(1, stream, np.uint32), counters)
    words = np.stack([even, odd], axis=1).reshape(-1)
    return words[start - 2 * (start // 2) :][: stop - start]


def choose_rows(seed: int, stream: int, rows: int, size: int) -> NDArray[np.int64]:
    """Choose ``size`` of ``rows`` rows uniformly without replacement; return them ascending, int64.

    The rows with the smallest (word, row) pairs are chosen, so that the choice depends neither on the order in
    which rows are read nor on how a dataset is cut into shards. Memory: 8 bytes a row.
    """
    if size >= rows:
        return np.arange(rows, dtype=np.int64)
    ranks = np.empty(rows, np.uint64)
    for start in range(0, rows, _CHUNK_ROWS):
        stop = min(start + _CHUNK_ROWS, rows)
        words = row_bits(seed, stream, start, stop).astype(np.uint64)
        ranks[start:stop] = (words << np.uint64(32)) | np.arange(start, stop, dtype=np.uint64)
    chosen = np.partition(ranks, size - 1)[:size] & np.uint64(0xFFFF_FFFF)
    return np.sort(chosen.astype(np.int64))


def shuffled_order(seed: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return rows ``start`` to ``stop`` of a pooled sample, one whole sample of it, in shuffled order: int64.

    What lies together in a dataset is often alike. Rows that later steps treat as a group, such as the bins of a
    permutation test, should not be alike. So each window of SHUFFLED_ROWS rows is shuffled, which can be done to a
    stream of rows, too.
    """
    order: list[NDArray[np.int64]] = []
    for first in range(start, stop, SHUFFLED_ROWS):
        last = min(first + SHUFFLED_ROWS, stop)
        order.append(first + np.argsort(row_bits(seed, SAMPLE_ORDER, first, last), kind="stable"))
    return np.concatenate(order) if order else np.empty(0, np.int64)
