"""The tile engine: one pass over the kernel matrices of a pooled sample, which are never stored.

For each tile of the symmetric half the engine sums every row and column, and every pair of bins. The sums over pairs of
bins, a much smaller matrix, are multiplied by a panel of labels S, a column for each permutation, for sᵀKs. From these
follow MMD², its permutation distribution and every row's witness value (:mod:`driftline.components.mmd.statistic`).
Many kernels share one pass, one matrix product for each tile, and one sum of differences where there are kernels of the
L1 distance. Time O(N²(d + Q)) and, for bins of c rows, O(N²QB/c²); memory O(block² Q), beside the data.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import cycle
from typing import Any, Final, Protocol, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.tiles.cpu import CpuBlock, CpuTiles, HostSums
from driftline.components.kernel.tiles.cpu_functions import is_known
from driftline.components.kernel.tiles.device import EXHAUSTED, DeviceBlock, DeviceTiles, Precision, Sums
from driftline.components.kernel.tiles.gpu_pallas import Product
from driftline.components.kernel.tiles.grid import BlockGrid, Blocks
from driftline.components.kernel.tiles.label_panels import LabelPanels
from driftline.components.kernel.tiles.sums import PartialSums, SumAccumulator

Device: TypeAlias = Any  # a jax.Device, which JAX exports as a variable
Finish = Callable[[], HostSums]
"""Waits for a tile's sums: of its rows (Q, block), of its columns (Q, block), and its part of sᵀKs (Q, 1 + B)."""
Progress = Callable[[int, int], None]

PALLAS_PRODUCT: Final[Product] = "bf16x3"
"""The Pallas kernel's way to multiply: for the sizes it is used at, MMD² moves by a few millionths of its deviation."""
_PANEL_CACHE_BYTES: Final = 256 << 20
FLOAT64_ROWS: Final = 8192
"""Up to this many pooled rows tiles are float64: it costs little, and float32 errors have few pairs to average over."""
FLOAT32_NORM: Final = 1e3
"""Above this squared norm in scaled coordinates, a squared distance taken as a difference of norms loses too many of
float32's digits; above this norm the coordinates' own rounding takes as many from an L1 distance."""


def choose_precision(rows: int, kernels: Sequence[Kernel], largest_norm: float) -> Precision:
    """Return the tiles' dtype for a pooled sample: a symmetric function of it, so that the test stays exact.

    Args:
        rows: rows of the pooled sample.
        kernels: the kernels, whose scales decide what is large.
        largest_norm: largest Euclidean norm of a centred vector.
    """
    # γ·‖x‖², which a squared distance may have to be told apart from; of an L1 distance, a sum of differences, √γ·‖x‖.
    scaled = max(kernel.family.factor(kernel.gamma * largest_norm * largest_norm) for kernel in kernels)
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
    native: bool = True,
) -> PartialSums:
    """Sum some tiles of the kernel matrices: on this machine's cores, or on all accelerators that JAX has.

    Each tile is computed by one core or device, and sums are added in any order to the same bits: so any number of
    cores, or of devices of a kind, gives what one gives.
    On GPUs this holds for tiles computed the same way: a measurement on each device decides between XLA and the Pallas
    kernel, whose sums differ by rounding (:class:`PartialSums` tells which it was).

    Args:
        blocks: gives the centred vectors of a block, (rows of the block, d).
        tiles: (k, 2) int32, pairs of blocks.
        grid: the grid that the tiles belong to.
        kernels: the kernels, at least one.
        panels: the labels.
        precision: dtype of a tile. Sums over tiles are float64 in either case.
        sums: the accumulator of the tiles' sums (:func:`accumulator`); as many of the first tiles as it holds already
            are left out.
        progress: called with (tiles done, tiles in all) after each tile has been added.
        native: False leaves the processor, too, to XLA, which is slower; the LLVM program is checked against it.

    Raises:
        DataError: vectors so large that their squared norms overflow.
        DriftlineError: a device whose memory does not hold the smallest pieces of a tile.
    """
    with jax.enable_x64(True):  # for float64 sums; the caller's own setting is untouched
        left = tiles[sums.tiles :].tolist()
        pool = workers(TilePass(blocks, grid, kernels, panels, precision), len(left), native=native)
        started: deque[tuple[int, int, Finish]] = deque()

        def add() -> None:
            i, j, finish = started.popleft()
            rows, columns, within = finish()
            sums.add_rows(i, j, rows)
            if i != j:
                sums.add_rows(j, i, columns)
            sums.add_within(within)
            sums.computed_by = pool.computed_by
            if progress is not None:
                progress(sums.tiles, len(tiles))

        try:
            for i, j in left:
                started.append((i, j, pool.start(i, j)))
                if len(started) > pool.ahead:
                    add()
            while started:
                add()
        finally:
            pool.close()
    return sums.result()


