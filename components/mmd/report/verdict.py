"""The verdict in words: what was found, how large it is, what it rests on, and what it does not say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from driftline.components.mmd.report import effect, formats
from driftline.components.mmd.report.data import HistoryPoint
from driftline.components.mmd.result import DriftResult

_ORDINALS = ("", "", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
# The normal limit, from which p-values without permutations may come, says nothing that far out.
_SMALLEST_LIMIT = 1e-9
_HEADLINES = {
    "small": "A small drift: the current window differs slightly from the reference",
    "large": "A large drift: the current window no longer looks like the reference",
}


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


class Judged(Protocol):
    """What was decided, and by how many relabellings."""

    @property
    def p_value(self) -> float:
        """The p-value."""
        ...

    @property
    def permutations(self) -> int:
        """Relabellings behind it; 0 where it needs none."""
        ...


def reached(result: Judged) -> int:
    """Return how many of the permuted statistics reached the observed one, as the p-value says."""
    return max(0, round(result.p_value * (result.permutations + 1)) - 1) if math.isfinite(result.p_value) else 0


def is_smallest(result: Judged) -> bool:
    """Return whether the p-value is the smallest that this number of permutations can give; never without any."""
    return result.permutations > 0 and math.isfinite(result.p_value) and reached(result) == 0


def p_text(result: Judged) -> str:
    """Return the p-value, with a sign before it where it is but a bound: ``0.343``, ``≤ 0.0020``, ``< 10⁻⁹``."""
    if is_smallest(result):
        return f"≤ {formats.p_value(1 / (result.permutations + 1))}"
    if result.permutations == 0 and result.p_value < _SMALLEST_LIMIT:
        return "< 10⁻⁹"
    return formats.p_value(result.p_value)


def p_in_words(result: Judged) -> str:
    """Return the p-value as a statement: ``p ≤ 1/(B + 1)`` where no permutation reached the observed one."""
    if is_smallest(result):
        return f"p\u00a0≤\u00a01/{formats.count(result.permutations + 1)}"
    text = p_text(result).replace(" ", "\u00a0")
    return f"p\u00a0{text}" if text.startswith((">", "<")) else f"p\u00a0=\u00a0{text}"


def compose(result: DriftResult, history: tuple[HistoryPoint, ...]) -> Verdict:
    """Return the verdict of a run.

    Args:
        result: what the run found.
        history: ascending by time, this run last; a row of alarms at its end is mentioned.
    """
    return _drift(result, history) if result.drift else _quiet(result)


def _drift(result: DriftResult, history: tuple[HistoryPoint, ...]) -> Verdict:
    size = effect.size(result) if effect.certain(result) else None
    headline = _HEADLINES.get(size or "", "Drift: the current window no longer looks like the reference")
    level = formats.level_percent(result.level)
    found = (f"The texts differ by more than chance explains at the {level} level.", effect.in_words(result))
    notes: list[str] = []
    streak = _streak(history)
    if streak > 1:
        notes.append(f"This is the {_ordinal(streak)} run in a row to raise an alarm.")
    advice = "" if streak > 1 else " One alarm is a reason to look; several in a row are a reason to act."
    notes.append(_by_chance(result) + advice)
    if size == "small":
        notes.append(
            "With many texts the test finds changes too small to matter. Whether this one matters is for you to say: "
            "look at the texts that moved most, and at whether it grows from run to run."
        )
    if result.mmd2_interval is not None and result.mmd2_interval[0] <= 0:
        notes.append(
            "The interval of MMD² begins at 0: that there is a change rests on the test, its size is uncertain."
        )
    notes.append(effect.caution(result))
    notes.append(
        "The test says that the texts are different, not that they are worse. The texts that moved most, "
        "below, show what is different."
    )
    lead = " ".join(part for part in (*found, _rests_on(result)) if part)
    return Verdict("drift", "Drift found", headline, lead, tuple(note for note in notes if note))


def _quiet(result: DriftResult) -> Verdict:
    told = effect.told_apart(result)
    found = "The current window and the reference differ no more than chance explains"
    lead = f"{found}{f': {told}' if told else ''}. {_rests_on(result)}"
    seen = f"{formats.plural(result.reference.sampled, 'text')} against {formats.count(result.current.sampled)}"
    notes = (
        _cannot_reject(result),
        "No drift found is not proof of sameness: a small change, or a change in few of the texts, can hide "
        f"from a test of {seen}.",
        effect.caution(result),
        _by_chance(result),
    )
    headline = f"No drift found at the {formats.level_percent(result.level)} level"
    return Verdict("quiet", "No drift found", headline, lead, tuple(note for note in notes if note))


def _by_chance(result: DriftResult) -> str:
    return f"On a stream that does not change, this test still raises an alarm in {formats.one_in(result.level)}."


def _rests_on(result: DriftResult) -> str:
    """Return what the permutations showed, or the second halves where there are none."""
    if result.permutations == 0:
        apart = (
            f"their scores differ by {formats.number(result.statistic)} standard errors"
            if math.isfinite(result.statistic)
            else "their scores were compared"
        )
        return (
            "One half of each sample chose what to look for, and the other halves were scored by it: "
            f"{apart} ({p_in_words(result)})."
        )
    times = formats.plural(result.permutations, "time")
    if is_smallest(result):
        return (
            f"Shuffled {times} at random between the two samples, the same texts never came to lie as "
            f"far apart as they do now ({p_in_words(result)}, the smallest value that so many shuffles give)."
        )
    return (
        f"Shuffled {times} at random between the two samples, the same texts came to lie at least as "
        f"far apart in {formats.count(reached(result))} of the shuffles ({p_in_words(result)})."
    )


def _cannot_reject(result: DriftResult) -> str:
    """Return a warning where no p-value of this many permutations is as small as the level, else ``""``."""
    level = formats.level_percent(result.level)
    if result.permutations == 0:
        if result.threshold != math.inf:
            return ""
        return f"This run could not have raised an alarm: no statistic would do at the {level} level."
    if not 0 < result.level < 1 or 1 / (result.permutations + 1) <= result.level:
        return ""
    # The margin keeps 1 / 0.05 from asking for 20 because of its rounding.
    needed = math.ceil(1 / result.level * (1 - 1e-12)) - 1
    return (
        f"This run could not have raised an alarm: with {formats.plural(result.permutations, 'permutation')} "
        f"no p-value is below 1/{formats.count(result.permutations + 1)}. The "
        f"{level} level needs at least {formats.count(needed)}."
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
