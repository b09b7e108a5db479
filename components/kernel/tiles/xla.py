"""One tile of the kernel matrix as plain array operations, compiled by XLA for whatever device there is."""

from __future__ import annotations

from typing import Final

import jax
import jax.numpy as jnp

from driftline.components.kernel.theory.families import Family

TileSums = tuple[jax.Array, jax.Array, jax.Array]

_TOGETHER: Final = 16
"""Coordinates whose differences one pass over a tile's L1 distances adds: memory is gone through once for so many."""


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ‖x − y‖² of every pair, (a, b), by one matrix product that has the norms among its factors."""
    return _distances(x, y, jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1))


def inner_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ⟨x, y⟩ of every pair, (a, b), as exactly as the dtype allows."""
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def manhattan_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ‖x − y‖₁ of every pair, (a, b): d subtractions a pair, never stored as (a, b, d)."""
    d = x.shape[1]
    together = min(d, _TOGETHER)
    padding = ((0, -d % together), (0, 0))  # coordinates that are 0 in both add nothing
    x_coordinates, y_coordinates = jnp.pad(x.T, padding), jnp.pad(y.T, padding)

    def add(step: jax.Array, total: jax.Array) -> jax.Array:
        left, right = (
            jax.lax.dynamic_slice_in_dim(z, step * together, together) for z in (x_coordinates, y_coordinates)
        )
        for place in range(together):
            total = total + jnp.abs(left[place][:, None] - right[place][None, :])
        return total

    return jax.lax.fori_loop(0, len(x_coordinates) // together, add, jnp.zeros((len(x), len(y)), x.dtype))


def _distances(x: jax.Array, y: jax.Array, norms_x: jax.Array, norms_y: jax.Array) -> jax.Array:
    one_x, one_y = jnp.ones((len(x), 1), x.dtype), jnp.ones((len(y), 1), y.dtype)
    left = jnp.concatenate([-2 * x, norms_x[:, None], one_x], axis=1)
    right = jnp.concatenate([y, one_y, norms_y[:, None]], axis=1)
    return jnp.maximum(inner_products(left, right), 0)


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
        arguments["distance"] = _distances(x, y, *norms)
    if "product" in wanted:
        arguments["product"] = inner_products(x, y)
    if "manhattan" in wanted:
        arguments["manhattan"] = manhattan_distances(x, y)
    sums: list[TileSums] = []
    for place, family in enumerate(families):
        k = family.profile(family.factor(gammas[place]) * arguments[family.argument])
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
