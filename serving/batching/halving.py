"""The search for the item at which a model or a tokenizer throws: a failed batch is halved until it is alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

PROBE_TEXT: Final = "a text like any other"
"""A text that every model can encode: a model that throws at it would throw at any."""


def _always(item: object) -> bool:
    return True


class HalvedBatches(Generic[Item]):
    """Halves of failed batches, which wait for another try; log₂(items) further tries find each item at fault.

    Args:
        wanted: whether an item still matters; others are left out.
    """

    def __init__(self, wanted: Callable[[Item], bool] = _always) -> None:
        self._wanted = wanted
        self._halves: deque[list[Item]] = deque()

    def split(self, failed: Sequence[Item]) -> Item | None:
        """Let the halves of a failed batch wait; return the item at fault where it was alone in the batch."""
        items = [item for item in failed if self._wanted(item)]
        if len(failed) == 1:
            return items[0] if items else None
        half = (len(items) + 1) // 2  # one that is left alone need not be the one at fault: it is tried again
        self._halves.extend(part for part in (items[:half], items[half:]) if part)
        return None

    def take(self) -> list[Item]:
        """Take the half that has waited the longest; an empty one where nothing waits."""
        while self._halves:
            items = [item for item in self._halves.popleft() if self._wanted(item)]
            if items:
                return items
        return []
