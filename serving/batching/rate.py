"""How fast a queue empties, as measured, for the moment at which it is worth trying again."""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.2  # of a new batch: some ten of them make up most of the figure
_UNKNOWN_S: Final = 1.0
_LEAST_S: Final = 0.05
_MOST_S: Final = 300.0


class Rate:
    """Texts and characters a second of encoding, averaged over the last batches."""

    def __init__(self) -> None:
        self._texts = self._characters = self._seconds = 0.0

    def encoded(self, texts: int, characters: int, seconds: float) -> None:
        """Count a batch."""
        keep = 1 - _WEIGHT
        self._texts = keep * self._texts + texts
        self._characters = keep * self._characters + characters
        self._seconds = keep * self._seconds + seconds

    def seconds_for(self, texts: int, characters: int) -> float:
        """Return the seconds within which so many texts, or so many characters, whichever takes longer, are encoded."""
        if not self._seconds:
            return _UNKNOWN_S
        shares = (max(texts, 0) / max(self._texts, 1.0), max(characters, 0) / max(self._characters, 1.0))
        return min(max(max(shares) * self._seconds, _LEAST_S), _MOST_S)
