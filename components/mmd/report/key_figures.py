"""The numbers at the head of the report: those of the verdict, the size of the change first, and what it compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

from driftline.components.mmd.report import effect, formats, verdict
from driftline.components.mmd.report.figures.kernels import GAMMA, family_name
from driftline.components.mmd.result import DriftResult
from driftline.components.sampling.identity import SampleIdentity

_METHOD_NOTES = {
    "exact": "every pair of texts is compared",
    "cross": "half of the texts choose what to look for, half are judged",
    "features": "random features stand for the kernel: time grows with the texts, not with their square",
}


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One number of the head: what it is, its value, and a remark."""

    label: str
    value: str
    note: str


def quantity(result: DriftResult) -> str:
    """Return what the test's statistic is."""
    if result.method == "cross":
        return "studentised statistic"
    return "MMD²" if len(result.kernels) == 1 else "combined statistic"


def key_figures(result: DriftResult) -> tuple[KeyFigure, ...]:
    """Return the four numbers that the verdict rests on."""
    return (
        KeyFigure("Old told from new", formats.share(result.discrimination), _told_note(result)),
        KeyFigure("MMD²", formats.number(result.mmd2), _mmd2_note(result)),
        KeyFigure("p-value", verdict.p_text(result), _p_note(result)),
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


def _told_note(result: DriftResult) -> str:
    if not math.isfinite(result.discrimination):
        return "not a finite number: check the vectors"
    told = "how often the witness tells which of two texts is old and which is new; 50% is chance"
    if result.drift or result.discrimination < effect.SMALL_BELOW:
        return told
    return f"{told}. No drift was found, so what is above it may be chance"


def _mmd2_note(result: DriftResult) -> str:
    if not math.isfinite(result.mmd2):
        return "not a finite number: check the vectors"
    interval = result.mmd2_interval
    notes = [
        f"95% interval {formats.between(interval)}"
        if interval is not None
        else "no interval: it needs four texts on either side"
    ]
    if result.approximation > 0:
        notes.append(f"the random features add an error of up to {formats.number(result.approximation, 2)} (99%)")
    if result.mmd2 < 0:
        notes.append("below 0, as the unbiased estimate is about half of the time where nothing changed")
    return "; ".join(notes)


def _p_note(result: DriftResult) -> str:
    if result.permutations == 0:
        return "from the second halves of the samples alone"
    permutations = formats.plural(result.permutations, "permutation")
    if verdict.is_smallest(result):
        return f"{verdict.p_in_words(result)}, the smallest that {permutations} can give"
    return f"{formats.count(verdict.reached(result))} of {permutations} reached the observed value"


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
