"""Archives by day and hour, as backfills and streams leave them: a small embeddings dataset for each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from driftline.components.storage.objects.store import join
from tests.support.datasets import write_embeddings

DIMENSION = 4


def write_days(base: str, rows: Mapping[str, int], *, shift: Mapping[str, float] | None = None) -> str:
    """Write a dataset for each day, or hour, and return the archive's folder.

    Args:
        base: the archive's folder.
        rows: texts of each day, by names such as ``2026-11-29`` or ``2026-11-29/hour=13``.
        shift: how far the vectors of a day lie from those of the others, 0 where it is not named.
    """
    for number, (day, count) in enumerate(sorted(rows.items())):
        mean = 0.0 if shift is None else shift.get(day, 0.0)
        vectors = np.random.default_rng(number).normal(mean, 1.0, size=(count, DIMENSION)).astype(np.float32)
        texts = [f"text {row} of {day}" for row in range(count)]
        write_embeddings(join(base, f"date={day}"), vectors, texts=texts, prefix=day.replace("/", "-"))
    return base
