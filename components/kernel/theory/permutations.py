"""Random permutations of a pooled sample's labels, computed anywhere from (seed, permutation, bin).

Permuted are the labels of *bins*: groups of equally many consecutive rows of one sample, which change sides together.
Permutations of bins are a subgroup of all permutations, so that the permutation test stays exact at any size of a bin,
while its cost falls with the square of the size. The loss of power is of the order of one part in the number of bins
(Domingo-Enrich, Dwivedi, Mackey: "Cheap permutation testing", 2025). Small samples have bins of one row: the ordinary
test. The few rows past a sample's last whole bin never change sides.

Permutation *b* gives the label "reference" to the n bins whose pair (word, bin) is smallest, the words being those of
:mod:`driftline.components.random_bits` in stream *b*. The n-th smallest pair is the permutation's *cut*; with it, the
label of a bin is one comparison, exactly n bins are of the reference, and each subset of n bins is equally likely. A
plan holds the cuts, 8 bytes a permutation; labels are never stored or sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.drift_settings import check_permutations
from driftline.components.random_bits import row_bits, seed_words, threefry2x32

_CHUNK_WORDS: Final = 1 << 22

LEAST_BINS: Final = 512
"""Bins have more than one row only where the smaller sample keeps this many."""
MAX_BIN_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of a pooled sample.

    Attributes:
        reference: whole bins of the reference, numbered first.
        current: whole bins of the current sample.
        rows: rows of a bin, a power of two.
    """

    reference: int
    current: int
    rows: int

    @classmethod
    def of(cls, n: int, m: int) -> Self:
        """Choose bins for samples of n and m rows: as large as leaves the smaller sample LEAST_BINS of them."""
        rows = 1
        while 2 * rows <= MAX_BIN_ROWS and min(n, m) // (2 * rows) >= LEAST_BINS:
            rows *= 2
        return cls(n // rows, m // rows, rows)

    def cuts(self, seed: int, permutations: int) -> NDArray[np.uint64]:
        """Return each permutation's cut, shape (permutations,)."""
        return permutation_cuts(seed, permutations, self.reference, self.reference + self.current)


def permutation_cuts(seed: int, permutations: int, n: int, bins: int) -> NDArray[np.uint64]:
    """Return each permutation's cut, shape (permutations,): the n-th smallest of ``word · 2³² + bin``.

    Time O(bins · permutations), memory a few times 32 MiB.
    """
    cuts = np.empty(permutations, np.uint64)
    counters = (bins + 1) // 2
    at_once = max(1, _CHUNK_WORDS // (2 * counters))
    number = np.arange(bins, dtype=np.uint64)
    low, high = seed_words(seed)
    for first in range(0, permutations, at_once):
        streams = np.arange(first + 1, min(first + at_once, permutations) + 1, dtype=np.uint32)
        words = np.asarray(bin_words(np.uint32(low), np.uint32(high), streams, np.uint32(0), counters))
        ranks = (words[:, :bins].astype(np.uint64) << np.uint64(32)) | number
        cuts[first : first + len(streams)] = np.partition(ranks, n - 1, axis=1)[:, n - 1]
    return cuts


@partial(jax.jit, static_argnames=("counters",))
def bin_words(low: jax.Array, high: jax.Array, streams: jax.Array, first: jax.Array, counters: int) -> jax.Array:
    """Return the words of bins 2·first … 2·(first + counters) − 1 in each stream: (streams, 2 · counters) uint32."""
    count = jnp.arange(counters, dtype=jnp.uint32) + first
    even, odd = threefry2x32(low, high, streams[:, None], count[None, :])
    return jnp.stack([even, odd], axis=2).reshape(len(streams), 2 * counters)


def labels(seed: int, cuts: NDArray[np.uint64], n: int, start: int, stop: int) -> NDArray[np.int8]:
    """Return the labels of bins ``start`` to ``stop``: (stop − start, 1 + permutations) int8, 1 for the reference.

    Column 0 holds the observed labels, 1 for the first n bins; column b is permutation b. This is the definition, in
    NumPy; the engine computes the same with :class:`~driftline.components.kernel.tiles.label_panels.LabelPanels`.
    """
    number = np.arange(start, stop, dtype=np.uint64)
    panel = np.empty((stop - start, 1 + len(cuts)), np.int8)
    panel[:, 0] = number < n
    for b, cut in enumerate(cuts, start=1):
        words = row_bits(seed, b, start, stop).astype(np.uint64)
        panel[:, b] = ((words << np.uint64(32)) | number) <= cut
    return panel


def rank_of_threshold(permutations: int, level: float) -> int:
    """Return the largest k with k / (permutations + 1) ≤ level: the k-th largest permuted statistic is the threshold.

    Raises:
        UsageError: the level is not in (0, 1), or there are too few permutations for any p-value to reach it.
    """
    check_permutations(permutations, level)
    k = int(level * (permutations + 1))
    while (k + 1) / (permutations + 1) <= level:  # int() may fall one short of an exact product
        k += 1
    while k / (permutations + 1) > level:
        k -= 1
    return k
