"""Distances and inner products of every pair of vectors: as JAX operations, and L1 distances by a program of LLVM's.

L1 distances are no matrix product. For some vectors held in memory, NumPy takes some ten times as long as the program,
which runs on one core: NumPy writes each coordinate's differences to memory.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.llvm_codegen import Compiled, VectorCode, host_registers

_TOGETHER: Final = 16
"""Coordinates whose differences one pass over a tile's L1 distances adds: memory is gone through once for so many."""
_CELL_VECTORS: Final = 2  # of columns in a cell, which stays in registers while the coordinates are gone through
_CELL_ROWS: Final = 4


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ‖x − y‖² of every pair, (a, b), by one matrix product that has the norms among its factors."""
    return squared_distances_with_norms(x, y, jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1))


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


def squared_distances_with_norms(x: jax.Array, y: jax.Array, norms_x: jax.Array, norms_y: jax.Array) -> jax.Array:
    """Return ‖x − y‖² of every pair, (a, b), from the squared norms (a,) and (b,): infinite ones give infinity."""
    one_x, one_y = jnp.ones((len(x), 1), x.dtype), jnp.ones((len(y), 1), y.dtype)
    left = jnp.concatenate([-2 * x, norms_x[:, None], one_x], axis=1)
    right = jnp.concatenate([y, one_y, norms_y[:, None]], axis=1)
    return jnp.maximum(inner_products(left, right), 0)


def manhattan_matrix(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ‖x − y‖₁ between all rows of z, (k, d): (k, k) float64, symmetric, zeros on its diagonal.

    Time O(k²d), 0.1 ns for each pair and coordinate of the half that is computed; memory 17·k² bytes and a copy of z.
    """
    rows, d = z.shape
    width = _CELL_VECTORS * (host_registers().bytes // 8)
    padded = np.zeros((-(-rows // width) * width, d))
    padded[:rows] = z
    panels = np.ascontiguousarray(padded.reshape(-1, width, d).transpose(0, 2, 1))
    sums = np.empty((len(padded), len(padded)))
    _manhattan_program().call(panels.ctypes.data, sums.ctypes.data, d, len(padded))
    matrix = sums[:rows, :rows]
    np.copyto(matrix, matrix.T.copy(), where=np.tri(rows, k=-1, dtype=bool))
    return matrix


@cache
def _manhattan_program() -> Compiled:
    """Return the program.

    It takes panels (⌈k / width⌉, d, width), vectors coordinate by coordinate, and fills sums, a square in whole panels,
    from its diagonal on; all float64.
    """
    lanes = host_registers().bytes // 8
    width = _CELL_VECTORS * lanes
    rows_together = min(_CELL_ROWS, width)
    code = VectorCode("manhattan", ("panels", "sums"), ("d", "rows"), single=False, lanes=lanes)
    panels, rows = code.arguments["panels"], code.arguments["rows"]
    panel = code.times(code.arguments["d"], width)
    totals = [code.variables(1) for _ in range(rows_together * _CELL_VECTORS)]
    with code.loop(code.index(0), rows, rows_together) as row:
        own = code.divided(row, width)
        across = code.at(code.at(panels, code.times(own, panel)), code.build.urem(row, code.index(width)))
        with code.loop(code.times(own, width), rows, width) as column:
            along = code.at(panels, code.times(code.divided(column, width), panel))
            for total in totals:
                code.store(code.constant(0.0), total)
            with code.loop(code.index(0), panel, width) as k:
                at_x, at_y = code.at(across, k), code.at(along, k)
                columns = [code.load(code.at(at_y, code.index(v * lanes))) for v in range(_CELL_VECTORS)]
                for i in range(rows_together):
                    one = code.spread(code.load_one(code.at(at_x, code.index(i))))
                    for v in range(_CELL_VECTORS):
                        total = totals[i * _CELL_VECTORS + v]
                        difference = code.magnitude(code.build.fsub(one, columns[v]))
                        code.store(code.build.fadd(code.load(total), difference), total)
            for i in range(rows_together):
                start = code.plus(code.times(code.plus(row, i), rows), column)
                for v in range(_CELL_VECTORS):
                    place = code.at(code.arguments["sums"], code.plus(start, v * lanes))
                    code.store(code.load(totals[i * _CELL_VECTORS + v]), place)
    return code.compiled()
