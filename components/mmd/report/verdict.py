"""The report's head: the verdict in words, its size, its basis and its limits, and the key figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.data import HistoryPoint
from driftline.components.mmd.report.figures.kernels import GAMMA, family_name
from driftline.components.mmd.result import DriftResult
from driftline.components.sampling.identity import SampleIdentity

Size = Literal["small", "moderate", "large"]

SMALL_BELOW: Final = 0.52
"""AUC below which a change is small. If every 25th text of the window were unmistakably new, and all others as before,
the best witness would have this AUC: 1/2 + 1/50."""
LARGE_FROM: Final = 0.60
"""AUC from which a change is large: the same for every 5th text."""

_FEW: Final = 1000
_SPREAD: Final = 120.0

_ORDINALS = ("", "", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
# The normal limit, from which p-values without permutations may come, says nothing that far out.
_SMALLEST_LIMIT = 1e-9
_HEADLINES = {
    "small": "A small drift: the current window differs slightly from the reference",
    "large": "A large drift: the current window no longer looks like the reference",
}
_METHOD_NOTES = {
    "exact": "every pair of texts is compared",
    "cross": "half of the texts choose what to look for, half are judged",
    "features": "random features stand for the kernel: time grows with the texts, not with their square",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The head of the report.

    Attributes:
        tone: ``"drift"`` or ``"quiet"``, for the style sheet.
        badge: the verdict in one or two words.
        headline: the verdict in a sentence.
        lead: its basis, for a reader who knows no statistics.
        notes: its limits, and what to bear in mind.
    """

    tone: str
    badge: str
    headline: str
    lead: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One number of the head: its label, its value, and a remark."""

    label: str
    value: str
    note: str


class Judged(Protocol):
    """A decision, and the number of permutations behind it."""

    @property
    def p_value(self) -> float:
        """The p-value."""
        ...

    @property
    def permutations(self) -> int:
        """Permutations behind it; 0 where it needs none."""
        ...


def reached(result: Judged) -> int:
    """Return the number of permuted statistics that reached the observed one, from the p-value."""
    return max(0, round(result.p_value * (result.permutations + 1)) - 1) if math.isfinite(result.p_value) else 0


def is_smallest(result: Judged) -> bool:
    """Return whether the p-value is the smallest that this number of permutations can give; never without any."""
    return result.permutations > 0 and math.isfinite(result.p_value) and reached(result) == 0


def p_text(result: Judged) -> str:
    """Return the p-value, with a sign before it where it is only a bound: ``0.343``, ``≤ 0.0020``, ``< 10⁻⁹``."""
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
    size = _size(result) if _is_certain(result) else None
    headline = _HEADLINES.get(size or "", "Drift: the current window no longer looks like the reference")
    level = formats.level_percent(result.level)
    found = (f"The texts differ by more than chance explains at the {level} level.", _size_in_words(result))
    notes: list[str] = []
    streak = _streak(history)
    if streak > 1:
        notes.append(f"This is the {_ordinal(streak)} run in a row to raise an alarm.")
    advice = "" if streak > 1 else " One alarm is a reason to look; several in a row are a reason to act."
    notes.append(_by_chance(result) + advice)
    if size == "small":
        notes.append(
            "With many texts the test finds changes too small to matter. To decide whether this one matters, look at "
            "the texts that moved most, and at whether the change grows from run to run."
        )
    if result.mmd2_interval is not None and result.mmd2_interval[0] <= 0:
        notes.append(
            "The interval of MMD² begins at 0: the test shows that there is a change, but its size is uncertain."
        )
    notes.append(_size_caution(result))
    notes.append(
        "The test says that the texts are different, not that they are worse. The texts that moved most, "
        "below, show what is different."
    )
    lead = " ".join(part for part in (*found, _rests_on(result)) if part)
    return Verdict("drift", "Drift found", headline, lead, tuple(note for note in notes if note))


def _quiet(result: DriftResult) -> Verdict:
    apart = _auc_in_words(result)
    found = "The current window and the reference differ no more than chance explains"
    lead = f"{found}{f': {apart}' if apart else ''}. {_rests_on(result)}"
    seen = f"{formats.plural(result.reference.sampled, 'text')} against {formats.count(result.current.sampled)}"
    notes = (
        _cannot_reject(result),
        "No drift found is not proof of sameness: a small change, or a change in few of the texts, can hide "
        f"from a test of {seen}.",
        _size_caution(result),
        _by_chance(result),
    )
    headline = f"No drift found at the {formats.level_percent(result.level)} level"
    return Verdict("quiet", "No drift found", headline, lead, tuple(note for note in notes if note))


def _by_chance(result: DriftResult) -> str:
    return f"On a stream that does not change, this test still raises an alarm in {formats.one_in(result.level)}."


def _rests_on(result: DriftResult) -> str:
    """Return the evidence of the permutations, or of the second halves where there are none."""
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
            f"The same texts were shuffled {times} at random between the two samples: in none of the shuffles were the "
            f"samples as far apart as now ({p_in_words(result)}, the smallest value that so many shuffles give)."
        )
    return (
        f"The same texts were shuffled {times} at random between the two samples: in "
        f"{formats.count(reached(result))} of the shuffles the samples were at least as far apart "
        f"({p_in_words(result)})."
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
    """Return the number of consecutive alarms at the end of the history."""
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


def _size(result: DriftResult) -> Size | None:
    """Return the size of the change by the AUC, which compares under any kernel; None where it is no number."""
    if not math.isfinite(result.auc):
        return None
    return "small" if result.auc < SMALL_BELOW else "large" if result.auc >= LARGE_FROM else "moderate"


def _auc_in_words(result: DriftResult) -> str:
    """Return the AUC in words as the end of a sentence, or ``""`` where it is no number."""
    if not math.isfinite(result.auc):
        return ""
    return (
        "of two texts, one old and one new, the witness tells which is which in "
        f"{formats.share(result.auc)} of cases (50% is chance)"
    )


def _size_in_words(result: DriftResult) -> str:
    """Return a sentence on the size of a change that the test found, or ``""``."""
    found = _size(result)
    if found is None:
        return ""
    verb = "is" if _is_certain(result) else "appears"
    return f"The change {verb} {found}: {_auc_in_words(result)}."


def _size_caution(result: DriftResult) -> str:
    """Return how uncertain few texts make the size, or ``""`` where there are many."""
    if _is_certain(result) or _size(result) is None:
        return ""
    points = min(50, math.ceil(_SPREAD / math.sqrt(_mean_texts(result))))
    return (
        f"With {formats.plural(result.reference.sampled, 'text')} against {formats.count(result.current.sampled)}, "
        f"the {formats.share(result.auc)} is uncertain by some {points} percentage points."
    )


def _is_certain(result: DriftResult) -> bool:
    """Return whether there are enough texts for the words to be more than a guess."""
    return _mean_texts(result) >= _FEW


def _mean_texts(result: DriftResult) -> float:
    """Return the harmonic mean of the samples' sizes.

    The AUC's standard deviation under no change, by simulation, is between 0.5 and 0.7 over the root of this mean;
    twice that, in percentage points, is ``_SPREAD`` over the root.
    """
    n, m = max(result.reference.sampled, 1), max(result.current.sampled, 1)
    return 2 / (1 / n + 1 / m)


def quantity(result: DriftResult) -> str:
    """Return the name of the test's statistic."""
    if result.method == "cross":
        return "studentised statistic"
    return "MMD²" if len(result.kernels) == 1 else "combined statistic"


