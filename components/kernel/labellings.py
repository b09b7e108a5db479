"""Random relabellings of a pooled sample, computed anywhere from (seed, permutation, row).

Permutation *b* gives the label "reference" to the n rows whose pair (word, row) is smallest, the words being those of
:mod:`driftline.components.random_bits` in stream *b*. The n-th smallest pair is the permutation's *cut*; with it, the
label of a row is one comparison, exactly n rows are labelled, and each subset of n rows is equally likely. A plan ships
the cuts, 8 bytes a permutation; labels are never stored or shipped.

Row 0 of every panel is the observed labelling: the first n rows of the pooled sample are the reference.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import UsageError
from driftline.components.random_bits import row_bits, seed_words, threefry2x32

_CHUNK_WORDS: Final = 1 << 22
MAX_PERMUTATIONS: Final = 1_000_000


def permutation_cuts(seed: int, permutations: int, n: int, rows: int) -> NDArray[np.uint64]:
    """Return each permutation's cut, shape (permutations,): the n-th smallest of ``word · 2³² + row``.

    Time O(rows · permutations), memory a few times 32 MiB.
    """
    cuts = np.empty(permutations, np.uint64)
    counters = (rows + 1) // 2
    at_once = max(1, _CHUNK_WORDS // (2 * counters))
    row = np.arange(rows, dtype=np.uint64)
    low, high = seed_words(seed)
    for first in range(0, permutations, at_once):
        streams = np.arange(first + 1, min(first + at_once, permutations) + 1, dtype=np.uint32)
        words = np.asarray(_words(np.uint32(low), np.uint32(high), streams, np.uint32(0), counters))
        ranks = (words[:, :rows].astype(np.uint64) << np.uint64(32)) | row
        cuts[first : first + len(streams)] = np.partition(ranks, n - 1, axis=1)[:, n - 1]
    return cuts


@partial(jax.jit, static_argnames=("counters",))
def _words(low: jax.Array, high: jax.Array, streams: jax.Array, first: jax.Array, counters: int) -> jax.Array:
    """Return the words of rows 2·first … 2·(first + counters) − 1 in each stream: (streams, 2 · counters) uint32."""
    count = jnp.arange(counters, dtype=jnp.uint32) + first
    even, odd = threefry2x32(low, high, streams[:, None], count[None, :])
    return jnp.stack([even, odd], axis=2).reshape(len(streams), 2 * counters)


def labels(seed: int, cuts: NDArray[np.uint64], n: int, start: int, stop: int) -> NDArray[np.int8]:
    """Return the labels of rows ``start`` to ``stop``: (stop − start, 1 + permutations) int8, 1 for the reference.

    Column 0 is the observed labelling, column b permutation b. This is the definition, in NumPy; the engine
    computes the same with :func:`panel`.
    """
    row = np.arange(start, stop, dtype=np.uint64)
    panel = np.empty((stop - start, 1 + len(cuts)), np.int8)
    panel[:, 0] = row < n
    for b, cut in enumerate(cuts, start=1):
        words = row_bits(seed, b, start, stop).astype(np.uint64)
        panel[:, b] = ((words << np.uint64(32)) | row) <= cut
    return panel


class LabelPanels:
    """Blocks of labels on the device, for one test.

    Args:
        seed: the test's seed.
        cuts: (permutations,) uint64, from :func:`permutation_cuts`.
        n: rows of the reference, which come first in the pooled sample.
        rows: rows of the pooled sample, N.
        block: rows of a block, an even number.
    """

    def __init__(self, seed: int, cuts: NDArray[np.uint64], n: int, rows: int, block: int) -> None:
        self._key = tuple(np.uint32(word) for word in seed_words(seed))
        self._cut_words = (cuts >> np.uint64(32)).astype(np.uint32)
        self._cut_rows = (cuts & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
        self._n = np.uint32(n)
        self._rows = np.uint32(rows)
        self._block = block

    def panel(self, index: int) -> jax.Array:
        """Return block ``index``: (block, 2 + permutations) int8 with columns 1, s₀, s₁ … s_B.

        Rows past the end of the pooled sample are 0 in every column, so that they add nothing to any sum.
        """
        start = np.uint32(index * self._block)
        return _panel(*self._key, self._cut_words, self._cut_rows, self._n, self._rows, start, block=self._block)


@partial(jax.jit, static_argnames=("block",))
def _panel(
    low: jax.Array,
    high: jax.Array,
    cut_words: jax.Array,
    cut_rows: jax.Array,
    n: jax.Array,
    rows: jax.Array,
    start: jax.Array,
    *,
    block: int,
) -> jax.Array:
    row = (jnp.arange(block, dtype=jnp.uint32) + start)[:, None]
    inside = row < rows
    streams = jnp.arange(1, len(cut_words) + 1, dtype=jnp.uint32)
    words = _words(low, high, streams, start // 2, block // 2).T
    chosen = (words < cut_words[None, :]) | ((words == cut_words[None, :]) & (row <= cut_rows[None, :]))
    observed = row < n
    return (jnp.concatenate([inside, observed, chosen], axis=1) & inside).astype(jnp.int8)


def rank_of_threshold(permutations: int, level: float) -> int:
    """Return the largest k with k / (permutations + 1) ≤ level: the k-th largest permuted statistic is the threshold.

    Raises:
        UsageError: the level is not in (0, 1), or there are too few permutations for any p-value to reach it.
    """
    if not 0 < level < 1:
        raise UsageError(f"level: expected a number between 0 and 1, both excluded, got {level}")
    if permutations > MAX_PERMUTATIONS:
        raise UsageError(f"permutations: expected at most {MAX_PERMUTATIONS}, got {permutations}")
    if permutations < 1 or 1 / (permutations + 1) > level:
        needed = next(b for b in range(max(1, int(1 / level) - 2), int(1 / level) + 3) if 1 / (b + 1) <= level)
        raise UsageError(
            f"permutations: {permutations} are too few for level {level}: the smallest p-value would be "
            f"{1 / (max(permutations, 0) + 1):.3g}; take at least {needed}"
        )
    k = int(level * (permutations + 1))
    while (k + 1) / (permutations + 1) <= level:  # int() may fall one short of an exact product
        k += 1
    while k / (permutations + 1) > level:
        k -= 1
    return k
