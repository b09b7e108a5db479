"""The floor: the products, the exponentials and the products with a panel that half of the tiles need, each alone.

By JAX and, the products, by NumPy too, in float32, and the panels' products in bfloat16 and int8 too; on the same
numbers again and again, so that all are in the processor's cache. Each stage is timed at several tile sizes, in
separate calls and within one compiled loop; the benchmark takes each stage's fastest. A stage is timed over a part of
the tiles, and its time multiplied up to the n(2n + 1) pairs of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from worker import Array, Case, serve

TILES = (1000, 1024, 2048)
PAIRS = 1 << 25  # timed at each size; a rate does not change over more


@jax.jit
def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the inner products of two blocks of rows."""
    return a @ b.T


@jax.jit
def panel_product(tile: jax.Array, panel: jax.Array) -> jax.Array:
    """Return a tile's product with a panel of labellings, in the precision they come in."""
    whole = jnp.issubdtype(tile.dtype, jnp.integer)
    return jnp.matmul(tile, panel, preferred_element_type=jnp.int32 if whole else jnp.float32)


@jax.jit
def exponential(values: jax.Array) -> jax.Array:
    """Return exp(v) of each."""
    return jnp.exp(values)


@jax.jit
def product_loop(a: jax.Array, b: jax.Array, times: int) -> jax.Array:
    """Do it again and again: each round depends on the one before, or it would be done once."""

    def step(_: int, tile: jax.Array) -> jax.Array:
        return (a + 1e-30 * tile[0, 0]) @ b.T

    return jax.lax.fori_loop(0, times, step, jnp.zeros((len(a), len(b)), jnp.float32))


@jax.jit
def exponential_loop(values: jax.Array, times: int) -> jax.Array:
    """Take exp(−v) again and again, in place."""
    return jax.lax.fori_loop(0, times, lambda _, v: jnp.exp(-v), values)


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Time each stage at each size, in seconds for the whole."""
    del y
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    for size in TILES:
        rounds = max(1, round(PAIRS / size**2))
        whole = case.rows * (2 * case.rows + 1) / (rounds * size**2)
        host = np.resize(x, (size, case.dimensions))
        other = host.copy()  # of an array with itself NumPy computes half
        a, tile = jnp.asarray(host), np.empty((size, size), np.float32)
        values = jnp.asarray(-np.abs(rng.standard_normal((size, size), dtype=np.float32)))
        stages: dict[str, Callable[[], object]] = {
            f"products/{size}": again(product, rounds, a, a),
            f"products/{size} numpy": lambda host=host, other=other, tile=tile, rounds=rounds: [
                np.matmul(host, other.T, out=tile) for _ in range(rounds)
            ],
            f"products/{size} loop": lambda a=a, rounds=rounds: product_loop(a, a, rounds).block_until_ready(),
            f"exponentials/{size}": again(exponential, rounds, values),
            f"exponentials/{size} loop": lambda v=-values, rounds=rounds: exponential_loop(
                v, rounds
            ).block_until_ready(),
        }
        if case.permutations:
            panel = jnp.asarray(rng.integers(0, 2, (size, case.permutations + 1)).astype(np.float32))
            stages[f"panels float32/{size}"] = again(panel_product, rounds, values, panel)
            if size == TILES[1]:  # on a processor without such products they take long
                for dtype in (jnp.bfloat16, jnp.int8):
                    cast = (values.astype(dtype), panel.astype(dtype))
                    stages[f"panels {jnp.dtype(dtype).name}/{size}"] = again(panel_product, rounds, *cast)
        for name, stage in stages.items():
            began = time.perf_counter()
            stage()
            figures[name] = (time.perf_counter() - began) * whole
    return figures


def again(function: Callable[..., jax.Array], rounds: int, *arguments: jax.Array) -> Callable[[], object]:
    """Return a stage that calls a function over and over, each time until it is done."""

    def stage() -> None:
        for _ in range(rounds):
            function(*arguments).block_until_ready()

    return stage


if __name__ == "__main__":
    serve(run)