def key_figures(result: DriftResult) -> tuple[KeyFigure, ...]:
    """Return the four numbers that the verdict rests on."""
    return (
        KeyFigure("Witness AUC", formats.share(result.auc), _auc_note(result)),
        KeyFigure("MMD²", formats.number(result.mmd2), _mmd2_note(result)),
        KeyFigure("p-value", p_text(result), _p_note(result)),
        KeyFigure("Threshold", formats.number(result.threshold), _threshold_note(result)),
    )


def compared_figures(result: DriftResult) -> tuple[KeyFigure, ...]:
    """Return the samples' sizes, the kernel and the method."""
    return (
        KeyFigure("Reference sample", formats.count(result.reference.sampled), _rows_note(result.reference)),
        KeyFigure("Current sample", formats.count(result.current.sampled), _rows_note(result.current)),
        KeyFigure(
            "Kernel" if len(result.kernels) == 1 else "Leading kernel",
            family_name(result.kernel.name),
            _kernel_note(result),
        ),
        KeyFigure(
            "Method",
            formats.clean(result.method, 40),
            _METHOD_NOTES.get(result.method, ""),
        ),
    )


def _auc_note(result: DriftResult) -> str:
    if not math.isfinite(result.auc):
        return "not a finite number: check the vectors"
    note = "how often the witness picks the new one of two texts, one old and one new; 50% is chance"
    if result.drift or result.auc < SMALL_BELOW:
        return note
    return f"{note}. No drift was found, so a value above 50% may be chance"


def _mmd2_note(result: DriftResult) -> str:
    if not math.isfinite(result.mmd2):
        return "not a finite number: check the vectors"
    interval = result.mmd2_interval
    notes = [
        f"95% interval {formats.between(interval)}"
        if interval is not None
        else "no interval: it needs four texts on either side"
    ]
    if result.feature_error_bound > 0:
        notes.append(f"the random features add an error of up to {formats.number(result.feature_error_bound, 2)} (99%)")
    if result.mmd2 < 0:
        notes.append("below 0, like about half of all unbiased estimates where nothing changed")
    return "; ".join(notes)


def _p_note(result: DriftResult) -> str:
    if result.permutations == 0:
        return "from the second halves of the samples alone"
    permutations = formats.plural(result.permutations, "permutation")
    if is_smallest(result):
        return f"{p_in_words(result)}, the smallest that {permutations} can give"
    return f"{formats.count(reached(result))} of {permutations} reached the observed value"


def _threshold_note(result: DriftResult) -> str:
    if not math.isfinite(result.threshold):
        return f"no value raises an alarm at the {formats.level_percent(result.level)} level"
    at = f"at the {formats.level_percent(result.level)} level"
    what = quantity(result)
    if what != "MMD²":
        unit = "standard errors" if result.method == "cross" else "a number without a unit"
        return f"{at}; the {what} is {formats.number(result.statistic)}, {unit}"
    ratio = result.statistic / result.threshold if result.threshold > 0 else math.nan
    if not (math.isfinite(ratio) and ratio > 0):
        return f"{at}: an alarm begins above this MMD²"
    return f"{at}; MMD² is {formats.number(ratio, digits=2)} times this"


def _kernel_note(result: DriftResult) -> str:
    gamma = f"{GAMMA} = {formats.number(result.kernel.gamma)}"
    if len(result.kernels) == 1:
        return gamma
    return f"{gamma}; {formats.share(result.kernel.share)} of the evidence of {len(result.kernels)} kernels"


def _rows_note(side: SampleIdentity) -> str:
    return f"of {formats.plural(side.rows, 'text')} in the dataset"
