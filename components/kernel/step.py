"""The steps that plan a pass over the kernel matrix and that sum one task's tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.bandwidth import MEDIAN, median_gamma, median_rows, parse_gamma
from driftline.components.kernel.engine import choose_precision, sum_tiles
from driftline.components.kernel.functions import make_kernel
from driftline.components.kernel.labellings import permutation_cuts, rank_of_threshold
from driftline.components.kernel.plan import BlockGrid
from driftline.components.kernel.spec import KernelSpec, TaskSums, write_task_sums
from driftline.components.projection.projected import ProjectedSample
from driftline.components.random_bits import check_seed
from driftline.components.steps import check_tasks, running
from driftline.components.storage.dataset import EmbeddingsDataset
from driftline.components.storage.store import create
from driftline.components.storage.values import read_value, write_value


def plan(
    *,
    projected: str,
    kernel: str,
    gamma: str,
    permutations: int,
    level: float,
    seed: int,
    tasks: int,
    out: str,
) -> list[dict[str, int]]:
    """Settle the bandwidth, the relabellings and the tasks; write the spec and return one item for each task.

    Args:
        projected: path of the projected sample's JSON.
        kernel: name of the kernel.
        gamma: ``"median"`` or a number above 0.
        permutations: number of random relabellings, B.
        level: accepted rate of false alarms, which the permutations must be able to reach.
        seed: seed of the run.
        tasks: tasks to share the tiles among, 200 at most; no more are made than there are tiles.
        out: path of the artifact to write.
    """
    with running("plan") as clock:
        check_seed(seed)
        check_tasks(tasks)
        rank_of_threshold(permutations, level)
        sample = read_value(projected, ProjectedSample)
        bandwidth = parse_gamma(gamma)
        if bandwidth == MEDIAN:
            rows = median_rows(seed, sample.rows)
            batches = EmbeddingsDataset.open(sample.uri).batches(columns=("embedding",), rows=rows)
            bandwidth = median_gamma(np.concatenate([batch.embeddings for batch in batches]))
        grid = BlockGrid.of(sample.rows)
        made = make_kernel(kernel, bandwidth)
        spec = KernelSpec(
            uri=sample.uri,
            n=sample.n,
            rows=sample.rows,
            block=grid.block,
            kernel_name=kernel,
            gamma=bandwidth,
            precision=choose_precision(sample.rows, made, sample.largest_norm),
            seed=seed,
            cuts=tuple(permutation_cuts(seed, permutations, sample.n, sample.rows).tolist()),
            tasks=grid.useful_tasks(tasks),
            seconds=0.0,
        )
        write_value(out, dataclasses.replace(spec, seconds=clock.seconds))
        return [{"task": task} for task in range(spec.tasks)]


def sums(*, spec: str, share: Mapping[str, float], out: str) -> None:
    """Sum one task's tiles and write the partial sums.

    Args:
        spec: path of the kernel spec's JSON.
        share: which task this is, ``{"task": number}``; numbers may arrive as floats.
        out: path of the artifact to write, a NumPy archive.
    """
    known = read_value(spec, KernelSpec)
    task = int(share["task"])
    with running("kernel", task, known.tasks) as clock:
        tiles = known.grid.share(task, known.tasks)
        summed = sum_tiles(
            read_blocks(known, tiles),
            tiles,
            known.grid,
            known.kernel,
            known.panels(),
            known.permutations,
            precision=known.precision,
            progress=lambda done, of: clock.progress(done, of, "tiles"),
        )
        with create(out) as file:
            write_task_sums(file, TaskSums(summed, clock.seconds))


def read_blocks(spec: KernelSpec, tiles: NDArray[np.int32]) -> Callable[[int], NDArray[np.float32]]:
    """Read just the rows that some tiles need, and return them block by block.

    Memory: 4 bytes times d for each row of the blocks touched.
    """
    touched = np.unique(tiles).tolist()
    spans = [spec.grid.span(block) for block in touched]
    rows = np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in spans])
    # Only the grid's last block can be short, and it comes last: batches and blocks coincide.
    batches = EmbeddingsDataset.open(spec.uri).batches(columns=("embedding",), rows=rows, batch_rows=spec.block)
    held = {block: batch.embeddings for block, batch in zip(touched, batches, strict=True)}
    return held.__getitem__
