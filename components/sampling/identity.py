"""A drift run, and the identity of the sample on either side of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """A drift run: its names, its moment, and where its files go.

    Attributes:
        id: a name that no other run has; its working files and its record in the history carry it.
        job: the backend's name for it: a Kubeflow run may hold several drift runs. Empty where none was given.
        created: when it began, ISO 8601 in UTC.
        as_of: the moment that its windows are relative to, ISO 8601 in UTC.
        base: the folder of its working files; a schedule's runs share it.
        folder: the folder of its report, which may be the same.
        history: the folder of the records of past runs, and of its own.
    """

    id: str
    job: str
    created: str
    as_of: str
    base: str
    folder: str
    history: str


@dataclass(frozen=True, slots=True)
class SampleIdentity:
    """Which vectors stood on one side of the test.

    Attributes:
        uri: the embeddings dataset or window, a folder or ``gs://``.
        digest: identity of the dataset's content, ``sha256:…`` of its manifest; later readers check that it is the same
            still.
        model: name of the model that made the vectors.
        revision: revision of that model.
        dimension: length of a vector before projection.
        rows: rows of the dataset.
        sampled: rows that take part, chosen by the run's seed; ``rows`` where all do.
        asked: the address as the user gave it, before it was resolved to `uri`: ``…/date=yesterday``, for example.
        missing: days or hours of the window of which there is no dataset.
    """

    uri: str
    digest: str
    model: str
    revision: str
    dimension: int
    rows: int
    sampled: int
    asked: str = ""
    missing: tuple[str, ...] = ()
