"""One tile of the kernel matrix as plain array operations, compiled by XLA for whatever device there is."""

from __future__ import annotations

from typing import Final

import jax
import jax.numpy as jnp

from driftline.components.kernel.functions import Family

TileSums = tuple[jax.Array, jax.Array, jax.Array]


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ‖x − y‖² of every pair, (a, b), by one matrix product that has the norms among its factors."""
    one_x, one_y = jnp.ones((len(x), 1), x.dtype), jnp.ones((len(y), 1), y.dtype)
    left = jnp.concatenate([-2 * x, jnp.sum(x * x, axis=1, keepdims=True), one_x], axis=1)
    right = jnp.concatenate([y, one_y, jnp.sum(y * y, axis=1, keepdims=True)], axis=1)
    return jnp.maximum(inner_products(left, right), 0)


def inner_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the inner product of every pair, (a, b), as exactly as the dtype allows."""
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


ARGUMENTS: Final = {"distance": squared_distances, "product": inner_products}
"""What a kernel's gamma multiplies, by its name."""


def pairs(
    x: jax.Array, y: jax.Array, valid_x: jax.Array | int, valid_y: jax.Array | int, diagonal: jax.Array | bool
) -> jax.Array:
    """Return which pairs of a tile count, (a, b) bool: those of rows that are there, and none of a row with itself."""
    row, column = jnp.arange(len(x))[:, None], jnp.arange(len(y))[None, :]
    return (row < valid_x) & (column < valid_y) & ~(diagonal & (row == column))


def xla_tile(
    x: jax.Array,
    y: jax.Array,
    gammas: jax.Array,
    kept: jax.Array | None,
    *,
    families: tuple[Family, ...],
    bin_rows: int,
) -> TileSums:
    """Sum one tile for Q kernels, which share its matrix product.

    Args:
        x: (a, d) centred vectors of one block.
        y: (b, d) those of another, of the same dtype.
        gammas: (Q,) the kernels' gammas, of the same dtype.
        kept: (a, b) which pairs count, or None for all.
        families: the kernels' families; static.
        bin_rows: rows of a bin, of which a and b are multiples; static.

    Returns:
        Sums over y (Q, a) and over x (Q, b), both float64, and sums over pairs of bins (Q, a/bin_rows, b/bin_rows) of
        the tile's dtype.
    """
    arguments = {name: ARGUMENTS[name](x, y) for name in sorted({family.argument for family in families})}
    sums: list[TileSums] = []
    for place, family in enumerate(families):
        k = family.profile(gammas[place] * arguments[family.argument])
        sums.append(_sums(k if kept is None else jnp.where(kept, k, jnp.zeros((), k.dtype)), bin_rows))
    rows, columns, bins = zip(*sums, strict=True)
    return jnp.stack(rows), jnp.stack(columns), jnp.stack(bins)


def _sums(k: jax.Array, bin_rows: int) -> TileSums:
    """Add up few numbers in the tile's own dtype, and their sums in float64: nearly exact, and one cheap pass."""
    a, b = k.shape
    if bin_rows == 1:
        return jnp.sum(k.astype(jnp.float64), axis=1), jnp.sum(k.astype(jnp.float64), axis=0), k
    strips = k.reshape(a // bin_rows, bin_rows, b).sum(axis=1)
    columns = jnp.sum(strips.astype(jnp.float64), axis=0)
    bins = strips.reshape(a // bin_rows, b // bin_rows, bin_rows).sum(axis=2)
    # Columns that lie b/bin_rows apart are added first: whole vectors at a time, where neighbours would be shuffled.
    rows = jnp.sum(k.reshape(a, bin_rows, b // bin_rows).sum(axis=1).astype(jnp.float64), axis=1)
    return rows, columns, bins
