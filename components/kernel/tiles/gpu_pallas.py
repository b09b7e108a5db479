"""One tile of the kernel matrix on a GPU, reduced as it is computed: a Pallas kernel for the Triton compiler.

A tile of 16,384 × 16,384 kernel values is a gigabyte. Here each program of the grid holds 256 × 64 of them (128 × 64
for several kernels at once, for ``bf16x6``, or beyond d = 64) in registers and writes sums alone: device memory sees
the vectors, 4 or 6 bytes a component, and for each kernel its bins and partial column sums, a 64th or 32nd of the tile.

**Cost, by which it was designed.** An H100 takes 3 to 4 · 10¹² exponentials and up to 8 · 10¹⁴ bf16 operations a
second: for 1M against 1M rows, d = 64, which is 2 · 10¹² pairs of the half matrix, the exponentials take 0.5 to 0.7 s
and the product 1 s with ``bf16x3``, 1.9 s with ``bf16x6``. In that time a pair may cost about 12 instructions in all,
more than the compiled Gaussian has: two additions (row, column), and almost nothing across threads. Rows and columns
are dealt out beforehand such that those of an 8 × 8 cell lie in one thread's registers as the tensor cores leave them
(rows 8 apart in each 16, columns 8 apart); correctness does not depend on it.
Two programs share a multiprocessor, so that one multiplies while the other adds. Beyond d = 64 vectors are read in
pieces, again for every sub-tile, and the L2 cache's bandwidth takes over from arithmetic: 6 to 9 bytes a pair for every
64 components.

**Precision.** Vectors are split into bf16 terms before the kernel, x ≈ x₁ + x₂ (+ x₃), and ⟨x, y⟩ is the sum of the
products of terms that matter, each exact, added in float32. With |x|, |y| ≤ r, the error of a squared distance is

=========  =============================  =======================  ====================
precision  terms kept                     beside float32's own     tensor core products
=========  =============================  =======================  ====================
bf16x6     x₁y₁ x₁y₂ x₂y₁ x₂y₂ x₁y₃ x₃y₁  < 2⁻²³·r², rms 1e-9·r²   6
bf16x3     x₁y₁ x₁y₂ x₂y₁                 < 2⁻¹⁴·r², rms 1e-6·r²   3
=========  =============================  =======================  ====================

So ``bf16x6`` is float32. With ``bf16x3`` most of the error is the vectors' own rounding, to 17 bits, which leaves a
kernel of slightly moved vectors: for normal samples of 1,500 against 1,500, d = 2 to 384, MMD² moved by at most 3e-6 of
its standard deviation. The Laplace kernel, steep at 0, takes the square root of such an error for a pair at distance 0,
as it does in float32. TF32 alone (11 bits) is too coarse for distances; three TF32 products cost as much as six of
bf16, read 8 bytes a component instead of 6, and are no more exact.

**L1 distances** are no products: d subtractions and as many additions a pair (a sign costs nothing) and no tensor core,
from the float32 vectors whatever the precision, once for all kernels of them. For 1M against 1M rows, d = 64, that is
2.6 · 10¹⁴ operations: by design 9 s at the 3 · 10¹³ a second that an H100 does without multiply-adds.

Values are summed in float32 over at most 1,024 pairs, beyond which XLA adds the partial sums, in float64 where 64-bit
types are enabled: a sum's error is below 3e-6 (1e-7 typically) of the sum of the values' magnitudes. No atomics: the
same bits every time.

**Experimental: not measured on a GPU.** So :class:`~driftline.components.kernel.tiles.device.DeviceTiles` compares it
with XLA's tiles at its first use on a device. Without a GPU are checked: the results, in interpret mode; the lowering
for CUDA; and, by hand, that Triton 3.9 compiles the lowered module for compute capabilities 8.0 and 9.0, in at most
97 KiB of shared memory (for one kernel on 9.0 without spilling a register); but not yet for kernels of the L1 distance.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Final, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from driftline.components.errors import UsageError
from driftline.components.kernel.theory.families import Family
from driftline.components.kernel.tiles.gpu_program import (
    STRIP,
    WARPS,
    PallasConfig,
    deal_columns,
    deal_rows,
    gather_columns,
    gather_rows,
    program,
)

Product = Literal["bf16x6", "bf16x3"]
TileSums = tuple[jax.Array, jax.Array, jax.Array]

BIN_ROWS: Final = (8, 16, 32, 64)
"""Sizes of a bin that a sub-tile divides into."""
BLOCK_MULTIPLE: Final = 256
"""A block's rows are a multiple of this."""

