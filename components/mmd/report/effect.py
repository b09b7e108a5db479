"""How large the change is, in words: the report's one scale that means the same under any kernel and method."""

from __future__ import annotations

import math
from typing import Final, Literal

from driftline.components.mmd.report import formats
from driftline.components.mmd.result import DriftResult

Size = Literal["small", "moderate", "large"]

SMALL_BELOW: Final = 0.52
"""A witness that is right this often at most sees little. If every 25th text of the window were unmistakably new, and
the others as before, this is how often the best witness would be right: 1/2 + 1/50."""
LARGE_FROM: Final = 0.60
"""The same for every 5th text."""

_FEW: Final = 1000
_SPREAD: Final = 120.0


def size(result: DriftResult) -> Size | None:
    """Return how large the change is; None where the share is no number."""
    share = result.discrimination
    if not math.isfinite(share):
        return None
    return "small" if share < SMALL_BELOW else "large" if share >= LARGE_FROM else "moderate"


def told_apart(result: DriftResult) -> str:
    """Return how often old and new are told apart as the end of a sentence, or ``""`` where it is no number."""
    if not math.isfinite(result.discrimination):
        return ""
    return (
        "of two texts, one old and one new, the witness tells which is which in "
        f"{formats.share(result.discrimination)} of cases (50% is chance)"
    )


def in_words(result: DriftResult) -> str:
    """Return a sentence on the size of a change that the test found, or ``""``."""
    found = size(result)
    if found is None:
        return ""
    verb = "is" if certain(result) else "appears"
    return f"The change {verb} {found}: {told_apart(result)}."


def caution(result: DriftResult) -> str:
    """Return what a small number of texts does to the size, or ``""`` where there are many."""
    if certain(result) or size(result) is None:
        return ""
    points = min(50, math.ceil(_SPREAD / math.sqrt(_texts(result))))
    return (
        f"With {formats.plural(result.reference.sampled, 'text')} against {formats.count(result.current.sampled)}, "
        f"the {formats.share(result.discrimination)} is uncertain by some {points} percentage points."
    )


def certain(result: DriftResult) -> bool:
    """Return whether there are texts enough for the words to be more than a guess."""
    return _texts(result) >= _FEW


def _texts(result: DriftResult) -> float:
    """Return the harmonic mean of the samples' sizes.

    The share's standard deviation under no change is between 0.5 and 0.7 over its root, as simulated; twice that, in
    percentage points, is ``_SPREAD`` over the root.
    """
    n, m = max(result.reference.sampled, 1), max(result.current.sampled, 1)
    return 2 / (1 / n + 1 / m)
