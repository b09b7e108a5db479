"""Who computes tiles: the cores of this machine, or the devices that JAX has."""

from __future__ import annotations

import os
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
from driftline.components.kernel.theory.permutations import LabelPanels
from driftline.components.kernel.tiles.cpu import HostBlock, HostSums, NativeTiler
from driftline.components.kernel.tiles.cpu_functions import is_known
from driftline.components.kernel.tiles.device import EXHAUSTED, Block, Precision, Sums, Tiler
from driftline.components.kernel.tiles.gpu_pallas import Product
from driftline.components.kernel.tiles.grid import BlockGrid, Blocks

Device: TypeAlias = Any  # a jax.Device, which JAX exports as a variable
Finish = Callable[[], HostSums]
"""Waits for a tile's sums: of its rows (Q, block), of its columns (Q, block), and its part of sᵀKs (Q, 1 + B)."""

FUSED_PRODUCT: Final[Product] = "bf16x3"
"""How a GPU's fused kernel multiplies: for the sizes it is used at, MMD² moves by a few millionths of its deviation."""
_PANEL_CACHE_BYTES: Final = 256 << 20


class Workers(Protocol):
    """Computes tiles, several at a time.

    Attributes:
        ahead: how many tiles to start before the first of them is waited for.
    """

    ahead: int

    def start(self, i: int, j: int) -> Finish:
        """Start on tile (i, j)."""
        ...

    def close(self) -> None:
        """Give up what has been started and not been waited for."""
        ...


@dataclass(frozen=True, slots=True)
class TilePass:
    """One pass over tiles.

    Attributes:
        blocks: gives the centred vectors of a block, (rows of the block, d).
        grid: the block grid.
        kernels: the kernels, at least one.
        panels: the labellings.
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
        """How many blocks' labels to keep."""
        panel_bytes = self.grid.block // self.panels.bins.rows * (1 + self.panels.permutations)
        return max(2, _PANEL_CACHE_BYTES // panel_bytes)


def workers(one_pass: TilePass, tiles: int, *, native: bool) -> Workers:
    """Return who computes a pass: the compiled program where JAX has nothing but this machine's processor.

    Args:
        one_pass: the pass.
        tiles: tiles that are to be computed.
        native: False leaves the processor to XLA, too.
    """
    devices = jax.local_devices()
    host = all(device.platform == "cpu" for device in devices)
    if native and host and all(is_known(kernel.family) for kernel in one_pass.kernels):
        return HostWorkers(one_pass, max(1, min(_cores(), tiles)))
    return DeviceWorkers(one_pass, devices[: max(1, tiles)])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class HostWorkers:
    """Threads of this process, as many as it has cores; the compiled program lets them run side by side."""

    def __init__(self, one_pass: TilePass, threads: int) -> None:
        self.ahead = 2 * threads
        grid, bin_rows = one_pass.grid, one_pass.panels.bins.rows
        self._tiler = NativeTiler(one_pass.kernels, one_pass.unit, grid.block, bin_rows, one_pass.precision)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
        self._vectors = cache(lambda index: self._tiler.vectors(one_pass.scaled(index)))
        self._labels = lru_cache(maxsize=one_pass.panels_held)(lambda index: np.asarray(one_pass.panels.panel(index)))

    def start(self, i: int, j: int) -> Finish:
        """Start on tile (i, j)."""
        return self._threads.submit(self._tiler.sums, self._block(i), self._block(j), diagonal=i == j).result

    def close(self) -> None:
        """Give up what has been started and not been waited for."""
        self._threads.shutdown(cancel_futures=True)

    def _block(self, index: int) -> HostBlock:
        panels, norms, rows = self._vectors(index)
        return HostBlock(panels, norms, rows, self._labels(index))


class DeviceWorkers:
    """The devices that JAX has, in turn; a tile a device is computed while those before are added."""

    def __init__(self, one_pass: TilePass, devices: Sequence[Device]) -> None:
        self.ahead = len(devices)
        self._next = cycle([_DeviceWorker(device, one_pass) for device in devices])

    def start(self, i: int, j: int) -> Finish:
        """Start on tile (i, j), on the next device."""
        return next(self._next).start(i, j)

    def close(self) -> None:
        """Nothing is to be given up: what has been started ends soon, unseen."""


class _DeviceWorker:
    """One device, and the blocks that lie on it."""

    def __init__(self, device: Device, one_pass: TilePass) -> None:
        self._device = device
        self._pass = one_pass
        grid, bin_rows = one_pass.grid, one_pass.panels.bins.rows
        fused = FUSED_PRODUCT if device.platform == "gpu" else None
        self.tiler = Tiler(one_pass.kernels, one_pass.unit, grid.block, bin_rows, one_pass.precision, fused)
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
        scaled = self._pass.scaled(index)
        padded = np.zeros((self._pass.grid.block, scaled.shape[1]), scaled.dtype)
        padded[: len(scaled)] = scaled
        return jax.device_put(padded, self._device), len(scaled)

    def _label(self, index: int) -> jax.Array:
        with jax.default_device(self._device):
            return jax.device_put(self._pass.panels.panel(index), self._device)
