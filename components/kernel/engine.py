"""The tile engine: one pass over the kernel matrices of a pooled sample, which are never stored.

For each tile of the symmetric half the engine sums every row and column, and every pair of bins; the latter, a much
smaller matrix, it multiplies by a panel of labellings S for sᵀKs. From these follow MMD², its permutation distribution
and every row's witness value (:mod:`driftline.components.mmd.statistic`). Many kernels share one pass, and one matrix
product for each tile. Time O(N²(d + Q)) and, for bins of c rows, O(N²QB/c²); memory O(block² Q), beside the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.kernel.functions import Kernel
from driftline.components.kernel.fused import Product
from driftline.components.kernel.labellings import LabelPanels
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.sums import PartialSums, SumAccumulator
from driftline.components.kernel.tiler import EXHAUSTED, Block, Precision, Sums, Tiler

Device: TypeAlias = Any  # a jax.Device, which JAX exports as a variable
Progress = Callable[[int, int], None]
Blocks = Callable[[int], NDArray[np.floating]]

FLOAT64_ROWS: Final = 8192
"""Up to this many pooled rows tiles are float64: it costs little, and float32 errors have few pairs to average over."""
FLOAT32_NORM: Final = 1e3
"""Above this squared norm in scaled coordinates, a squared distance taken as a difference of norms loses too many of
float32's digits."""
FUSED_PRODUCT: Final[Product] = "bf16x3"
"""How a GPU's fused kernel multiplies: for the sizes it is used at, MMD² moves by a few millionths of its deviation."""
_PANEL_CACHE_BYTES: Final = 256 << 20


def choose_precision(rows: int, kernels: Sequence[Kernel], largest_norm: float) -> Precision:
    """Return the tiles' dtype for a pooled sample: a symmetric function of it, so that the test stays exact.

    Args:
        rows: rows of the pooled sample.
        kernels: the kernels, whose scales decide what is large.
        largest_norm: largest Euclidean norm of a centred vector.
    """
    scaled = max(kernel.gamma for kernel in kernels) * largest_norm * largest_norm
    return "float64" if rows <= FLOAT64_ROWS or scaled > FLOAT32_NORM else "float32"


def sum_tiles(
    blocks: Blocks,
    tiles: NDArray[np.int32],
    grid: BlockGrid,
    kernels: Sequence[Kernel],
    panels: LabelPanels,
    *,
    precision: Precision,
    sums: SumAccumulator,
    progress: Progress | None = None,
) -> PartialSums:
    """Sum some tiles of the kernel matrices, on all devices that JAX has.

    Each tile is computed by one device, and sums are added on the host, in any order to the same bits: so many devices
    of a kind give what one gives.

    Args:
        blocks: gives the centred vectors of a block, (rows of the block, d).
        tiles: (k, 2) int32, pairs of blocks.
        grid: the grid that the tiles belong to.
        kernels: the kernels, at least one.
        panels: the labellings.
        precision: dtype of a tile. Sums over tiles are float64 in either case.
        sums: what the tiles' sums are added to (:func:`accumulator`); the first tiles, as many as it holds already,
            are left out.
        progress: called with (tiles done, tiles in all) after each tile has been added.

    Raises:
        DataError: vectors so large that their squared norms overflow.
        DriftlineError: a device whose memory does not hold the smallest pieces of a tile.
    """
    with jax.enable_x64(True):  # for float64 sums; the caller's own setting is untouched
        workers = [
            _Worker(device, blocks, grid, kernels, panels, precision)
            for device in jax.local_devices()[: max(1, len(tiles))]
        ]
        started: deque[_Started] = deque()

        def add() -> None:
            started.popleft().add_to(sums)
            if progress is not None:
                progress(sums.tiles, len(tiles))

        for turn, (i, j) in enumerate(tiles[sums.tiles :].tolist()):
            started.append(workers[turn % len(workers)].start(i, j))
            if len(started) > len(workers):  # a tile a device is computed while the sums of the one before are added
                add()
        while started:
            add()
    return sums.result()


