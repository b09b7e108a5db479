"""The labels of a block's bins under every permutation, computed on the device that needs them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.theory.permutations import Bins, bin_words
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.random_bits import seed_words


class LabelPanels:
    """Blocks of labels on the device, for one test.

    Args:
        seed: the test's seed.
        cuts: (permutations,) uint64, from :meth:`Bins.cuts`.
        bins: the bins.
        grid: the block grid, whose blocks hold whole numbers of bins.
    """

    def __init__(self, seed: int, cuts: NDArray[np.uint64], bins: Bins, grid: BlockGrid) -> None:
        self.bins = bins
        self.permutations = len(cuts)
        self._key = tuple(np.uint32(word) for word in seed_words(seed))
        self._cut_words = (cuts >> np.uint64(32)).astype(np.uint32)
        self._cut_numbers = (cuts & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
        self._grid = grid

    def panel(self, block: int) -> jax.Array:
        """Return the labels of a block's bins: (bins of a block, 1 + permutations) int8 with columns s₀, s₁ … s_B.

        Bins that are not whole, or past the end of the sample, keep their side in every column.
        """
        bins, own = self.bins, self._grid.in_reference(block)
        first = self._grid.place(block) // bins.rows
        whole = (bins.reference if own else bins.current) - first
        start = first if own else bins.reference + first
        count = self._grid.block // bins.rows
        return _panel(
            *self._key, self._cut_words, self._cut_numbers, np.uint32(start), np.int32(whole), own, count=count
        )


@partial(jax.jit, static_argnames=("count",))
def _panel(
    low: jax.Array,
    high: jax.Array,
    cut_words: jax.Array,
    cut_numbers: jax.Array,
    start: jax.Array,
    whole: jax.Array,
    own: jax.Array,
    *,
    count: int,
) -> jax.Array:
    place = jnp.arange(count, dtype=jnp.uint32)[:, None]
    number = place + start
    streams = jnp.arange(1, len(cut_words) + 1, dtype=jnp.uint32)
    # Two bins share a counter: one more than half of them are needed where the first is odd.
    words = bin_words(low, high, streams, start // 2, count // 2 + 1).T
    words = jax.lax.dynamic_slice_in_dim(words, (start % 2).astype(jnp.int32), count)
    chosen = (words < cut_words[None, :]) | ((words == cut_words[None, :]) & (number <= cut_numbers[None, :]))
    moving = place.astype(jnp.int32) < whole
    observed = jnp.broadcast_to(own, (count, 1))
    return jnp.concatenate([observed, jnp.where(moving, chosen, own)], axis=1).astype(jnp.int8)
