"""The steps of the kernel part: `plan` plans a pass over a projected sample, `sums` does one task's part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from driftline.components.kernel.spec import KernelSpec, settle
from driftline.components.kernel.tasks import Checkpoint, KernelPlan, TaskSums
from driftline.components.kernel.theory.bandwidth import scale_rows
from driftline.components.kernel.tiles.engine import sum_tiles
from driftline.components.kernel.tiles.feature_sums import FeatureSums, block_share, sum_features
from driftline.components.kernel.tiles.sums import PartialSums
from driftline.components.projection.projected import ProjectedSample
from driftline.components.steps import StepClock, logged_step, shares
from driftline.components.storage.dataset.prefetch import waits_logged
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.values import read_value, write_value


def plan(*, projected: str, out: str) -> list[dict[str, int]]:
    """Settle method, kernels, permutations and tasks; write the plan and return one item for each task.

    Args:
        projected: path of the projected sample's JSON.
        out: path of the artifact to write.
    """
    with logged_step("plan", outputs=(out,)) as clock:
        sample = read_value(projected, ProjectedSample)
        asked, pooled = sample.pooled.settings, sample.pooled
        rows = scale_rows(asked.seed, pooled.rows)
        batches = EmbeddingsDataset.open(sample.working_folder).batches(columns=("embedding",), rows=rows)
        spec = settle(
            np.concatenate([batch.embeddings for batch in batches]),
            int(np.count_nonzero(rows < pooled.n)),
            n=pooled.n,
            m=pooled.rows - pooled.n,
            largest_norm=sample.largest_norm,
            kernel=asked.kernel,
            gamma=asked.kernel_gamma,
            method=asked.test_method,
            permutations=asked.test_permutations,
            seed=asked.seed,
        )
        # No more tasks are made than there is work for.
        planned = KernelPlan(sample, spec, spec.useful_tasks(asked.kernel_tasks), 0, 0.0)
        read = _rows_read(planned)
        clock.log("progress", method=spec.choice.method, why=spec.choice.why, tasks_made=planned.tasks, rows_read=read)
        write_value(out, replace(planned, rows_read=read, seconds=clock.seconds))
        return shares(planned.tasks)
    return shares(1)  # of a run that is skipped: a fan-out of no task is one that Kubeflow cannot run


def sums(*, plan: str, share: Mapping[str, float]) -> None:
    """Do one task's part of a pass, and write its sums beside the projected sample, where the test finds them.

    Args:
        plan: path of the kernel plan's JSON.
        share: which task this is, ``{"task": number, "tasks": number}``; numbers may arrive as floats.
    """
    task = int(share["task"])
    with logged_step("kernel", task, int(share["tasks"])) as clock, waits_logged(clock):
        known = read_value(plan, KernelPlan)
        checkpoint = Checkpoint(known, task)
        summed = (_features if known.spec.choice.method == "features" else _tiles)(known, task, checkpoint, clock)
        checkpoint.write(TaskSums(summed, clock.seconds))


def _tiles(known: KernelPlan, task: int, checkpoint: Checkpoint, clock: StepClock) -> PartialSums:
    spec = known.spec
    tiles = spec.grid.share(task, known.tasks)
    sums = spec.accumulator(tiles)
    earlier = checkpoint.read()
    if earlier is not None and isinstance(earlier.sums, PartialSums):
        sums.resume(earlier.sums)
        clock.log("progress", resumed_at=sums.tiles, of=len(tiles), unit="tiles")

    def progress(done: int, of: int) -> None:
        clock.progress(done, of, "tiles")
        checkpoint.offer(lambda: TaskSums(sums.result(), clock.seconds))

    summed = sum_tiles(
        read_blocks(known.sample.working_folder, spec, tiles),
        tiles,
        spec.grid,
        spec.collection.kernels,
        spec.panels,
        precision=spec.precision,
        sums=sums,
        progress=progress,
    )
    clock.log("progress", tiles_computed_by=summed.computed_by)
    return summed


def _features(known: KernelPlan, task: int, checkpoint: Checkpoint, clock: StepClock) -> FeatureSums:
    spec = known.spec
    share = block_share(spec.grid, task, known.tasks)
    dataset = EmbeddingsDataset.open(known.sample.working_folder)
    earlier = checkpoint.read()
    before = earlier.sums if earlier is not None and isinstance(earlier.sums, FeatureSums) else None
    first = 0 if before is None else before.blocks
    if first:
        clock.log("progress", resumed_at=first, of=len(share), unit="blocks")
    blocks = stream_blocks(dataset, spec, share[first:])

    def progress(sums: FeatureSums, of: int) -> None:
        clock.progress(sums.blocks, of, "blocks")
        checkpoint.offer(lambda: TaskSums(sums, clock.seconds))

    return sum_features(
        lambda _: next(blocks),
        share,
        spec.grid,
        spec.features(dataset.dimension),
        spec.panels,
        sums=before,
        progress=progress,
    )


def _rows_read(known: KernelPlan) -> int:
    """Return the most rows that a task reads."""
    grid, tasks = known.spec.grid, known.tasks
    if known.spec.choice.method != "features":
        return int(grid.rows_read(tasks).max())
    shares = (block_share(grid, task, tasks) for task in range(tasks))
    return max(sum(stop - start for start, stop in map(grid.span, share)) for share in shares)


def read_blocks(uri: str, spec: KernelSpec, tiles: NDArray[np.int32]) -> Callable[[int], NDArray[np.float32]]:
    """Read just the rows that some tiles need, and return them block by block.

    Memory: 4 bytes times d for each row of the blocks touched.
    """
    touched = np.unique(tiles).tolist()
    blocks = stream_blocks(EmbeddingsDataset.open(uri), spec, touched)
    return dict(zip(touched, blocks, strict=True)).__getitem__


def stream_blocks(dataset: EmbeddingsDataset, spec: KernelSpec, blocks: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """Yield some blocks' vectors in ascending order, reading ahead by no more than a block.

    A block of a sample's end may be short, so that the reader's batches and the blocks need not coincide.
    """
    spans = [spec.grid.span(block) for block in blocks]
    rows = np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in spans])
    held = np.empty((0, dataset.dimension), np.float32)
    batches = dataset.batches(columns=("embedding",), rows=rows, batch_rows=spec.block)
    for start, stop in spans:
        while len(held) < stop - start:
            held = np.concatenate([held, next(batches).embeddings])
        yield held[: stop - start]
        held = held[stop - start :]