def accumulator(
    tiles: NDArray[np.int32], grid: BlockGrid, kernels: Sequence[Kernel], permutations: int, largest_norm: float
) -> SumAccumulator:
    """Return what the sums of some tiles are added to.

    Args:
        tiles: (k, 2) int32, the tiles.
        grid: the grid that they belong to.
        kernels: the kernels.
        permutations: B.
        largest_norm: no vector of the pooled sample is longer than this; it bounds the sums.
    """
    bounds = [kernel.bound(largest_norm) for kernel in kernels]
    return SumAccumulator(grid, np.unique(tiles).astype(np.int32), permutations, bounds)


class _Worker:
    """One device, and the blocks that lie on it."""

    def __init__(
        self,
        device: Device,
        blocks: Blocks,
        grid: BlockGrid,
        kernels: Sequence[Kernel],
        panels: LabelPanels,
        precision: Precision,
    ) -> None:
        self._device = device
        self._blocks = blocks
        self._grid = grid
        self._panels = panels
        self._precision: Precision = precision
        # In these coordinates the narrowest kernel has γ = 1: what float32 can hold does not depend on the data's unit.
        self._unit = max(kernel.gamma for kernel in kernels)
        fused = FUSED_PRODUCT if device.platform == "gpu" else None
        self.tiler = Tiler(kernels, self._unit, grid.block, panels.bins.rows, precision, fused)
        self._vectors = cache(self._load)
        panel_bytes = (grid.block // panels.bins.rows) * (1 + panels.permutations)
        self._labels = lru_cache(maxsize=max(2, _PANEL_CACHE_BYTES // panel_bytes))(self._label)

    def start(self, i: int, j: int) -> _Started:
        """Start on tile (i, j)."""
        try:
            return _Started(self, i, j, self._sums(i, j))
        except jax.errors.JaxRuntimeError as error:
            return _Started(self, i, j, self._again(i, j, error))

    def finished(self, i: int, j: int, sums: Sums) -> list[NDArray[np.float64]]:
        """Wait for a tile's sums; where the device ran out of memory, take smaller pieces."""
        while True:
            try:
                return [np.asarray(part) for part in sums]
            except jax.errors.JaxRuntimeError as error:
                sums = self._again(i, j, error)

    def _again(self, i: int, j: int, error: Exception) -> Sums:
        while True:
            if EXHAUSTED not in str(error):
                raise error
            self.tiler.shrink(error)
            try:
                return jax.block_until_ready(self._sums(i, j))
            except jax.errors.JaxRuntimeError as again:
                error = again

    def _sums(self, i: int, j: int) -> Sums:
        return self.tiler.sums(self._block(i), self._block(j), diagonal=i == j)

    def _block(self, index: int) -> Block:
        vectors, rows = self._vectors(index)
        return Block(vectors, rows, self._labels(index))

    def _load(self, index: int) -> tuple[jax.Array, int]:
        scaled = _scaled(self._blocks(index), self._unit, self._precision)
        padded = np.zeros((self._grid.block, scaled.shape[1]), self._precision)
        padded[: len(scaled)] = scaled
        return jax.device_put(padded, self._device), len(scaled)

    def _label(self, index: int) -> jax.Array:
        with jax.default_device(self._device):
            return jax.device_put(self._panels.panel(index), self._device)


@dataclass(frozen=True, slots=True)
class _Started:
    """A tile that a device is working on."""

    worker: _Worker
    i: int
    j: int
    sums: Sums

    def add_to(self, sums: SumAccumulator) -> None:
        rows, columns, within = self.worker.finished(self.i, self.j, self.sums)
        sums.add_rows(self.i, self.j, rows)
        if self.i != self.j:
            sums.add_rows(self.j, self.i, columns)
        sums.add_within(within)


def _scaled(z: NDArray[np.floating], gamma: float, precision: Precision) -> NDArray[np.floating]:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.sqrt(gamma) * np.asarray(z, np.float64)
        largest = float(np.max(np.einsum("ij,ij->i", scaled, scaled), initial=0.0))
    if not largest < float(np.finfo(precision).max) / 8:
        raise DataError(
            f"vectors: values too large for {precision} (largest scaled squared norm {largest:g}); "
            "rescale the embeddings"
        )
    return scaled.astype(precision)


def array_blocks(z: NDArray[np.floating], grid: BlockGrid) -> Blocks:
    """Return the blocks of an array (N, d) held in memory, as :func:`sum_tiles` takes them."""

    def block(index: int) -> NDArray[np.floating]:
        start, stop = grid.span(index)
        return z[start:stop]

    return block
