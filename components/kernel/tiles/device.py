"""Tiles on one device: whole where the fused kernel can, else in pieces that its memory holds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import jax
import jax.numpy as jnp
import numpy as np

from driftline.components.errors import DriftlineError
from driftline.components.kernel.theory.families import Family, Kernel
from driftline.components.kernel.tiles.gpu_pallas import BIN_ROWS, BLOCK_MULTIPLE, Product, fused_tile
from driftline.components.kernel.tiles.xla import xla_tile

Precision = Literal["float32", "float64"]
Sums = tuple[jax.Array, jax.Array, jax.Array]

PIECE_ROWS: Final = 2048
"""XLA stores a piece's distances and kernel values, 16 MB each of float32. Up to 32 MB it gets memory again that it
had, beyond that new pages for every piece, which cost more than the piece's sums; so:"""
PIECE_ROWS_OF_MANY: Final = 1024
"""Rows of a piece for more than one kernel."""
LEAST_PIECE_ROWS: Final = 128
EXHAUSTED: Final = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class Block:
    """One block of vectors on a device.

    Attributes:
        vectors: (block, d) centred vectors, zeros past the end of the sample.
        rows: how many of them are there.
        labels: (block / bin_rows, 1 + B) int8, the labels of its bins.
    """

    vectors: jax.Array
    rows: int
    labels: jax.Array


class Tiler:
    """Sums tiles of Q kernels on one device.

    Args:
        kernels: the kernels.
        unit: γ of the coordinates: a kernel's γ counts relative to it.
        block: rows of a block.
        bin_rows: rows of a bin.
        precision: dtype of vectors and tiles.
        fused: how the fused kernel takes its product, or None to leave tiles to XLA.
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        unit: float,
        block: int,
        bin_rows: int,
        precision: Precision,
        fused: Product | None = None,
    ) -> None:
        self._families = tuple(kernel.family for kernel in kernels)
        self._gammas = np.array([kernel.gamma / unit for kernel in kernels], precision)
        self._block = block
        self._bin_rows = bin_rows
        fits = bin_rows in BIN_ROWS and block % BLOCK_MULTIPLE == 0 and precision == "float32"
        self._fused = fused if fits else None
        largest = PIECE_ROWS if len(kernels) == 1 else PIECE_ROWS_OF_MANY
        self._piece = block if self._fused is not None else min(block, largest)

    def sums(self, x: Block, y: Block, *, diagonal: bool) -> Sums:
        """Start on a tile; return sums of its rows (Q, block), its columns (Q, block), and its part of sᵀKs (Q, 1 + B).

        All are float64, and not waited for. Of a tile on the diagonal the columns' sums mean nothing: each pair is in
        the rows' sums of both its rows.
        """
        if self._piece == self._block:
            return self._summed(x.vectors, y.vectors, x.rows, y.rows, x.labels, y.labels, diagonal)
        columns = [jnp.zeros((len(self._families), self._piece))] * (self._block // self._piece)
        rows = list(columns)
        within = jnp.zeros((len(self._families), x.labels.shape[1]))
        for a in range(len(rows)):
            for b in range(a if diagonal else 0, len(columns)):
                valid_x, valid_y = self._valid(x, a), self._valid(y, b)
                if not (valid_x and valid_y):
                    continue
                own = diagonal and a == b
                row, column, part = self._summed(
                    self._part(x.vectors, a), self._part(y.vectors, b), valid_x, valid_y,
                    self._part(x.labels, a), self._part(y.labels, b), own,
                )  # fmt: skip
                rows[a] = rows[a] + row
                within = within + part
                if diagonal and not own:
                    rows[b] = rows[b] + column
                elif not diagonal:
                    columns[b] = columns[b] + column
        return jnp.concatenate(rows, axis=1), jnp.concatenate(columns, axis=1), within

    def _summed(
        self,
        x: jax.Array,
        y: jax.Array,
        valid_x: int,
        valid_y: int,
        labels_x: jax.Array,
        labels_y: jax.Array,
        own: bool,
    ) -> Sums:
        common = x, y, self._gammas, valid_x, valid_y, labels_x, labels_y
        if self._fused is not None:
            return _fused_sums(
                *common, families=self._families, bin_rows=self._bin_rows, diagonal=own, precision=self._fused
            )
        return _xla_sums(*common, own, families=self._families, bin_rows=self._bin_rows)

    def _valid(self, block: Block, piece: int) -> int:
        return min(max(block.rows - piece * self._piece, 0), self._piece)

    def _part(self, array: jax.Array, piece: int) -> jax.Array:
        rows = len(array) * self._piece // self._block
        return array if rows == len(array) else array[piece * rows : (piece + 1) * rows]

    def shrink(self, error: Exception) -> None:
        """Go on with pieces of half the size after the device ran out of memory.

        Raises:
            DriftlineError: pieces are as small as they get.
        """
        half = self._piece // 2
        if half < LEAST_PIECE_ROWS or self._block % half or half % self._bin_rows:
            raise DriftlineError(
                f"kernel: the device has not the memory for a tile's pieces of {self._piece} rows with "
                f"{len(self._families)} kernels; use one with more, free what else it holds, or more tasks"
            ) from error
        warnings.warn(
            f"the device ran out of memory with pieces of {self._piece} rows; going on with {half}, slower, and equal "
            "to other runs but for rounding",
            RuntimeWarning,
            stacklevel=3,
        )
        self._piece, self._fused = half, None


@partial(jax.jit, static_argnames=("families", "bin_rows"))
def _xla_sums(
    x: jax.Array,
    y: jax.Array,
    gammas: jax.Array,
    valid_x: jax.Array,
    valid_y: jax.Array,
    labels_x: jax.Array,
    labels_y: jax.Array,
    diagonal: jax.Array,
    *,
    families: tuple[Family, ...],
    bin_rows: int,
) -> Sums:
    rows, columns, bins = xla_tile(x, y, gammas, valid_x, valid_y, diagonal, families=families, bin_rows=bin_rows)
    return rows, columns, _within(bins, labels_x, labels_y, jnp.where(diagonal, 1.0, 2.0))


@partial(jax.jit, static_argnames=("families", "bin_rows", "diagonal", "precision"))
def _fused_sums(
    x: jax.Array,
    y: jax.Array,
    gammas: jax.Array,
    valid_x: jax.Array,
    valid_y: jax.Array,
    labels_x: jax.Array,
    labels_y: jax.Array,
    *,
    families: tuple[Family, ...],
    bin_rows: int,
    diagonal: bool,
    precision: Product,
) -> Sums:
    rows, columns, bins = fused_tile(
        x, y, gammas, valid_x, valid_y, families=families, bin_rows=bin_rows, diagonal=diagonal, precision=precision
    )
    return rows, columns, _within(bins, labels_x, labels_y, 1.0 if diagonal else 2.0)


def _within(bins: jax.Array, labels_x: jax.Array, labels_y: jax.Array, times: jax.Array | float) -> jax.Array:
    """Return sᵀKs of a piece for each labelling, (Q, 1 + B); one off the diagonal stands for its mirror image too.

    In float64: MMD² is a small difference of these sums. Where tiles are float32, bins are few and it costs little.
    """
    product = jnp.matmul(bins.astype(jnp.float64), labels_y.astype(jnp.float64))
    return times * jnp.sum(jnp.where(labels_x != 0, product, 0.0), axis=1)
