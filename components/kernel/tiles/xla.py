"""One tile of the kernel matrix as plain array operations, compiled by XLA for whatever device there is."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from driftline.components.kernel.theory.distances import (
    inner_products,
    manhattan_distances,
    squared_distances_with_norms,
)
from driftline.components.kernel.theory.families import Family

TileSums = tuple[jax.Array, jax.Array, jax.Array]


def xla_tile(
    x: jax.Array,
    y: jax.Array,
    gammas: jax.Array,
    valid_x: jax.Array | int,
    valid_y: jax.Array | int,
    diagonal: jax.Array | bool,
    *,
    families: tuple[Family, ...],
    bin_rows: int,
) -> TileSums:
    """Sum one tile for Q kernels, which share its matrix product and its L1 distances.

    Args:
        x: (a, d) centred vectors of one block, zeros where they are padding.
        y: (b, d) those of another, of the same dtype.
        gammas: (Q,) the kernels' gammas, of the same dtype.
        valid_x: rows of x that are there; those after them are padding and count for nothing.
        valid_y: the same for y.
        diagonal: whether x and y are one block, so that entries i = j are 0; a and b are equal then.
        families: the kernels' families; static.
        bin_rows: rows of a bin, of which a and b are multiples; static.

    Returns:
        Sums over y (Q, a) and over x (Q, b), both float64, and sums over pairs of bins (Q, a/bin_rows, b/bin_rows) of
        the tile's dtype.
    """
    there_x, there_y = jnp.arange(len(x)) < valid_x, jnp.arange(len(y)) < valid_y
    wanted = {family.argument for family in families}
    arguments: dict[str, jax.Array] = {}
    if "distance" in wanted:  # padding is infinitely far: kernels of the distance are 0 there
        norms = (jnp.where(there, jnp.sum(z * z, axis=1), jnp.inf) for z, there in ((x, there_x), (y, there_y)))
        arguments["distance"] = squared_distances_with_norms(x, y, *norms)
    if "product" in wanted:
        arguments["product"] = inner_products(x, y)
    if "manhattan" in wanted:
        arguments["manhattan"] = manhattan_distances(x, y)
    sums: list[TileSums] = []
    for place, family in enumerate(families):
        k = family.function(family.factor(gammas[place]) * arguments[family.argument])
        if family.argument != "distance":
            k = jnp.where(there_x[:, None] & there_y[None, :], k, jnp.zeros((), k.dtype))
        # Kept as it is from here: XLA would otherwise compute it once for each sum.
        sums.append(_sums(jax.lax.optimization_barrier(k), bin_rows, diagonal))
    rows, columns, bins = zip(*sums, strict=True)
    return jnp.stack(rows), jnp.stack(columns), jnp.stack(bins)


def _sums(k: jax.Array, bin_rows: int, diagonal: jax.Array | bool) -> TileSums:
    """Add up few numbers in the tile's own dtype, and their sums in float64: nearly exact, and one cheap pass."""
    a, b = k.shape
    strips = k.reshape(a // bin_rows, bin_rows, b).sum(axis=1) if bin_rows > 1 else k
    columns = jnp.sum(strips.astype(jnp.float64), axis=0)
    bins = strips.reshape(a // bin_rows, b // bin_rows, bin_rows).sum(axis=2)
    # Columns that lie far apart are added first: whole vectors at a time, where neighbours would be shuffled.
    few = max(bin_rows, 8)
    rows = jnp.sum(k.reshape(a, few, b // few).sum(axis=1).astype(jnp.float64), axis=1)
    if a != b:
        return rows, columns, bins
    # Taken off afterwards: to leave the diagonal out would be another pass over the tile.
    own = jnp.where(diagonal, jnp.diagonal(k), jnp.zeros((), k.dtype))
    places = jnp.arange(len(bins))
    return rows - own, columns - own, bins.at[places, places].add(-own.reshape(-1, bin_rows).sum(axis=1))