# Within float32's normal numbers, so that padding's infinite distance times γ stays infinite, and 0 times γ stays 0.
_SMALLEST_GAMMA: Final = 2e-38
_LARGEST_GAMMA: Final = 1e38


@partial(jax.jit, static_argnames=("families", "bin_rows", "diagonal", "precision", "interpret"))
def pallas_tile(
    x: jax.Array,
    y: jax.Array,
    gammas: jax.Array,
    valid_x: jax.Array | int,
    valid_y: jax.Array | int,
    *,
    families: tuple[Family, ...],
    bin_rows: int,
    diagonal: bool,
    precision: Product = "bf16x6",
    interpret: bool = False,
) -> TileSums:
    """Return the sums of one tile of Q kernels' matrices.

    Device memory beside the arguments and results: (block_x + block_y) · d times 6 bytes of split vectors, unless all
    kernels are of the L1 distance, and 4 bytes where some are; partial sums of Q · block_x · block_y / 7 bytes: 38 MB a
    kernel for blocks of 16,384.

    Args:
        x: (block_x, d) float32, centred vectors of the tile's rows; block_x a multiple of :data:`BLOCK_MULTIPLE`.
        y: (block_y, d) float32, those of its columns.
        gammas: (Q,), each kernel's γ; taken as float32, within its range of normal numbers.
        valid_x: rows of x that count; the rest is padding, whatever it holds.
        valid_y: rows of y that count.
        families: Q families.
        bin_rows: c, rows and columns of a bin, one of :data:`BIN_ROWS`.
        diagonal: whether the tile lies on the diagonal, where entries i == j are taken as 0.
        precision: how the product is computed: see the module.
        interpret: run without a GPU, by Pallas's interpreter; slow, for tests.

    Returns:
        rows (Q, block_x): sums over the tile's columns; columns (Q, block_y): sums over its rows; both float64 where
        64-bit types are enabled, else float32. bins (Q, block_x/c, block_y/c) float32: sums over cells of c × c
        consecutive rows and columns.

    Raises:
        UsageError: shapes, families or a bin size that the kernel is not made for.
    """
    _check(x, y, gammas, families, bin_rows, precision)
    multiplied = any(family.argument != "manhattan" for family in families)
    terms = {"bf16x3": 2, "bf16x6": 3}[precision] if multiplied else 0
    config = PallasConfig(families, terms, x.shape[1], math.gcd(len(y), STRIP), bin_rows, diagonal, interpret)
    count, grid = len(families), (len(x) // config.rows, len(y) // config.strip)
    x_dealt = deal_rows(_masked(x, valid_x, config.width), config.repeats)
    y_dealt = deal_columns(_masked(y, valid_y, config.width))
    (x_terms, x_norms), (y_terms, y_norms) = _split(x_dealt, terms), _split(y_dealt, terms)
    x_norms = jnp.where(deal_rows(_is_valid(x, valid_x), config.repeats), x_norms, jnp.inf)
    y_norms = jnp.where(deal_columns(_is_valid(y, valid_y)), y_norms, jnp.inf)
    # Coordinates first: a program takes one at a time, of all its vectors, which then lie side by side.
    coordinates = [dealt[:, : config.d].T for dealt in (x_dealt, y_dealt)] if config.wants_manhattan else []
    gammas = jnp.clip(gammas, _SMALLEST_GAMMA, _LARGEST_GAMMA).astype(jnp.float32)
    factors = jnp.stack([family.factor(gammas[q]) * config.factor(family) for q, family in enumerate(families)])
    valid = jnp.stack([jnp.asarray(valid_x, jnp.int32), jnp.asarray(valid_y, jnp.int32)])

    row_sums = pl.BlockSpec((count, None, config.rows), lambda i, j: (0, j, i))
    column_sums = pl.BlockSpec((count, WARPS, config.strip), lambda i, j: (0, i, j))
    cells = pl.BlockSpec((count, config.rows // bin_rows, config.strip // bin_rows), lambda i, j: (0, i, j))
    rows, columns, bins = pl.pallas_call(
        partial(program, config=config),
        grid=grid,
        in_specs=[
            [pl.BlockSpec((config.rows, config.width), lambda i, j: (i, 0))] * terms,
            [pl.BlockSpec((config.strip, config.width), lambda i, j: (j, 0))] * terms,
            [
                pl.BlockSpec((config.d, config.rows), lambda i, j: (0, i)),
                pl.BlockSpec((config.d, config.strip), lambda i, j: (0, j)),
            ][: len(coordinates)],
            pl.BlockSpec((config.rows,), lambda i, j: (i,)),
            pl.BlockSpec((config.strip,), lambda i, j: (j,)),
            pl.BlockSpec((count,), lambda i, j: (0,)),
            pl.BlockSpec((2,), lambda i, j: (0,)),
        ],
        out_specs=[row_sums, column_sums, cells],
        out_shape=[
            jax.ShapeDtypeStruct((count, grid[1], len(x)), jnp.float32),
            jax.ShapeDtypeStruct((count, grid[0] * WARPS, len(y)), jnp.float32),
            jax.ShapeDtypeStruct((count, len(x) // bin_rows, len(y) // bin_rows), jnp.float32),
        ],
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=2),
        interpret=interpret,
        name="pallas_tile",
    )(x_terms, y_terms, coordinates, x_norms, y_norms, factors, valid)
    wide = jax.dtypes.canonicalize_dtype(np.float64)
    rows = gather_rows(jnp.sum(rows, axis=1, dtype=wide), config.repeats)
    columns = gather_columns(jnp.sum(columns, axis=1, dtype=wide))
    return rows, columns, bins


def _check(
    x: jax.Array, y: jax.Array, gammas: jax.Array, families: tuple[Family, ...], bin_rows: int, precision: Product
) -> None:
    if not (x.ndim == y.ndim == 2 and x.shape[1] == y.shape[1] > 0 and x.dtype == y.dtype == jnp.float32):
        raise UsageError(
            f"tile: expected two float32 arrays (rows, d) with one d above 0, got {x.dtype} {x.shape} and "
            f"{y.dtype} {y.shape}; cast or reshape them"
        )
    for rows in (len(x), len(y)):
        if rows % BLOCK_MULTIPLE or not rows:
            raise UsageError(
                f"tile: expected blocks of a multiple of {BLOCK_MULTIPLE} rows, got {rows}; pad them with zeros"
            )
    if not families or gammas.shape != (len(families),):
        raise UsageError(
            f"kernels: expected one gamma for each of one or more families, got {len(families)} families and gammas of "
            f"shape {gammas.shape}; pass a gamma for each"
        )
    if bin_rows not in BIN_ROWS:
        raise UsageError(f"bin_rows: expected one of {', '.join(map(str, BIN_ROWS))}, got {bin_rows}; choose one")
    if precision not in get_args(Product):
        raise UsageError(f"precision: expected one of {', '.join(get_args(Product))}, got {precision!r}; choose one")


def _is_valid(z: jax.Array, valid: jax.Array | int) -> jax.Array:
    return jnp.arange(len(z)) < valid


def _masked(z: jax.Array, valid: jax.Array | int, width: int) -> jax.Array:
    z = jnp.where(_is_valid(z, valid)[:, None], z, jnp.zeros((), z.dtype))
    return jnp.pad(z, ((0, 0), (0, width - z.shape[1])))


def _split(z: jax.Array, terms: int) -> tuple[list[jax.Array], jax.Array]:
    """Return the terms of z, (N, width) each, and the squared norms (N,) of what they add up to."""
    # reduce_precision, because XLA may drop a cast to bf16 and back, and with it all terms but the first.
    parts, rest = list[jax.Array](), z
    for _ in range(terms):
        part = jax.lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7)
        parts.append(part)
        rest = rest - part
    taken = z - rest
    return [part.astype(jnp.bfloat16) for part in parts], jnp.sum(taken * taken, axis=1)
