"""Kernels by name, and sums over the kernel matrices of a pooled sample: exact, tile by tile, or by random features.

>>> import numpy as np
>>> from driftline.components.kernel import array_blocks, combine, settle, sum_tiles
>>> z = np.random.default_rng(0).normal(size=(300, 4))  # 120 rows of the reference, then 180 of the current sample
>>> z -= z.mean(axis=0)
>>> spec = settle(
...     z, 120, n=120, m=180, largest_norm=np.linalg.norm(z, axis=1).max(),
...     kernel="laplace-l1", gamma="median", method="exact", permutations=99, seed=0,
... )
>>> tiles = spec.grid.tiles()  # of one task; spec.grid.share(task, tasks) splits them
>>> part = sum_tiles(
...     array_blocks(z, spec.grid), tiles, spec.grid, spec.collection.kernels, spec.panels,
...     precision=spec.precision, sums=spec.accumulator(tiles),
... )
>>> sums = combine(spec.grid, [part])
>>> sums.rows.shape, sums.within.shape  # each row's sums over either sample; sᵀKs of the labels and 99 permutations
((1, 300, 2), (1, 100))
"""

from typing import TYPE_CHECKING

from driftline.components.public_names import on_demand

if TYPE_CHECKING:
    from driftline.components.kernel.spec import KernelSpec, settle
    from driftline.components.kernel.theory.bandwidth import heuristic_kernel
    from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel
    from driftline.components.kernel.theory.random_features import RandomFeatures
    from driftline.components.kernel.tiles.engine import array_blocks, sum_tiles
    from driftline.components.kernel.tiles.sums import combine

__all__ = [
    "KERNEL_NAMES", "Kernel", "KernelSpec", "RandomFeatures", "array_blocks", "combine", "heuristic_kernel", "settle",
    "sum_tiles",
]  # fmt: skip

# Declarations load without NumPy, the online detector without JAX.
_HOMES = {
    "KERNEL_NAMES": "theory.families",
    "Kernel": "theory.families",
    "KernelSpec": "spec",
    "RandomFeatures": "theory.random_features",
    "array_blocks": "tiles.engine",
    "combine": "tiles.sums",
    "heuristic_kernel": "theory.bandwidth",
    "settle": "spec",
    "sum_tiles": "tiles.engine",
}
__getattr__ = on_demand(__name__, _HOMES)
