"""A reference and a current embeddings dataset, read as one pooled sample: the reference's rows first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.components.drift_settings import DriftSettings
from driftline.components.errors import DataError, UsageError
from driftline.components.random_bits import SAMPLE_CURRENT, SAMPLE_REFERENCE, choose_rows
from driftline.components.sampling.identity import Run, SampleIdentity
from driftline.components.storage.dataset.reader import EmbeddingsDataset

TEXT_COLUMN = "text"
"""Column whose texts are shown unless another is asked for."""
BATCH_ROWS = 4096
"""Rows of a batch. It is fixed, so that sums over batches do not depend on how a dataset is cut into shards."""


@dataclass(frozen=True, slots=True)
class PooledSample:
    """The rows and datasets that a drift run compares.

    Attributes:
        run: the run that it is of.
        settings: the settings of the run.
        reference: the side whose rows come first.
        current: the side whose rows follow.
        text_column: carried column that holds the texts to show; empty where there is none.
        carried: all columns that either side carries.
        seconds: how long the sampling took.
    """

    run: Run
    settings: DriftSettings
    reference: SampleIdentity
    current: SampleIdentity
    text_column: str
    carried: tuple[str, ...]
    seconds: float

    @property
    def seed(self) -> int:
        """Seed of the sampling."""
        return self.settings.seed

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

    def sides(self) -> Iterator[tuple[SampleIdentity, NDArray[np.int64] | None]]:
        """Yield each side with the numbers of its rows that take part, ascending, or None where all do."""
        for side, stream in ((self.reference, SAMPLE_REFERENCE), (self.current, SAMPLE_CURRENT)):
            all_rows = side.sampled == side.rows
            yield side, None if all_rows else choose_rows(self.seed, stream, side.rows, side.sampled)

    def batches(self) -> Iterator[tuple[Sequence[str], NDArray[np.float32]]]:
        """Yield (ids, vectors (rows, d) float32) in pooled order. No batch spans both sides."""
        for side, chosen in self.sides():
            for batch in _open(side).batches(rows=chosen, batch_rows=BATCH_ROWS):
                yield batch.ids, batch.embeddings

    def ids(self) -> Iterator[Sequence[str]]:
        """Yield the ids in pooled order. No batch spans both sides."""
        for side, chosen in self.sides():
            for batch in _open(side).batches(columns=("id",), rows=chosen, batch_rows=16 * BATCH_ROWS):
                yield batch.ids

    def describe(self, rows: Sequence[int]) -> list[tuple[str, str | None]]:
        """Return (id, text) of a few pooled rows, in the order asked; text is None where the dataset carries none."""
        found: dict[int, tuple[str, str | None]] = {}
        first = 0
        for side, chosen in self.sides():
            wanted = [row for row in rows if first <= row < first + side.sampled]
            places = [row - first if chosen is None else int(chosen[row - first]) for row in wanted]
            if wanted:
                table = _open(side).take(places, ["id", self.text_column] if self.text_column else ["id"])
                there = self.text_column in table.column_names
                values = table[self.text_column].to_pylist() if there else [None] * len(wanted)
                texts = [None if value is None else str(value) for value in values]  # a carried column may hold numbers
                found.update(zip(wanted, zip(table["id"].to_pylist(), texts, strict=True), strict=True))
            first += side.sampled
        return [found[row] for row in rows]


def pair(run: Run, settings: DriftSettings, reference: EmbeddingsDataset, current: EmbeddingsDataset) -> PooledSample:
    """Choose the rows to compare.

    Args:
        run: the run that they are for.
        settings: its settings.
        reference: the dataset that the stream used to look like.
        current: the window to compare with it.

    Raises:
        DataError: the two were embedded by different models or revisions, differ in dimension or normalisation,
            or hold fewer than two rows.
        UsageError: the settings do not go with so many rows, or ask for a column that is not carried.
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

    def side(dataset: EmbeddingsDataset) -> SampleIdentity:
        manifest = dataset.manifest
        size = settings.window_max_rows
        sampled = min(size, dataset.rows) if size else dataset.rows
        return SampleIdentity(
            dataset.uri,
            manifest.digest,
            manifest.model,
            manifest.revision,
            manifest.dimension,
            dataset.rows,
            sampled,
        )

    sample = PooledSample(
        run, settings, side(reference), side(current), _text_column(settings.text_column, reference, current),
        tuple(dict.fromkeys([*ours.columns, *theirs.columns])), 0.0,
    )  # fmt: skip
    settings.check_for(sample.n, sample.rows - sample.n, sample.dimension)
    return sample


def _text_column(asked: str, *sides: EmbeddingsDataset) -> str:
    """Return the column that holds the texts to show: what was asked for, which must be there, or `text` if it is."""
    if not asked:
        return TEXT_COLUMN if any(TEXT_COLUMN in side.manifest.columns for side in sides) else ""
    for side in sides:
        if asked not in side.manifest.columns:
            there = ", ".join(side.manifest.columns) or "none beside ids and vectors"
            raise UsageError(f"text_column: no column {asked!r} is there; columns: {there}; in {side.uri}")
    return asked


def _open(side: SampleIdentity) -> EmbeddingsDataset:
    """Open a side's dataset. Raises DataError where it is no longer the one that was sampled."""
    dataset = EmbeddingsDataset.open(side.uri)
    if dataset.manifest.digest != side.digest:
        raise DataError(f"{side.uri}: the dataset was replaced while the run was reading it; start the run again")
    return dataset
