"""What a worker writes for a record: its vector, its tombstone or its dead letter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText, VectorEncoding, write_embedding
from driftline.serving.records.provenance import PREFIX, dead_letter_headers, source_headers
from driftline.serving.records.record import Headers, Record, TextEvent

VALUE_OMITTED: Final = PREFIX + "value-bytes-omitted"
"""Header of a dead letter without its value, which was too large for the topic: the value's size."""


@dataclass(frozen=True, slots=True)
class Result:
    """A record to write, and what it is written for.

    Attributes:
        topic: where it goes.
        key: its key; None for a dead letter whose record has none.
        value: its value; None for a tombstone.
        headers: its headers.
        record: what came in.
        reason: why it is a dead letter; empty for one that is none.
        embedded: the vector in it; None where there is none.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    record: Record
    reason: str = ""
    embedded: EmbeddedText | None = None

    @property
    def bytes(self) -> int:
        """Bytes of its key, value and headers: a little less than what the broker counts."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


@dataclass(frozen=True, slots=True)
class ResultWriter:
    """Makes results.

    Attributes:
        output: topic of vectors and tombstones.
        dead_letters: topic of what cannot be processed.
        model: name of the model.
        revision: of its vectors.
        vectors: how vectors are written.
        with_text: whether results carry their texts.
    """

    output: str
    dead_letters: str
    model: str
    revision: str
    vectors: VectorEncoding
    with_text: bool

    def embedding(self, record: Record, event: TextEvent, vector: NDArray[np.float32]) -> Result:
        """Return the result of a text."""
        text = event.text if self.with_text else None
        embedded = EmbeddedText(event.id, self.model, self.revision, vector, text)
        value = write_embedding(embedded, self.vectors)
        headers = source_headers(record)
        return Result(self.output, event.id.encode(), value, headers, record, embedded=embedded)

    def tombstone(self, record: Record, event: TextEvent) -> Result:
        """Return the result of a tombstone: a tombstone."""
        return Result(self.output, event.id.encode(), None, source_headers(record), record)

    def dead_letter(self, record: Record, error: PoisonError) -> Result:
        """Return the dead letter of a record, whole."""
        # A record with neither key nor value cannot be sent on; its reason, tombstone-without-key, says what it was.
        value = b"" if record.key is None and record.value is None else record.value
        headers = dead_letter_headers(record, error)
        return Result(self.dead_letters, record.key, value, headers, record, error.reason)

    def too_large(self, refused: Result) -> Result:
        """Return what is written in place of a result that its topic refuses as too large: a dead letter.

        Where the dead letter itself was refused, it goes without its value: its headers lead to the record.
        """
        record = refused.record
        size = len(refused.value or b"")
        if not refused.reason:
            error = PoisonError(
                "too-large",
                f"record {record.at}: its result of {size} bytes is more than topic {refused.topic} takes; raise "
                "max.message.bytes there, choose base64 vectors, or leave the text out",
            )
            return self.dead_letter(record, error)
        headers = tuple((name, value) for name, value in refused.headers if name != VALUE_OMITTED)
        return Result(
            self.dead_letters,
            record.key,
            b"",
            (*headers, (VALUE_OMITTED, str(size).encode())),
            record,
            refused.reason,
        )
