"""How large batches and the queue may become."""

from __future__ import annotations

from dataclasses import dataclass

from driftline.components.errors import UsageError


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a batcher.

    Attributes:
        batch_tokens: tokens of a batch at most; 0 for as many as the encoder runs at a time. One longer text makes a
            batch alone.
        queue_texts: texts that may wait; a request that finds no room for all of its own is refused.
        queue_characters: characters of all requests in hand, waiting or being encoded: what bounds the memory.
        stuck_s: seconds after which a batch that still runs means that the device hangs; a large model on a CPU takes
            tens of them.

    Raises:
        UsageError: a value is out of range.
    """

    batch_tokens: int = 0
    queue_texts: int = 4096
    queue_characters: int = 16_000_000
    stuck_s: float = 300.0

    def __post_init__(self) -> None:
        if self.batch_tokens < 0:
            raise UsageError(f"batch-tokens: expected 1 or more, or 0 for the encoder's own, got {self.batch_tokens}")
        for name in ("queue_texts", "queue_characters", "stuck_s"):
            if not getattr(self, name) > 0:
                option = name.replace("_", "-")
                raise UsageError(f"{option}: expected more than 0, got {getattr(self, name)}")
