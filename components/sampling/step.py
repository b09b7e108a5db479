"""The step that chooses which rows a drift run compares."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime

from driftline.components.errors import UsageError
from driftline.components.random_bits import check_seed
from driftline.components.sampling.pooled import pair
from driftline.components.steps import running
from driftline.components.storage.dataset import EmbeddingsDataset
from driftline.components.storage.values import write_value


def run(*, reference: str, current: str, size: int, seed: int, out: str) -> None:
    """Open both datasets, check that they can be compared, choose rows and write the pooled sample as JSON.

    Args:
        reference: URI of the embeddings dataset that the stream used to look like.
        current: URI of the embeddings dataset to compare with it.
        size: at most this many rows of each, chosen by the seed; 0 for all.
        seed: seed of the run.
        out: path of the artifact to write.
    """
    with running("sample") as clock:
        check_size(size)
        check_seed(seed)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        datasets = EmbeddingsDataset.open(reference), EmbeddingsDataset.open(current)
        sample = pair(uuid.uuid4().hex, created, *datasets, size, seed)
        write_value(out, dataclasses.replace(sample, seconds=clock.seconds))


def check_size(size: int) -> None:
    """Raise UsageError for a sample size that leaves nothing to compare."""
    if size < 0 or size == 1:
        raise UsageError(f"sample: expected at least 2 rows of each dataset, or 0 for all, got {size}")
