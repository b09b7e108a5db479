"""The table of a search's kernels: each one's result, and the meaning of the one that leads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.figures.svg import element
from driftline.components.mmd.result import DriftResult, KernelFinding

MAX_KERNELS = 40
"""Kernels listed: those with the largest shares."""

GAMMA = "\N{GREEK SMALL LETTER GAMMA}"
_NAMES = {
    "rbf": "Gaussian",
    "laplace-l2": "Laplace",
    "laplace-l1": "Laplace (L1)",
    "imq": "inverse multiquadric",
    "rq": "rational quadratic",
    "linear": "linear",
    "polynomial": "polynomial",
}
# These look at inner products: they have no width in the sense of a distance.
_PRODUCTS = {
    "linear": "The linear kernel leads: what it sees is a shift of the mean, and nothing else.",
    "polynomial": "The polynomial kernel leads: what it sees is a change of the mean, the spread or the skewness.",
}
COMBINATIONS = {
    "studentised": "a soft maximum of the kernels' MMD², each in its own standard deviations",
    "fuse": "MMD-FUSE, a soft maximum of the kernels' MMD²",
    "agg": "MMDAgg, the smallest of the kernels' p-values, corrected",
    "sum": "the sum of the kernels, each over its root mean square",
}


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel; ``bar`` draws its share of the evidence."""

    name: str
    gamma: str
    length: str
    share: str
    bar: Markup
    mmd2: str
    p_value: str
    leading: bool


@dataclass(frozen=True, slots=True)
class KernelTable:
    """The kernels of a search.

    Attributes:
        rows: by family, the narrowest first.
        hidden: how many are left out, those with the smallest shares.
        meaning: what the leading kernel's width implies.
        combination: how their statistics were combined.
    """

    rows: tuple[KernelRow, ...]
    hidden: int
    meaning: str
    combination: str


def family_name(name: str) -> str:
    """Return a family's name for people, or a foreign name, cleaned."""
    return _NAMES.get(name, formats.clean(name, 40))


def combination_in_words(combination: str) -> str:
    """Return how kernels were combined, or a foreign name, cleaned."""
    return COMBINATIONS.get(combination, formats.clean(combination, 40))


def kernel_table(result: DriftResult) -> KernelTable | None:
    """Return the kernels of a search, or None where there was but one."""
    if len(result.kernels) < 2:
        return None
    by_share = sorted(
        range(len(result.kernels)), key=lambda k: (k != result.leading_kernel, -_finite(result.kernels[k].share))
    )
    shown = [result.kernels[k] for k in by_share[:MAX_KERNELS]]
    families = list(dict.fromkeys(kernel.name for kernel in result.kernels))
    ordered = sorted(shown, key=lambda kernel: (families.index(kernel.name), -_finite(kernel.gamma)))
    return KernelTable(
        rows=tuple(_row(kernel, kernel is result.kernel) for kernel in ordered),
        hidden=len(result.kernels) - len(shown),
        meaning=meaning(result),
        combination=combination_in_words(result.combination),
    )


def meaning(result: DriftResult) -> str:
    """Return what the leading kernel's width implies about the difference; ``""`` where it implies nothing."""
    if not result.drift:
        return "No drift was found, so the shares only show which kernel deviated most by chance."
    leading = result.kernel
    if leading.name in _PRODUCTS:
        return _PRODUCTS[leading.name]
    others = [kernel.gamma for kernel in result.kernels if kernel.name == leading.name]
    if len(others) < 2 or leading.name not in _NAMES:
        return ""
    wider = sum(gamma < leading.gamma for gamma in others)
    narrower = sum(gamma > leading.gamma for gamma in others)
    if 2 * narrower < wider:
        return (
            "A narrow kernel leads: the difference lies in fine structure, such as small groups of texts that are "
            "nearly alike, rather than in a shift of the whole."
        )
    if 2 * wider < narrower:
        return "A wide kernel leads: the difference is an overall shift, of the sample as a whole or of its spread."
    return "A kernel of middling width leads: the difference shows at the distances that are usual between texts."


def _row(kernel: KernelFinding, leading: bool) -> KernelRow:
    share = min(max(_finite(kernel.share), 0.0), 1.0)
    return KernelRow(
        name=family_name(kernel.name),
        gamma=formats.number(kernel.gamma),
        length="" if kernel.name in _PRODUCTS else formats.number(_length(kernel.gamma)),
        share=formats.share(kernel.share),
        bar=_bar(share, leading),
        mmd2=formats.number(kernel.mmd2),
        p_value=formats.p_value(kernel.p_value),
        leading=leading,
    )


def _length(gamma: float) -> float:
    return 1 / math.sqrt(gamma) if gamma > 0 else math.nan


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _bar(share: float, leading: bool) -> Markup:
    return element(
        "svg",
        element("rect", x=0, y=0, width=100, height=8, rx=1, class_="share-ground"),
        element("rect", x=0, y=0, width=100 * share, height=8, rx=1, class_="share-leading" if leading else "bar"),
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        class_="share-bar",
        aria_hidden="true",
        focusable="false",
    )
