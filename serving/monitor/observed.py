"""What a monitor takes: one record of the topic of embeddings, read or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText, read_embedding
from driftline.serving.records.provenance import read_source
from driftline.serving.records.record import Coordinates, Record

TOMBSTONE: Final = "tombstone"


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """One record.

    Attributes:
        at: where it lies in the stream that is watched.
        embedded: what it holds; None where it is skipped.
        source: where the text came from, as far as known; else as ``at``.
        reason: why it is skipped, a short code for metrics; empty where it is not.
        message: the same as a line.
    """

    at: Coordinates
    embedded: EmbeddedText | None
    source: Coordinates
    reason: str = ""
    message: str = ""


def observed(record: Record) -> Observed:
    """Read a record of the topic of embeddings; one that is no embedding is marked, and nothing raised."""
    source = read_source(record.headers) or record.at
    if record.value is None:
        return Observed(record.at, None, source, TOMBSTONE, "a deleted text")
    try:
        return Observed(record.at, read_embedding(record.value), source)
    except PoisonError as error:
        return Observed(record.at, None, source, error.reason, str(error))
