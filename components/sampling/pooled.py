"""A reference and a current embeddings dataset, read as one pooled sample: the reference's rows first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.random_bits import SAMPLE_CURRENT, SAMPLE_REFERENCE, choose_rows
from driftline.components.storage.dataset import EmbeddingsDataset

BATCH_ROWS = 4096
"""Rows of a batch. It is fixed, so that sums over batches do not depend on how a dataset is cut into shards."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the pooled sample.

    Attributes:
        uri: the embeddings dataset.
        digest: the identity of its content when it was sampled; a later reader checks that it is still the same.
        model: name of the model that made the vectors.
        revision: revision of that model.
        dimension: length of a vector.
        rows: rows of the dataset.
        sampled: rows that take part, chosen by the seed; ``rows`` where all do.
        stream: stream of random bits that chooses them.
    """

    uri: str
    digest: str
    model: str
    revision: str
    dimension: int
    rows: int
    sampled: int
    stream: int

    def chosen(self, seed: int) -> NDArray[np.int64] | None:
        """Return the row numbers that take part, ascending, or None where all do."""
        return None if self.sampled == self.rows else choose_rows(seed, self.stream, self.rows, self.sampled)

    def open(self) -> EmbeddingsDataset:
        """Open the dataset. Raises DataError where it is no longer the one that was sampled."""
        dataset = EmbeddingsDataset.open(self.uri)
        if dataset.manifest.digest != self.digest:
            raise DataError(f"{self.uri}: the dataset was replaced while the run was reading it; start the run again")
        return dataset


@dataclass(frozen=True, slots=True)
class PooledSample:
    """What a drift run compares: which rows of which datasets, and since when.

    Attributes:
        run: a name for the run that no other has; its working files and its record in the history carry it.
        created: when the run began, ISO 8601 in UTC.
        seed: seed of the sampling.
        reference: the side whose rows come first.
        current: the side whose rows follow.
        seconds: how long the sampling took.
    """

    run: str
    created: str
    seed: int
    reference: Side
    current: Side
    seconds: float

    @property
    def n(self) -> int:
        """Rows of the reference that take part."""
        return self.reference.sampled

    @property
    def rows(self) -> int:
        """Rows of the pooled sample, N."""
        return self.reference.sampled + self.current.sampled

    @property
    def dimension(self) -> int:
        """Length of a vector, the same on both sides."""
        return self.reference.dimension

    def batches(self) -> Iterator[tuple[Sequence[str], NDArray[np.float32]]]:
        """Yield (ids, vectors (rows, d) float32) in pooled order. No batch spans both sides."""
        for side in (self.reference, self.current):
            for batch in side.open().batches(rows=side.chosen(self.seed), batch_rows=BATCH_ROWS):
                yield batch.ids, batch.embeddings

    def describe(self, rows: Sequence[int], text_column: str = "text") -> list[tuple[str, str | None]]:
        """Return (id, text) of a few pooled rows, in the order asked; text is None where the dataset has none."""
        found: dict[int, tuple[str, str | None]] = {}
        first = 0
        for side in (self.reference, self.current):
            wanted = [row for row in rows if first <= row < first + side.sampled]
            chosen = side.chosen(self.seed)
            places = [row - first if chosen is None else int(chosen[row - first]) for row in wanted]
            if wanted:
                dataset = side.open()
                table = dataset.take(places, ["id", text_column])
                texts = table[text_column].to_pylist() if text_column in table.column_names else [None] * len(wanted)
                found.update(zip(wanted, zip(table["id"].to_pylist(), texts, strict=True), strict=True))
            first += side.sampled
        return [found[row] for row in rows]


def pair(
    run: str, created: str, reference: EmbeddingsDataset, current: EmbeddingsDataset, size: int, seed: int
) -> PooledSample:
    """Choose the rows to compare.

    Args:
        run: a name for the run that no other has.
        created: when the run began, ISO 8601 in UTC.
        reference: the dataset that the stream used to look like.
        current: the window to compare with it.
        size: at most this many rows of each; 0 for all.
        seed: seed of the choice.

    Raises:
        DataError: the two were embedded by different models or revisions, differ in dimension or normalisation,
            or hold fewer than two rows.
    """
    for dataset in (reference, current):
        if dataset.rows < 2:
            raise DataError(
                f"{dataset.uri}: expected at least 2 rows to compare, got {dataset.rows}; "
                "embed more texts or widen the window"
            )
    ours, theirs = reference.manifest, current.manifest
    for what in ("model", "revision", "dimension", "normalized"):
        mine, other = getattr(ours, what), getattr(theirs, what)
        if mine != other:
            raise DataError(
                f"{current.uri}: {what} is {other}, but {mine} in the reference {reference.uri}; "
                "embed both with the same model, or any difference is the models'"
            )

    def side(dataset: EmbeddingsDataset, stream: int) -> Side:
        manifest = dataset.manifest
        sampled = min(size, dataset.rows) if size else dataset.rows
        return Side(
            dataset.uri,
            manifest.digest,
            manifest.model,
            manifest.revision,
            manifest.dimension,
            dataset.rows,
            sampled,
            stream,
        )

    return PooledSample(run, created, seed, side(reference, SAMPLE_REFERENCE), side(current, SAMPLE_CURRENT), 0.0)
