"""A worker's items: what it reads off a record, and what it writes for it: a vector, a tombstone or a dead letter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText, VectorEncoding, write_embedding
from driftline.serving.records.payloads import PayloadFormat, read_text
from driftline.serving.records.provenance import VALUE_OMITTED, dead_letter_headers, source_headers
from driftline.serving.records.record import OutgoingRecord, Record, TextEvent

_CHARACTERS_A_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Incoming:
    """A record and what was read in it.

    Attributes:
        record: as it came off the topic.
        parsed: the text or the deletion in it, or why it holds neither.
        bytes: of its key and value.
        received_s: when it came, by the monotonic clock.
    """

    record: Record
    parsed: TextEvent | PoisonError
    bytes: int
    received_s: float

    @property
    def text(self) -> str | None:
        """The text to encode; None where there is none."""
        return self.parsed.text if isinstance(self.parsed, TextEvent) else None

    def tokens(self, max_tokens: int) -> int:
        """Return about how many tokens the model will see of it.

        Args:
            max_tokens: that the model looks at; 0 for no limit.
        """
        text = self.text
        if text is None:
            return 0
        estimate = len(text) // _CHARACTERS_A_TOKEN + 2
        return min(estimate, max_tokens) if max_tokens else estimate


def incoming(record: Record, payload: PayloadFormat, received_s: float) -> Incoming:
    """Return a record with the text that is read in it."""
    try:
        parsed: TextEvent | PoisonError = read_text(record, payload)
    except PoisonError as error:
        parsed = error
    return Incoming(record, parsed, len(record.key or b"") + len(record.value or b""), received_s)


@dataclass(frozen=True, slots=True)
class Result(OutgoingRecord):
    """A record to write, and what it is written for.

    Attributes:
        record: what came in.
        reason: why it is a dead letter; empty for one that is none.
        embedded: the vector in it; None where there is none.
    """

    record: Record
    reason: str = ""
    embedded: EmbeddedText | None = None


@dataclass(frozen=True, slots=True)
class ResultWriter:
    """The worker's way to make results.

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
