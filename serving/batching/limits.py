"""Limits of a batcher: how large batches and the queue may become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from driftline.components.errors import UsageError
from driftline.components.settings import Setting, check_settings


@dataclass(frozen=True, slots=True)
class BatcherLimits:
    """Bounds of batches and of the queue.

    Attributes:
        stuck_s: seconds after which a batch that still runs means that the device hangs; a large model on a CPU takes
            tens of them.

    Raises:
        UsageError: a value is out of range.
    """

    batch_tokens: Annotated[
        int,
        Setting(
            "Tokens of a batch; one longer text is a batch alone",
            "as many as the encoder runs at a time",
            least=0,
            metavar="T",
        ),
    ] = 0
    queue_texts: Annotated[
        int, Setting("Texts that may wait for each model; beyond, requests are answered with 429", least=1)
    ] = 4096
    queue_characters: Annotated[
        int, Setting("Characters of all texts in hand, waiting or being encoded, for each model", least=1)
    ] = 16_000_000
    stuck_s: float = 300.0

    def __post_init__(self) -> None:
        check_settings(self, by_option=True)
        if not self.stuck_s > 0:
            raise UsageError(f"stuck-s: expected more than 0, got {self.stuck_s}")
