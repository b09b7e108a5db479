"""The verdict in words: what was found, what it rests on, and what it does not say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.data import HistoryPoint
from driftline.components.mmd.result import DriftResult

_ORDINALS = ("", "", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The head of the report.

    Attributes:
        tone: ``"drift"`` or ``"quiet"``, for the style sheet.
        badge: the verdict in one or two words.
        headline: the verdict in a sentence.
        lead: what it rests on, for a reader who knows no statistics.
        notes: what it does not say, and what to bear in mind.
    """

    tone: str
    badge: str
    headline: str
    lead: str
    notes: tuple[str, ...]


def reached(result: DriftResult) -> int:
    """Return how many of the permuted statistics reached the observed one, as the p-value says."""
    return max(0, round(result.p_value * (result.permutations + 1)) - 1) if math.isfinite(result.p_value) else 0


def is_smallest(result: DriftResult) -> bool:
    """Return whether the p-value is the smallest that this number of permutations can give."""
    return math.isfinite(result.p_value) and reached(result) == 0


def p_in_words(result: DriftResult) -> str:
    """Return the p-value as a statement: ``p ≤ 1/(B + 1)`` where no permutation reached the observed one."""
    if is_smallest(result):
        return f"p\u00a0≤\u00a01/{formats.count(result.permutations + 1)}"
    text = formats.p_value(result.p_value)
    return f"p\u00a0{text}" if text.startswith(">") else f"p\u00a0=\u00a0{text}"


def compose(result: DriftResult, history: tuple[HistoryPoint, ...]) -> Verdict:
    """Return the verdict of a run.

    Args:
        result: what the run found.
        history: ascending by time, this run last; a row of alarms at its end is mentioned.
    """
    level = formats.level_percent(result.level)
    rate = formats.one_in(result.level)
    alarms_by_chance = f"On a stream that does not change, this test still raises an alarm in {rate}."
    notes: list[str] = []
    if result.drift:
        headline = "Drift: the current window no longer looks like the reference"
        lead = f"The texts differ by more than chance explains at the {level} level. {_shuffles(result)}"
        streak = _streak(history)
        if streak > 1:
            notes.append(f"This is the {_ordinal(streak)} run in a row to raise an alarm.")
        notes.append(
            f"{alarms_by_chance} "
            + ("One alarm is a reason to look; several in a row are a reason to act." if streak <= 1 else "")
        )
        notes.append(
            "The test says that the texts are different, not that they are worse. The texts that moved most, "
            "below, show what is different."
        )
        return Verdict("drift", "Drift found", headline, lead, tuple(note.strip() for note in notes))

    headline = f"No drift found at the {level} level"
    lead = f"The current window and the reference differ no more than chance explains. {_shuffles(result)}"
    seen = f"{formats.plural(result.reference.sampled, 'text')} against {formats.count(result.current.sampled)}"
    notes.append(
        f"No drift found is not proof of sameness: a small change, or a change in few of the texts, can hide "
        f"from a test of {seen}."
    )
    notes.append(alarms_by_chance)
    impossible = _cannot_reject(result)
    if impossible:
        notes.insert(0, impossible)
    return Verdict("quiet", "No drift found", headline, lead, tuple(notes))


def _shuffles(result: DriftResult) -> str:
    """Return what the permutations showed."""
    times = formats.count(result.permutations)
    if is_smallest(result):
        return (
            f"Shuffled {times} times at random between the two samples, the same texts never came to lie as "
            f"far apart as they do now ({p_in_words(result)}, the smallest value that so many shuffles give)."
        )
    return (
        f"Shuffled {times} times at random between the two samples, the same texts came to lie at least as "
        f"far apart in {formats.count(reached(result))} of the shuffles ({p_in_words(result)})."
    )


def _cannot_reject(result: DriftResult) -> str:
    """Return a warning where no p-value of this many permutations is as small as the level, else ``""``."""
    if not 0 < result.level < 1 or 1 / (result.permutations + 1) <= result.level:
        return ""
    # The margin keeps 1 / 0.05 from asking for 20 because of its rounding.
    needed = math.ceil(1 / result.level * (1 - 1e-12)) - 1
    return (
        f"This run could not have raised an alarm: with {formats.plural(result.permutations, 'permutation')} "
        f"no p-value is below 1/{formats.count(result.permutations + 1)}. The "
        f"{formats.level_percent(result.level)} level needs at least {formats.count(needed)}."
    )


def _streak(history: tuple[HistoryPoint, ...]) -> int:
    """Return how many runs at the end of the history raised an alarm without a pause."""
    length = 0
    for run in reversed(history):
        if not run.drift:
            break
        length += 1
    return length


def _ordinal(value: int) -> str:
    if value < len(_ORDINALS):
        return _ORDINALS[value]
    ending = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return f"{formats.count(value)}{ending}"
