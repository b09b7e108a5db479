"""One program of the Pallas kernel (:mod:`driftline.components.kernel.tiles.gpu_pallas`): a strip of sub-tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from driftline.components.kernel.theory.families import Family, ScalarFunction

WARPS: Final = 4
_COLUMNS: Final = 64  # of a sub-tile
_CELL: Final = 8
STRIP: Final = 1024  # columns that a program goes through
_WHOLE: Final = 64  # up to this many components a product is taken in one go, beyond it in pieces

_LOG2_E: Final = 1 / math.log(2)

# A GPU has an instruction for 2^v but none for e^u, which costs five more. For these families γ (√γ) is multiplied by a
# factor, and f is written in terms of 2^v: the same function, to float32's rounding of v. A family that is not
# here runs with its own f.
_QUICKER: Final[dict[str, tuple[float, Callable[[ScalarFunction, jax.Array], jax.Array]]]] = {
    "rbf": (-_LOG2_E, lambda power_of_two, v: power_of_two(v)),
    "laplace-l2": (_LOG2_E**2, lambda power_of_two, v: power_of_two(-jnp.sqrt(v))),
    "laplace-l1": (-_LOG2_E, lambda power_of_two, v: power_of_two(v)),
}


@dataclass(frozen=True, slots=True)
class PallasConfig:
    """The static configuration of a tile, for which its kernel is compiled.

    Attributes:
        families: the kernels' families.
        terms: terms that a vector is split into for products, 0 where no kernel asks for one.
        d: components of a vector.
        strip: columns that a program goes through.
        bin_rows: rows and columns of a bin.
        diagonal: whether entries i == j are 0.
        interpret: whether it runs in the interpreter, which knows no GPU instruction.
    """

    families: tuple[Family, ...]
    terms: int
    d: int
    strip: int
    bin_rows: int
    diagonal: bool
    interpret: bool

    @property
    def wants_manhattan(self) -> bool:
        """Whether there is a kernel of the L1 distance."""
        return any(family.argument == "manhattan" for family in self.families)

    @property
    def repeats(self) -> int:
        """Sub-tile rows, as a multiple of 64: as many as leave registers and shared memory for the rest.

        A thread holds half a row's values for each 64 rows. Two programs of 97 KiB fit on an H100's multiprocessor.
        """
        return 4 if len(self.families) == 1 and self.terms <= 2 and self.d <= _WHOLE else 2

    @property
    def rows(self) -> int:
        """Rows of a sub-tile: each warp holds 16 of every 64."""
        return 16 * WARPS * self.repeats

    @property
    def group(self) -> int:
        """Rows of a sub-tile in one thread's registers."""
        return 2 * self.repeats

    @property
    def piece(self) -> int:
        """Components that are multiplied in one go: with two stages of loads, in 97 KiB of shared memory at most."""
        if self.d <= _WHOLE:
            return max(16, 1 << (self.d - 1).bit_length())
        return 32 if self.terms > 2 else 64

    @property
    def width(self) -> int:
        """Components of a vector padded to whole pieces."""
        return -(-self.d // self.piece) * self.piece

    def factor(self, family: Family) -> float:
        """Return what γ, or √γ for an L1 distance, is multiplied by outside the kernel."""
        return _QUICKER[family.name][0] if family.name in _QUICKER else 1.0

    def value(self, family: Family, scaled: jax.Array) -> jax.Array:
        """Return f(u) from u times the factor of :meth:`factor`."""
        if family.name not in _QUICKER:
            return family.function(scaled)
        return _QUICKER[family.name][1](jnp.exp2 if self.interpret else _power_of_two, scaled)

    def hides_padding(self, family: Family) -> bool:
        """Return whether the family is 0 at padding rows by itself: their squared norms are infinite, their vectors 0.

        Not so one of the L1 distance, which for a vector of 0 is as good as any other.
        """
        if family.argument == "manhattan":
            return False
        with jax.ensure_compile_time_eval():
            value = family.function(jnp.asarray(np.inf if family.argument == "distance" else 0.0, jnp.float32))
            return bool(value == 0)


def _power_of_two(v: jax.Array) -> jax.Array:
    """Return 2^v by the one instruction: within 2⁻²², and 0 below 2⁻¹²⁶, where jnp.exp2 spends three more."""
    [result] = plgpu.elementwise_inline_asm(
        "ex2.approx.ftz.f32 $0, $1;",
        args=[v],
        constraints="=f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(v.shape, v.dtype)],
    )
    return result


def deal_rows(z: jax.Array, repeats: int) -> jax.Array:
    """Return z (N, …) with the rows of each sub-tile where the kernel takes them.

    Row ((warp·8 + lane)·repeats + repeat)·2 + half is dealt to place ((repeat·warps + warp)·2 + half)·8 + lane, so
    that consecutive rows are those that the tensor cores leave in one thread's registers.
    """
    parts = z.reshape(-1, WARPS, 8, repeats, 2, *z.shape[1:])
    return parts.transpose(0, 3, 1, 4, 2, *range(5, parts.ndim)).reshape(z.shape)


def gather_rows(sums: jax.Array, repeats: int) -> jax.Array:
    """Return (Q, N) sums by place in the order of the rows: what :func:`deal_rows` did, undone."""
    parts = sums.reshape(len(sums), -1, repeats, WARPS, 2, 8)
    return parts.transpose(0, 1, 3, 5, 2, 4).reshape(sums.shape)


def deal_columns(z: jax.Array) -> jax.Array:
    """Return z (N, …) with column cell·8 + member of each 64 at place member·8 + cell, for the same reason."""
    return z.reshape(-1, _CELL, _CELL, *z.shape[1:]).swapaxes(1, 2).reshape(z.shape)


def gather_columns(sums: jax.Array) -> jax.Array:
    """Return (Q, N) sums by place in the order of the columns."""
    return sums.reshape(len(sums), -1, _CELL, _CELL).swapaxes(2, 3).reshape(sums.shape)


def _row_numbers(repeats: int) -> jax.Array:
    place = jax.lax.broadcasted_iota(jnp.int32, (16 * WARPS * repeats, 1), 0)
    lane, half = place & 7, (place >> 3) & 1
    warp, repeat = (place >> 4) & (WARPS - 1), place >> (3 + WARPS.bit_length())
    return ((warp * 8 + lane) * repeats + repeat) * 2 + half


def _column_numbers() -> jax.Array:
    place = jax.lax.broadcasted_iota(jnp.int32, (1, _COLUMNS), 1)
    return (place & 7) * _CELL + (place >> 3)


def program(
    x_refs: Sequence[Any],
    y_refs: Sequence[Any],
    coordinates: Sequence[Any],
    x_norms_ref: Any,
    y_norms_ref: Any,
    factors_ref: Any,
    valid_ref: Any,
    rows_ref: Any,
    columns_ref: Any,
    bins_ref: Any,
    *,
    config: PallasConfig,
) -> None:
    """Go through a strip of sub-tiles: ``config.rows`` rows, and ``config.strip`` columns, 64 at a time."""
    first_row, first_column = pl.program_id(0) * config.rows, pl.program_id(1) * config.strip
    whole = [ref[...] for ref in x_refs] if config.piece == config.width else None
    x_norms = x_norms_ref[...]

    def visit(step: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        here = pl.ds(step * _COLUMNS, _COLUMNS)
        arguments: dict[str, jax.Array] = {}
        if config.terms:
            product = _product(whole, x_refs, y_refs, here, config)
            squared = (x_norms[:, None] + y_norms_ref[here][None, :]) - 2 * product
            arguments |= {"product": product, "distance": jnp.maximum(squared, 0)}
        if config.wants_manhattan:
            arguments["manhattan"] = _manhattan(coordinates, here, config)
        row, column = first_row + _row_numbers(config.repeats), first_column + step * _COLUMNS + _column_numbers()
        grown = list[jax.Array]()
        for q, family in enumerate(config.families):
            k = config.value(family, factors_ref[q] * arguments[family.argument])
            if not config.hides_padding(family):
                k = jnp.where((row < valid_ref[0]) & (column < valid_ref[1]), k, 0)
            if config.diagonal:
                k = jnp.where(row == column, 0, k)
            grown.append(sums[q] + jnp.sum(k, axis=1))
            # Over the rows in one thread's registers, and only then over those of a warp.
            groups = jnp.sum(k.reshape(config.repeats, WARPS, 2, 8, _COLUMNS), axis=2)
            groups = jnp.sum(groups, axis=0)
            columns_ref[q, :, here] = jnp.sum(groups, axis=1)
            bins = _COLUMNS // config.bin_rows
            bins_ref[q, :, pl.ds(step * bins, bins)] = _bins(groups, config)
        return tuple(grown)

    zeros = (jnp.zeros((config.rows,), jnp.float32),) * len(config.families)
    sums = jax.lax.fori_loop(np.int32(0), np.int32(config.strip // _COLUMNS), visit, zeros)
    for q in range(len(config.families)):
        rows_ref[q, :] = sums[q]


def _product(
    whole: list[jax.Array] | None, x_refs: Sequence[Any], y_refs: Sequence[Any], here: Any, config: PallasConfig
) -> jax.Array:
    """Return x·yᵀ of a sub-tile, (rows, 64) float32; ``whole``, where given, is all of x's terms."""
    zeros = jnp.zeros((config.rows, _COLUMNS), jnp.float32)
    if whole is not None:
        return _add_products(zeros, whole, [ref[here, :] for ref in y_refs])

    def add(piece: jax.Array, product: jax.Array) -> jax.Array:
        along = pl.ds(piece * config.piece, config.piece)
        return _add_products(product, [ref[:, along] for ref in x_refs], [ref[here, along] for ref in y_refs])

    return jax.lax.fori_loop(np.int32(0), np.int32(config.width // config.piece), add, zeros)


def _add_products(total: jax.Array, x: list[jax.Array], y: list[jax.Array]) -> jax.Array:
    highest = len(x) - 1
    for order in range(highest, -1, -1):  # the smallest first
        for a in range(order + 1):
            total = total + jax.lax.dot_general(
                x[a],
                y[order - a],
                (((1,), (1,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
    return total


def _manhattan(coordinates: Sequence[Any], here: Any, config: PallasConfig) -> jax.Array:
    """Return the L1 distances of a sub-tile, (rows, 64) float32, of vectors of float32 with coordinates first."""
    x_ref, y_ref = coordinates

    def add(k: jax.Array, total: jax.Array) -> jax.Array:
        return total + jnp.abs(x_ref[k, :][:, None] - y_ref[k, here][None, :])

    return jax.lax.fori_loop(np.int32(0), np.int32(config.d), add, jnp.zeros((config.rows, _COLUMNS), jnp.float32))


def _bins(groups: jax.Array, config: PallasConfig) -> jax.Array:
    """Sum (warps, 8, 64) sums over groups of consecutive rows into bins, (rows / c, 64 / c)."""
    count = 8 * WARPS
    cells = jnp.sum(groups.reshape(count, _CELL, _COLUMNS // _CELL), axis=1)
    down, across = config.bin_rows // config.group, config.bin_rows // _CELL
    if across > 1:
        cells = jnp.sum(cells.reshape(count, -1, across), axis=2)
    if down > 1:
        cells = jnp.sum(cells.reshape(-1, down, cells.shape[1]), axis=1)
    return cells
