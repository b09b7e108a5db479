"""One pass over a pooled sample in random Fourier features: the kernel matrix approximated, its cost linear in N.

With φ the features of a kernel, k(x, y) ≈ φ(x)·φ(y), and S a panel of labels of bins, all that MMD² and its
permutation distribution need of the data are the labelled sums Σᵢ sᵢφ(xᵢ): (1 + B) × 2F numbers a kernel, however many
rows there are. They are gathered block by block, rounded so that they are the same bits for any split. On NumPy: its
cosines are several times as fast as XLA's on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.kernel.theory.random_features import CHUNK_ROWS, RandomFeatures
from driftline.components.kernel.tiles.grid import BlockGrid, Blocks
from driftline.components.kernel.tiles.label_panels import LabelPanels
from driftline.components.kernel.tiles.sums import quantum, round_to

FeatureProgress = Callable[["FeatureSums", int], None]

FREQUENCIES: Final = 512
"""Random frequencies of each kernel."""


@dataclass(frozen=True, slots=True)
class FeatureSums:
    """Labelled sums of the features of Q kernels, over some or all blocks.

    Attributes:
        labelled: (Q, 1 + B, 2F) float64: Σ sᵢφ(xᵢ) for the observed labels and each permutation.
        total: (Q, 2F) float64: Σ φ(xᵢ) over all rows.
        blocks: number of blocks summed.
    """

    labelled: NDArray[np.float64]
    total: NDArray[np.float64]
    blocks: int


def block_share(grid: BlockGrid, task: int, tasks: int) -> range:
    """Return the blocks of task ``task`` of ``tasks``: a run of them."""
    return range(task * grid.blocks // tasks, (task + 1) * grid.blocks // tasks)


def sum_features(
    blocks: Blocks,
    share: Sequence[int],
    grid: BlockGrid,
    features: Sequence[RandomFeatures],
    panels: LabelPanels,
    *,
    sums: FeatureSums | None = None,
    progress: FeatureProgress | None = None,
) -> FeatureSums:
    """Sum the features of some blocks.

    Args:
        blocks: gives the centred vectors of a block, (rows of the block, d); asked for once each, in order.
        share: the blocks.
        grid: the grid that they belong to.
        features: those of each kernel, all with as many frequencies.
        panels: the labels.
        sums: those of an earlier attempt, to which is added in place: the first blocks, as many, are left out.
        progress: called after each block with (the sums so far, blocks in all).
    """
    step = quantum(float(grid.rows))  # no feature is longer than 1, so that no sum is longer than N
    width = 2 * features[0].count
    if sums is None:
        shape = len(features), 1 + panels.permutations, width
        sums = FeatureSums(np.zeros(shape), np.zeros((len(features), width)), 0)
    for index in share[sums.blocks :]:
        z = np.zeros((grid.block, features[0].dimension), np.float32)
        held = blocks(index)
        z[: len(held)] = held
        panel = np.asarray(panels.panel(index)).T.astype(np.float32)
        for place, each in enumerate(features):
            bins = _bin_sums(z, len(held), each, panels.bins.rows)
            sums.labelled[place] += round_to((panel @ bins).astype(np.float64), step)
            sums.total[place] += round_to(bins.sum(axis=0, dtype=np.float64), step)
        sums = replace(sums, blocks=sums.blocks + 1)
        if progress is not None:
            progress(sums, len(share))
    if not (np.isfinite(sums.labelled).all() and np.isfinite(sums.total).all()):
        raise DataError("vectors: values too large for random features of this kernel; rescale the embeddings")
    return sums


def _bin_sums(z: NDArray[np.float32], valid: int, features: RandomFeatures, bin_rows: int) -> NDArray[np.float32]:
    """Return the sums of the features over the bins of a block, (rows / bin_rows, 2F); rows from ``valid`` are none."""
    bins = np.empty((len(z) // bin_rows, 2 * features.count), np.float32)
    phases = np.empty((CHUNK_ROWS, features.count), np.float32)
    mapped = np.empty((CHUNK_ROWS, 2 * features.count), np.float32)
    for start in range(0, len(z), CHUNK_ROWS):
        chunk = z[start : start + CHUNK_ROWS]
        features.map_chunk(chunk, phases[: len(chunk)], mapped[: len(chunk)])
        mapped[max(valid - start, 0) : len(chunk)] = 0
        sums = mapped[: len(chunk)].reshape(len(chunk) // bin_rows, bin_rows, -1).sum(axis=1)
        bins[start // bin_rows : start // bin_rows + len(sums)] = sums
    return bins


def combine_features(grid: BlockGrid, parts: Iterable[FeatureSums]) -> FeatureSums:
    """Add up the tasks' parts, in any order, to the same bits.

    Raises:
        DataError: blocks are missing or were summed twice.
    """
    labelled: NDArray[np.float64] | None = None
    total: NDArray[np.float64] | None = None
    blocks = 0
    for part in parts:
        labelled = part.labelled.copy() if labelled is None else labelled + part.labelled
        total = part.total.copy() if total is None else total + part.total
        blocks += part.blocks
    if labelled is None or total is None or blocks != grid.blocks:
        raise DataError(f"feature sums: expected {grid.blocks} blocks in all, got {blocks}; run the kernel tasks again")
    return FeatureSums(labelled, total, blocks)


def feature_rows(
    blocks: Blocks, grid: BlockGrid, features: RandomFeatures, sums: FeatureSums, kernel: int
) -> NDArray[np.float64]:
    """Return one kernel's approximate sums for each row, (N, 2): over the reference and over the current sample.

    As in :attr:`driftline.components.kernel.tiles.sums.KernelSums.rows`, a row is left out of the sum over its own
    sample. A second pass over the data.

    Args:
        blocks: gives the centred vectors of a block; asked for once each, in order.
        grid: the grid.
        features: the kernel's features.
        sums: those of the first pass, over all blocks.
        kernel: the kernel's place among them.
    """
    reference = sums.labelled[kernel, 0]
    both = np.stack([reference, sums.total[kernel] - reference], axis=1).astype(np.float32)
    rows = np.empty((grid.rows, 2))
    for index in range(grid.blocks):
        start, stop = grid.span(index)
        z = blocks(index)
        for first in range(0, len(z), CHUNK_ROWS):  # new pages for a whole block's features would cost more than they
            mapped = features.map(z[first : first + CHUNK_ROWS])
            rows[start + first : start + first + len(mapped)] = mapped @ both
        rows[start:stop, 0 if grid.in_reference(index) else 1] -= 1.0  # k(x, x)
    return rows
