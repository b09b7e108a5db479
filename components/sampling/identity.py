"""Which rows of which dataset stand on one side of a drift run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SampleIdentity:
    """Which vectors stood on one side of the test.

    Attributes:
        uri: the embeddings dataset, a folder or ``gs://``.
        digest: identity of the dataset's content, ``sha256:…`` of its manifest; later readers check that it is the same
            still.
        model: name of the model that made the vectors.
        revision: revision of that model.
        dimension: length of a vector before projection.
        rows: rows of the dataset.
        sampled: rows that take part, chosen by the run's seed; ``rows`` where all do.
    """

    uri: str
    digest: str
    model: str
    revision: str
    dimension: int
    rows: int
    sampled: int
