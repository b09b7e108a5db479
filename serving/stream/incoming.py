"""Records as the worker has them in hand: read, and known to be a text, a tombstone or poison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from driftline.serving.errors import PoisonError
from driftline.serving.records.payloads import PayloadFormat, read_text
from driftline.serving.records.record import Record, TextEvent

_CHARACTERS_A_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Incoming:
    """A record and what it says.

    Attributes:
        record: as it came off the topic.
        said: what it says of one text, or why it says nothing.
        bytes: of its key and value.
        received_s: when it came, by the monotonic clock.
    """

    record: Record
    said: TextEvent | PoisonError
    bytes: int
    received_s: float

    @property
    def text(self) -> str | None:
        """The text to encode; None where there is none."""
        return self.said.text if isinstance(self.said, TextEvent) else None

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
    """Return a record with what it says."""
    try:
        said: TextEvent | PoisonError = read_text(record, payload)
    except PoisonError as error:
        said = error
    return Incoming(record, said, len(record.key or b"") + len(record.value or b""), received_s)
