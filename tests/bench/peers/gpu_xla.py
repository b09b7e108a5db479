"""Plain XLA tiles: what JAX makes of the statistic without a kernel written for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from worker import Array, Case, serve

TILE = 8192


@partial(jax.jit, static_argnames="tiles")
def band_sums(z: jax.Array, labels: jax.Array, gamma: jax.Array, i: jax.Array, *, tiles: int) -> jax.Array:
    """Return the sums of a band of tiles, on the diagonal and right of it: (within x, across, within y), float32.

    Rows of label 0 are padding.
    """
    rows = lax.dynamic_slice_in_dim(z, i * TILE, TILE)
    x_rows, y_rows = (lax.dynamic_slice_in_dim(labels == k, i * TILE, TILE).astype(z.dtype) for k in (1, 2))
    norms = jnp.sum(rows * rows, axis=1)

    def step(j: jax.Array, sums: jax.Array) -> jax.Array:
        columns = lax.dynamic_slice_in_dim(z, j * TILE, TILE)
        x_columns, y_columns = (lax.dynamic_slice_in_dim(labels == k, j * TILE, TILE).astype(z.dtype) for k in (1, 2))
        squared = norms[:, None] + jnp.sum(columns * columns, axis=1)[None, :] - 2 * rows @ columns.T
        gram = jnp.exp(-gamma * jnp.maximum(squared, 0))
        twice = jnp.where(j > i, 2.0, 1.0)
        of_x, of_y = gram @ x_columns, gram @ y_columns
        across = x_rows @ of_y + y_rows @ of_x
        return sums + jnp.stack([twice * (x_rows @ of_x), across * twice / 2, twice * (y_rows @ of_y)])

    return lax.fori_loop(i, tiles, step, jnp.zeros(3, z.dtype))


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Compute MMD²_u."""
    n = case.rows
    z = np.concatenate([x, y])
    tiles = -(-len(z) // TILE)
    padding = tiles * TILE - len(z)
    labels = jnp.asarray(np.pad(np.repeat(np.array([1, 2], np.int32), n), (0, padding)))
    padded = jnp.asarray(np.pad(z, ((0, padding), (0, 0))))
    bands = [band_sums(padded, labels, jnp.float32(case.gamma), jnp.int32(i), tiles=tiles) for i in range(tiles)]
    within_x, across, within_y = np.sum(np.asarray(jax.device_get(bands), np.float64), axis=0)
    statistic = (within_x - n + within_y - n) / (n * (n - 1)) - 2 * across / n**2
    # Absent on a CPU.
    memory = jax.devices()[0].memory_stats() or {}
    peak = {"device_memory_mb": memory["peak_bytes_in_use"] / 2**20} if "peak_bytes_in_use" in memory else {}
    return {"statistic": float(statistic), **peak}


if __name__ == "__main__":
    serve(run)