def accumulator(
    tiles: NDArray[np.int32], grid: BlockGrid, kernels: Sequence[Kernel], permutations: int, largest_norm: float
) -> SumAccumulator:
    """Return an accumulator for the sums of some tiles.

    Args:
        tiles: (k, 2) int32, the tiles.
        grid: the grid that they belong to.
        kernels: the kernels.
        permutations: B.
        largest_norm: no vector of the pooled sample is longer than this; it bounds the sums.
    """
    bounds = [kernel.bound(largest_norm) for kernel in kernels]
    return SumAccumulator(grid, np.unique(tiles).astype(np.int32), permutations, bounds)


def array_blocks(z: NDArray[np.floating], grid: BlockGrid) -> Blocks:
    """Return the blocks of an array (N, d) held in memory, as :func:`sum_tiles` takes them."""

    def block(index: int) -> NDArray[np.floating]:
        start, stop = grid.span(index)
        return z[start:stop]

    return block


class Workers(Protocol):
    """Computes tiles, several at a time.

    Attributes:
        ahead: how many tiles to start before the first of them is waited for.
    """

    ahead: int

    @property
    def computed_by(self) -> str:
        """As of :class:`PartialSums`; known once a tile has been started."""
        ...

    def start(self, i: int, j: int) -> Finish:
        """Start on tile (i, j)."""
        ...

    def close(self) -> None:
        """Cancel the tiles that were started and not waited for."""
        ...


