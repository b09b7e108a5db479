"""The device's own rates: matrix products in three precisions, and exponentials without memory between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.lax import Precision
from worker import Array, Case, serve

CHAIN = 64  # exponentials of one number in one fused kernel: reading and writing it is then no cost
REPEATS = 10


def seconds_of(function: Callable[[], jax.Array]) -> float:
    """Return the fastest of ten calls, after one that compiles."""
    function().block_until_ready()
    found: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        function().block_until_ready()
        found.append(time.perf_counter() - began)
    return min(found)


@jax.jit
def exponentials(values: jax.Array) -> jax.Array:
    """Return exp(−v) taken again and again of each."""
    for _ in range(CHAIN):
        values = jnp.exp(-values)
    return values


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Measure; the rows given matter only in that few ask for small matrices, as in a rehearsal."""
    del x, y
    on_gpu = jax.default_backend() == "gpu"
    size = 8192 if case.rows >= 100_000 else 512
    key = jax.random.key(0)
    a = jax.random.normal(key, (size, size), jnp.float32)
    low = a.astype(jnp.bfloat16)
    highest = jax.jit(lambda u: jnp.matmul(u, u, precision=Precision.HIGHEST))
    default = jax.jit(lambda u: jnp.matmul(u, u, precision=Precision.DEFAULT))
    bf16 = jax.jit(lambda u: jnp.matmul(u, u, preferred_element_type=jnp.float32))
    operations = 2.0 * size**3
    return {
        "on_gpu": float(on_gpu),
        "float32": operations / seconds_of(lambda: highest(a)),
        "tf32": operations / seconds_of(lambda: default(a)),
        "bf16": operations / seconds_of(lambda: bf16(low)),
        "exponentials": CHAIN * size**2 / seconds_of(lambda: exponentials(a)),
    }


if __name__ == "__main__":
    serve(run)
