"""Ways to estimate MMD² and to judge it, and the choice among them by size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

from driftline.components.errors import UsageError

Method = Literal["exact", "cross", "features"]
AUTO: Final = "auto"
METHODS: Final = (AUTO, "exact", "cross", "features")

EXACT_ROWS: Final = 200_000
"""Up to this many pooled rows ``auto`` takes the exact method: 20 billion pairs."""

SEARCH: Final = "search"
"""In place of a kernel's name: many kernels in one test."""
COMBINATIONS: Final = ("studentised", "fuse", "agg")
DEFAULT_COMBINATION: Final = "studentised"
"""Ways to make one statistic of many kernels' (:mod:`driftline.components.mmd.search`)."""

_TRADES: Final = {
    "exact": "every pair of texts is compared, and the p-value is a permutation test's, exact at any size",
    "cross": (
        "the witness is learnt on one half of each sample and judged on the other: half of the pairs, no relabelling "
        "of the kernel matrix, and somewhat less power"
    ),
    "features": (
        "the kernel is approximated by random Fourier features: time and memory grow with the rows, not with their "
        "square; MMD² carries a stated error, and the finest differences may be missed; the p-value stays exact"
    ),
}


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """The method of a run.

    Attributes:
        method: what is done.
        why: who chose it, and what it trades, as a sentence without its full stop.
    """

    method: Method
    why: str


def check_method(method: str) -> None:
    """Raise UsageError for a method that is not there."""
    if method not in METHODS:
        raise UsageError(f"method: unknown {method!r}; choose one of: {', '.join(METHODS)}")


def check_combination(combination: str) -> None:
    """Raise UsageError for a combination that is not there."""
    if combination not in COMBINATIONS:
        raise UsageError(f"combination: unknown {combination!r}; choose one of: {', '.join(COMBINATIONS)}")


def choose_method(asked: str, n: int, m: int) -> MethodChoice:
    """Settle on a method for samples of n and m rows. Raises UsageError for an unknown one."""
    check_method(asked)
    if asked != AUTO:
        return MethodChoice(cast("Method", asked), f"asked for: {_TRADES[asked]}")
    picked: Method = "exact" if n + m <= EXACT_ROWS else "features"
    size = f"{n + m:,} rows are {'within' if picked == 'exact' else 'past'} the {EXACT_ROWS:,} of the exact method"
    return MethodChoice(picked, f"chosen by size ({size}): {_TRADES[picked]}")