@dataclass(frozen=True, slots=True)
class TilePass:
    """One pass over tiles.

    Attributes:
        blocks: gives the centred vectors of a block, (rows of the block, d).
        grid: the block grid.
        kernels: the kernels, at least one.
        panels: the labels.
        precision: dtype of a tile.
    """

    blocks: Blocks
    grid: BlockGrid
    kernels: Sequence[Kernel]
    panels: LabelPanels
    precision: Precision

    @property
    def unit(self) -> float:
        """γ of the coordinates, in which the narrowest kernel's is 1: float32 holds the same in any unit of data."""
        return max(kernel.gamma for kernel in self.kernels)

    def scaled(self, index: int) -> NDArray[np.floating]:
        """Return a block's vectors in these coordinates. Raises DataError where their squared norms overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.sqrt(self.unit) * np.asarray(self.blocks(index), np.float64)
            largest = float(np.max(np.einsum("ij,ij->i", scaled, scaled), initial=0.0))
        if not largest < float(np.finfo(self.precision).max) / 8:
            raise DataError(
                f"vectors: values too large for {self.precision} (largest scaled squared norm {largest:g}); "
                "rescale the embeddings"
            )
        return scaled.astype(self.precision)

    @property
    def panels_held(self) -> int:
        """Number of blocks whose labels are kept."""
        panel_bytes = self.grid.block // self.panels.bins.rows * (1 + self.panels.permutations)
        return max(2, _PANEL_CACHE_BYTES // panel_bytes)


def workers(one_pass: TilePass, tiles: int, *, native: bool) -> Workers:
    """Return the workers of a pass: this machine's cores where JAX has no device but its processor.

    Args:
        one_pass: the pass.
        tiles: tiles that are to be computed.
        native: False leaves the processor, too, to XLA.
    """
    devices = jax.local_devices()
    host = all(device.platform == "cpu" for device in devices)
    if native and host and all(is_known(kernel.family) for kernel in one_pass.kernels):
        return CpuWorkers(one_pass, max(1, min(_cores(), tiles)))
    return DeviceWorkers(one_pass, devices[: max(1, tiles)])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuWorkers:
    """Threads of this process, one a core; they run in parallel, since calls of the LLVM program release the GIL."""

    computed_by = "llvm"

    def __init__(self, one_pass: TilePass, threads: int) -> None:
        self.ahead = 2 * threads
        grid, bin_rows = one_pass.grid, one_pass.panels.bins.rows
        self._tiles = CpuTiles(one_pass.kernels, one_pass.unit, grid.block, bin_rows, one_pass.precision)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
        self._vectors = cache(lambda index: self._tiles.vectors(one_pass.scaled(index)))
        self._labels = lru_cache(maxsize=one_pass.panels_held)(lambda index: np.asarray(one_pass.panels.panel(index)))

    def start(self, i: int, j: int) -> Finish:
        """Start on tile (i, j)."""
        return self._threads.submit(self._tiles.sums, self._block(i), self._block(j), diagonal=i == j).result

    def close(self) -> None:
        """Cancel the tiles that were started and not waited for."""
        self._threads.shutdown(cancel_futures=True)

    def _block(self, index: int) -> CpuBlock:
        panels, norms, rows = self._vectors(index)
        return CpuBlock(panels, norms, rows, self._labels(index))


class DeviceWorkers:
    """The devices that JAX has, in turn; a tile a device is computed while those before are added."""

    def __init__(self, one_pass: TilePass, devices: Sequence[Device]) -> None:
        self.ahead = len(devices)
        self._workers = [_DeviceWorker(device, one_pass) for device in devices]
        self._next = cycle(self._workers)

    @property
    def computed_by(self) -> str:
        """As of :class:`PartialSums`, of the devices that have had a tile."""
        return ", ".join(sorted({worker.tiles.computed_by for worker in self._workers} - {""}))

    def start(self, i: int, j: int) -> Finish:
        """Start on tile (i, j), on the next device."""
        return next(self._next).start(i, j)

    def close(self) -> None:
        """Do nothing: tiles that were started end soon, and their sums are dropped."""


class _DeviceWorker:
    """One device, and the blocks that lie on it."""

    def __init__(self, device: Device, one_pass: TilePass) -> None:
        self._device = device
        self._pass = one_pass
        grid, bin_rows = one_pass.grid, one_pass.panels.bins.rows
        pallas = PALLAS_PRODUCT if device.platform == "gpu" else None
        self.tiles = DeviceTiles(one_pass.kernels, one_pass.unit, grid.block, bin_rows, one_pass.precision, pallas)
        self._vectors = cache(self._load)
        self._labels = lru_cache(maxsize=one_pass.panels_held)(self._label)

    def start(self, i: int, j: int) -> Finish:
        """Start on tile (i, j)."""
        try:
            sums = self._sums(i, j)
        except jax.errors.JaxRuntimeError as error:
            sums = self._again(i, j, error)
        return lambda: self._finished(i, j, sums)

    def _finished(self, i: int, j: int, sums: Sums) -> HostSums:
        """Wait for a tile's sums; where the device ran out of memory, take smaller pieces."""
        while True:
            try:
                rows, columns, within = (np.asarray(part) for part in sums)
                return rows, columns, within
            except jax.errors.JaxRuntimeError as error:
                sums = self._again(i, j, error)

    def _again(self, i: int, j: int, error: Exception) -> Sums:
        while True:
            if EXHAUSTED not in str(error):
                raise error
            self.tiles.shrink(error)
            try:
                return jax.block_until_ready(self._sums(i, j))
            except jax.errors.JaxRuntimeError as again:
                error = again

    def _sums(self, i: int, j: int) -> Sums:
        return self.tiles.sums(self._block(i), self._block(j), diagonal=i == j)

    def _block(self, index: int) -> DeviceBlock:
        vectors, rows = self._vectors(index)
        return DeviceBlock(vectors, rows, self._labels(index))

    def _load(self, index: int) -> tuple[jax.Array, int]:
        scaled = self._pass.scaled(index)
        padded = np.zeros((self._pass.grid.block, scaled.shape[1]), scaled.dtype)
        padded[: len(scaled)] = scaled
        return jax.device_put(padded, self._device), len(scaled)

    def _label(self, index: int) -> jax.Array:
        with jax.default_device(self._device):
            return jax.device_put(self._pass.panels.panel(index), self._device)
