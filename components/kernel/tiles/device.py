"""Tiles on one device of JAX's: by XLA in pieces that its memory holds, or whole by the Pallas kernel.

The Pallas kernel is experimental: it has not been measured on a GPU. At its first use on a device it is compared with
XLA on a piece of the first tile, and takes XLA's place there only if its sums agree and it is faster. The log tells
which of the two sums the tiles, and why.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import jax
import jax.numpy as jnp
import numpy as np

from driftline.components.errors import DriftlineError, one_line
from driftline.components.kernel.theory.families import Family, Kernel
from driftline.components.kernel.tiles.gpu_pallas import BIN_ROWS, BLOCK_MULTIPLE, Product, pallas_tile
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
AGREEMENT: Final = 1e-3
"""Bound on the difference between the Pallas kernel's sums and XLA's, as a share of a kernel's largest sum: some twenty
times the error of ``bf16x3`` on vectors of usual length. A wrong kernel is off by far more."""
_TIMED_RUNS: Final = 3

_LOGGER: Final = logging.getLogger("driftline")


@dataclass(frozen=True, slots=True)
class DeviceBlock:
    """One block of vectors on a device.

    Attributes:
        vectors: (block, d) centred vectors, zeros past the end of the sample.
        rows: how many of them are there.
        labels: (block / bin_rows, 1 + B) int8, the labels of its bins.
    """

    vectors: jax.Array
    rows: int
    labels: jax.Array


class DeviceTiles:
    """Sums tiles of Q kernels on one device.

    Args:
        kernels: the kernels.
        unit: γ of the coordinates: a kernel's γ counts relative to it.
        block: rows of a block.
        bin_rows: rows of a bin.
        precision: dtype of vectors and tiles.
        pallas: how the Pallas kernel multiplies, where it may take XLA's place; None for XLA alone.

    Attributes:
        computed_by: ``"xla"`` or ``"pallas"``, whichever sums the tiles; empty before the first.
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        unit: float,
        block: int,
        bin_rows: int,
        precision: Precision,
        pallas: Product | None = None,
    ) -> None:
        self._families = tuple(kernel.family for kernel in kernels)
        self._gammas = np.array([kernel.gamma / unit for kernel in kernels], precision)
        self._block = block
        self._bin_rows = bin_rows
        fits = bin_rows in BIN_ROWS and block % BLOCK_MULTIPLE == 0 and precision == "float32"
        self._pallas = pallas if fits else None
        self._xla_piece = min(block, PIECE_ROWS if len(kernels) == 1 else PIECE_ROWS_OF_MANY)
        self._piece = self._xla_piece
        self.computed_by = ""

    def sums(self, x: DeviceBlock, y: DeviceBlock, *, diagonal: bool) -> Sums:
        """Start on a tile; return sums of its rows (Q, block), its columns (Q, block), and its part of sᵀKs (Q, 1 + B).

        All are float64, and not waited for. Of a tile on the diagonal the columns' sums mean nothing: each pair is in
        the rows' sums of both its rows.
        """
        if not self.computed_by:
            self.computed_by = "pallas" if self._pallas is not None and self._prefers_pallas(x, y, diagonal) else "xla"
            self._piece = self._block if self.computed_by == "pallas" else self._xla_piece
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
        if self.computed_by == "pallas":
            return self._by_pallas(*common, diagonal=own)
        return self._by_xla(*common, own)

    @property
    def _by_xla(self) -> Callable[..., Sums]:
        return partial(_xla_sums, families=self._families, bin_rows=self._bin_rows)

    @property
    def _by_pallas(self) -> Callable[..., Sums]:
        return partial(_pallas_sums, families=self._families, bin_rows=self._bin_rows, precision=self._pallas)

    def _prefers_pallas(self, x: DeviceBlock, y: DeviceBlock, diagonal: bool) -> bool:
        """Compare the Pallas kernel with XLA on a piece of a tile; return whether it agrees and is faster."""
        rows = min(self._block, PIECE_ROWS)
        bins = rows // self._bin_rows
        piece = (
            x.vectors[:rows], y.vectors[:rows], self._gammas, min(x.rows, rows), min(y.rows, rows),
            x.labels[:bins], y.labels[:bins],
        )  # fmt: skip
        xla, pallas = partial(self._by_xla, *piece, diagonal), partial(self._by_pallas, *piece, diagonal=diagonal)
        expected = jax.block_until_ready(xla())
        try:
            difference = _difference(jax.block_until_ready(pallas()), expected, diagonal=diagonal)
            seconds = _seconds(pallas)
        except Exception as error:  # noqa: BLE001 - it is experimental and may fail in any way; XLA takes its place
            _LOGGER.warning("kernel: XLA sums the tiles: the Pallas kernel failed (%s)", one_line(error))
            return False
        if not difference <= AGREEMENT:  # so that NaN is a disagreement, too
            _LOGGER.warning(
                "kernel: XLA sums the tiles: the Pallas kernel's sums differ by %.2g, above %g", difference, AGREEMENT
            )
            return False
        xla_seconds = _seconds(xla)
        faster = seconds < xla_seconds
        _LOGGER.info(
            "kernel: %s sums the tiles: %.3g s a piece by the Pallas kernel, %.3g s by XLA; the sums differ by %.2g",
            "the Pallas kernel" if faster else "XLA", seconds, xla_seconds, difference,
        )  # fmt: skip
        return faster

    def _valid(self, block: DeviceBlock, piece: int) -> int:
        return min(max(block.rows - piece * self._piece, 0), self._piece)

    def _part(self, array: jax.Array, piece: int) -> jax.Array:
        rows = len(array) * self._piece // self._block
        return array if rows == len(array) else array[piece * rows : (piece + 1) * rows]

    def shrink(self, error: Exception) -> None:
        """Go on with pieces of half the size after the device ran out of memory.

        Raises:
            DriftlineError: pieces are as small as they get.
        """
        half = min(self._piece // 2, self._xla_piece)
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
        self._piece = self._xla_piece = half
        self._pallas, self.computed_by = None, "xla"


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
def _pallas_sums(
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
    rows, columns, bins = pallas_tile(
        x, y, gammas, valid_x, valid_y, families=families, bin_rows=bin_rows, diagonal=diagonal, precision=precision
    )
    return rows, columns, _within(bins, labels_x, labels_y, 1.0 if diagonal else 2.0)


def _difference(sums: Sums, expected: Sums, *, diagonal: bool) -> float:
    """Return the largest difference between two tiles' sums, as a share of each kernel's largest."""
    parts = [0, 2] if diagonal else [0, 1, 2]  # the columns' sums mean nothing on the diagonal
    found, wanted = ([np.asarray(part) for part in each] for each in (sums, expected))
    largest = [np.abs(wanted[part]).max(axis=1).clip(np.finfo(np.float64).tiny) for part in parts]
    shares = [np.abs(found[p] - wanted[p]).max(axis=1) / most for p, most in zip(parts, largest, strict=True)]
    return float(np.max(shares))


def _seconds(run: Callable[[], Sums]) -> float:
    """Return the shortest of a few runs' seconds, of what has been compiled before."""
    taken: list[float] = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - start)
    return min(taken)


def _within(bins: jax.Array, labels_x: jax.Array, labels_y: jax.Array, times: jax.Array | float) -> jax.Array:
    """Return sᵀKs of a piece for each permutation, (Q, 1 + B); one off the diagonal stands for its mirror image too.

    In float64: MMD² is a small difference of these sums. Where tiles are float32, bins are few and it costs little.
    """
    product = jnp.matmul(bins.astype(jnp.float64), labels_y.astype(jnp.float64))
    return times * jnp.sum(jnp.where(labels_x != 0, product, 0.0), axis=1)
