"""The tile engine: one pass over the kernel matrix of a pooled sample, which is never stored.

For each tile K_ij of the symmetric half the engine multiplies by a panel of labellings S, and keeps sᵀKs for every
labelling and two row sums, K·1 and K·s₀. From these follow MMD², its permutation distribution and every row's witness
value (:mod:`driftline.components.mmd.statistic`). Time O(N²(d + B)); memory O(block² + block · B), beside the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.kernel.functions import Kernel
from driftline.components.kernel.labellings import LabelPanels
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import PartialSums, SumAccumulator

Precision = Literal["float32", "float64"]
Progress = Callable[[int, int], None]
TileFunction = Callable[[jax.Array, jax.Array], jax.Array]
TileSums = tuple[jax.Array, jax.Array, jax.Array]

FLOAT64_ROWS: Final = 8192
"""Up to this many pooled rows tiles are float64: it costs little, and float32 errors have few pairs to average over."""
FLOAT32_NORM: Final = 1e3
"""Above this squared norm in scaled coordinates, a squared distance taken as a difference of norms loses too many of
float32's digits."""
_PANEL_CACHE_BYTES: Final = 256 << 20


def choose_precision(rows: int, kernel: Kernel, largest_norm: float) -> Precision:
    """Return the tiles' dtype for a pooled sample: a symmetric function of it, so that the test stays exact.

    Args:
        rows: rows of the pooled sample.
        kernel: the kernel, whose scale decides what is large.
        largest_norm: largest Euclidean norm of a centred vector.
    """
    scaled = float(kernel.scale(np.full((1, 1), largest_norm))[0, 0])
    return "float64" if rows <= FLOAT64_ROWS or scaled**2 > FLOAT32_NORM else "float32"


def sum_tiles(
    blocks: Callable[[int], NDArray[np.floating]],
    tiles: NDArray[np.int32],
    grid: BlockGrid,
    kernel: Kernel,
    panels: LabelPanels,
    permutations: int,
    *,
    precision: Precision,
    progress: Progress | None = None,
) -> PartialSums:
    """Sum some tiles of the kernel matrix.

    Args:
        blocks: gives the centred vectors of a block, (rows of the block, d).
        tiles: (k, 2) int32, pairs of blocks i ≤ j.
        grid: the grid that the tiles belong to.
        kernel: the kernel, which scales the vectors.
        panels: the labellings.
        permutations: B, the columns of a panel less two.
        precision: dtype of a tile. Sums over tiles are float64 in either case.
        progress: called with (tiles done, tiles in all) after each tile.

    Raises:
        DataError: vectors so large that their squared norms overflow.
    """
    touched = np.unique(tiles).astype(np.int32)
    sums = SumAccumulator(grid, touched, permutations, kernel.bound)
    with jax.enable_x64(True):  # for float64 sums; the caller's own setting is untouched

        def load(index: int) -> jax.Array:
            scaled = _scaled(blocks(index), kernel, precision)
            padded = np.zeros((grid.block, scaled.shape[1]), precision)
            padded[: len(scaled)] = scaled
            return jnp.asarray(padded)

        data = {int(index): load(int(index)) for index in touched}
        panel_bytes = grid.block * (permutations + 2)
        panel = lru_cache(maxsize=max(2, _PANEL_CACHE_BYTES // panel_bytes))(panels.panel)
        started: deque[tuple[int, int, TileSums]] = deque()
        for done, (i, j) in enumerate(tiles.tolist(), start=1):
            tile_sums = _diagonal_tile if i == j else _tile
            started.append((i, j, tile_sums(data[i], data[j], panel(i), panel(j), tile=kernel.tile)))
            if len(started) > 1:  # one tile is computed while the sums of the one before are added
                _add(sums, *started.popleft())
            if progress is not None:
                progress(done, len(tiles))
        for tile in started:
            _add(sums, *tile)
    return sums.result()


def _add(sums: SumAccumulator, i: int, j: int, tile: TileSums) -> None:
    rows, columns, within = (np.asarray(part) for part in tile)
    sums.add_rows(i, rows)
    if i != j:
        sums.add_rows(j, columns.T)
    sums.add_within(within)


def _scaled(z: NDArray[np.floating], kernel: Kernel, precision: Precision) -> NDArray[np.floating]:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = kernel.scale(np.asarray(z, np.float64))
        largest = float(np.max(np.einsum("ij,ij->i", scaled, scaled), initial=0.0))
    if not largest < float(np.finfo(precision).max) / 8:
        raise DataError(
            f"vectors: values too large for {precision} (largest scaled squared norm {largest:g}); "
            "rescale the embeddings"
        )
    return scaled.astype(precision)


@partial(jax.jit, static_argnames=("tile",))
def _tile(x: jax.Array, y: jax.Array, panel_x: jax.Array, panel_y: jax.Array, *, tile: TileFunction) -> TileSums:
    """Return a tile's row sums (block, 2), column sums (2, block), and twice its sᵀKs (1 + B,), all float64."""
    k = tile(x, y)
    rows, within = _times_panel(k, panel_x, panel_y)
    # Contracted over the first axes as they lie: on a CPU, to transpose the tile would cost as much as to compute it.
    both = panel_x[:, :2].astype(k.dtype)
    columns = jax.lax.dot_general(both, k, (((0,), (0,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
    return rows, columns.astype(jnp.float64), 2 * within  # the tile stands for (j, i) too


@partial(jax.jit, static_argnames=("tile",))
def _diagonal_tile(
    x: jax.Array, y: jax.Array, panel_x: jax.Array, panel_y: jax.Array, *, tile: TileFunction
) -> TileSums:
    """Return the same for a tile on the diagonal, its own diagonal set to 0; there are no columns to add."""
    k = tile(x, y)
    k = jnp.where(jnp.eye(len(k), dtype=bool), jnp.zeros((), k.dtype), k)
    rows, within = _times_panel(k, panel_x, panel_y)
    return rows, jnp.zeros((2, 0), jnp.float64), within


def _times_panel(k: jax.Array, panel_x: jax.Array, panel_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    product = jnp.matmul(k, panel_y.astype(k.dtype), precision=jax.lax.Precision.HIGHEST).astype(jnp.float64)
    within = jnp.sum(jnp.where(panel_x[:, 1:] != 0, product[:, 1:], 0.0), axis=0)
    return product[:, :2], within


def array_blocks(z: NDArray[np.floating], grid: BlockGrid) -> Callable[[int], NDArray[np.floating]]:
    """Return the blocks of an array (N, d) held in memory, as :func:`sum_tiles` takes them."""

    def block(index: int) -> NDArray[np.floating]:
        start, stop = grid.span(index)
        return z[start:stop]

    return block
