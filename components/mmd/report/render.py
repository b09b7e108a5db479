"""The report's assembly: figures, words and tables into one HTML file.

The file stands alone: no script, no request, no font, no reference to anything outside it, so that it renders
inside the sandboxed frame of the Kubeflow Pipelines UI, from a bucket, or out of an e-mail. The same data
give the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from driftline.components.mmd.report import effect, formats, verdict
from driftline.components.mmd.report.data import HistoryPoint, ReportData
from driftline.components.mmd.report.figures.glyphs import KEYS
from driftline.components.mmd.report.figures.histogram import permutation_histogram
from driftline.components.mmd.report.figures.kernels import GAMMA, combination_in_words, family_name, kernel_table
from driftline.components.mmd.report.figures.scatter import sample_scatter
from driftline.components.mmd.report.figures.svg import element
from driftline.components.mmd.report.figures.trend import mmd2_trend, told_trend
from driftline.components.mmd.report.figures.variance import variance_bars
from driftline.components.mmd.report.key_figures import compared_figures, key_figures, quantity
from driftline.components.mmd.report.page import style, template
from driftline.components.mmd.result import DriftResult, MovedText

__all__ = ["HistoryPoint", "ReportData", "render_report"]

_MAX_TEXT = 300
_MAX_ID = 120
_MAX_NAME = 200
_MAX_REASON = 500
_MAX_MOVED = 50
_MAX_COLUMNS = 8
_MAX_COLUMN_NAME = 60
_MAX_HISTORY_ROWS = 20
_MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class _MovedRow:
    """One text that moved; ``bar`` draws its witness against the largest of its table."""

    id: str
    sample: str
    witness: str
    bar: Markup
    text: str | None


@dataclass(frozen=True, slots=True)
class _MovedTable:
    """One of the two tables of texts; ``hidden`` counts the rows beyond what a page bears.

    Without its column of texts (``has_text``) where none of its rows has one; ``lacking`` says that some have none.
    """

    rows: tuple[_MovedRow, ...]
    hidden: int
    has_text: bool
    lacking: bool


@dataclass(frozen=True, slots=True)
class _Texts:
    """Where the texts of the tables are from.

    Attributes:
        column: the column's name; empty where there is none.
        absent: whether there is no such column, so that the tables have ids alone.
        carried: names of the columns that there are, the first few.
        more: how many more there are.
    """

    column: str
    absent: bool
    carried: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a plain table: its head and its cells."""

    head: str
    cells: tuple[str, ...]
    tone: str = ""


def render_report(data: ReportData) -> str:
    """Return the report as one HTML document that loads nothing.

    What came from outside (ids, texts, names) is cleaned of what HTML forbids, cut to a length that a page
    bears, and escaped. The result stays below about 1 MB for any input.

    Args:
        data: what the run found.

    Returns:
        The document, fit to be written as UTF-8.
    """
    result = data.result
    head = verdict.compose(result, data.history)
    trends = (told_trend(data.history, result.level), mmd2_trend(data.history))
    return template("report.html.j2").render(
        css=style(),
        verdict=head,
        created=formats.long_time(result.created),
        figures=key_figures(result),
        compared=compared_figures(result),
        method=result.method,
        method_name=formats.clean(result.method, _MAX_NAME),
        quantity=quantity(result),
        histogram=permutation_histogram(data.permuted, result.statistic, result.threshold, quantity(result)),
        kernels=kernel_table(result),
        scatter=sample_scatter(data.reference_points, data.current_points, data.points_explained_variance_ratio),
        variance=variance_bars(result.explained_variance_ratio) if result.components else None,
        components=result.components,
        trends=[drawn for drawn in trends if drawn is not None],
        runs=_history_rows(data.history),
        run_count=len(data.history),
        new=_moved_table([moved for moved in result.moved if moved.witness < 0], ascending=True),
        gone=_moved_table([moved for moved in result.moved if moved.witness > 0], ascending=False),
        any_moved=bool(result.moved),
        texts=_texts(result),
        sides=_side_rows(result),
        mismatch=_mismatch(result),
        reason=formats.clean(result.method_reason, _MAX_REASON),
        approximation=_approximation(result),
        settings=_setting_rows(result),
        steps=_step_rows(result),
        hidden_steps=max(0, len(result.steps) - _MAX_STEPS),
        total=formats.duration(math.fsum(step.seconds for step in result.steps if math.isfinite(step.seconds))),
        permutations=formats.count(result.permutations),
        level=formats.level_percent(result.level),
        small_below=formats.level_percent(effect.SMALL_BELOW),
        large_from=formats.level_percent(effect.LARGE_FROM),
        keys=KEYS,
    )


def _moved_table(moved: list[MovedText], *, ascending: bool) -> _MovedTable:
    """Return a table of texts, the strongest first."""
    ordered = sorted(moved, key=lambda text: (text.witness if ascending else -text.witness, text.id))
    shown = ordered[:_MAX_MOVED]
    largest = max((abs(text.witness) for text in shown if math.isfinite(text.witness)), default=0.0)
    rows = tuple(
        _MovedRow(
            id=formats.clean(text.id, _MAX_ID),
            sample=text.sample if text.sample in ("reference", "current") else formats.clean(text.sample, 20),
            witness=formats.number(text.witness),
            bar=_witness_bar(text.witness, largest),
            text=None if text.text is None else formats.clean(text.text, _MAX_TEXT),
        )
        for text in shown
    )
    there = [row.text is not None for row in rows]
    return _MovedTable(rows, len(ordered) - len(shown), has_text=any(there), lacking=not all(there))


def _texts(result: DriftResult) -> _Texts:
    shown = tuple(formats.clean(name, _MAX_COLUMN_NAME) for name in result.carried[:_MAX_COLUMNS])
    return _Texts(
        column=formats.clean(result.text_column, _MAX_COLUMN_NAME),
        absent=not result.text_column and all(moved.text is None for moved in result.moved),
        carried=shown,
        more=len(result.carried) - len(shown),
    )


def _witness_bar(witness: float, largest: float) -> Markup:
    """Return a small bar as long as the witness is large."""
    length = 60 * abs(witness) / largest if largest > 0 and math.isfinite(witness) else 0.0
    kind = "reference" if witness > 0 else "current"
    return element(
        "svg",
        element("rect", x=0, y=0, width=max(length, 1.0), height=5, rx=1, class_=f"fill-{kind}"),
        viewBox="0 0 60 5",
        class_="witness-bar",
        aria_hidden="true",
        focusable="false",
    )


def _history_rows(history: tuple[HistoryPoint, ...]) -> list[_Row]:
    """Return the newest runs, newest first, as the trend's text alternative."""
    return [
        _Row(
            formats.long_time(run.created),
            (
                formats.ABSENT if run.discrimination is None else formats.share(run.discrimination),
                formats.number(run.mmd2),
                formats.ABSENT if run.mmd2_interval is None else formats.between(run.mmd2_interval),
                f"{family_name(run.kernel)}, {formats.number(run.gamma)}",
                formats.p_value(run.p_value),
                "▲ alarm" if run.drift else "no alarm",
            ),
            "alarm" if run.drift else "",
        )
        for run in reversed(history[-_MAX_HISTORY_ROWS:])
    ]


def _side_rows(result: DriftResult) -> list[_Row]:
    sides = (result.reference, result.current)

    def row(head: str, *cells: str) -> _Row:
        return _Row(head, tuple(cells))

    asked = any(side.asked not in ("", side.uri) for side in sides)
    missing = any(side.missing for side in sides)
    return [
        *([row("Asked for", *(formats.clean(side.asked or side.uri, _MAX_NAME) for side in sides))] if asked else []),
        row("Dataset", *(formats.clean(side.uri, _MAX_NAME) for side in sides)),
        *([row("Missing from the window", *(formats.missing(side.missing) for side in sides))] if missing else []),
        row("Texts in the dataset", *(formats.count(side.rows) for side in sides)),
        row("Texts in the test", *(formats.count(side.sampled) for side in sides)),
        row("Model", *(formats.clean(side.model, _MAX_NAME) for side in sides)),
        row("Revision", *(formats.clean(side.revision, _MAX_NAME) or "not stated" for side in sides)),
        row("Vector length", *(formats.count(side.dimension) for side in sides)),
        row("Digest", *(formats.short_digest(side.digest) for side in sides)),
    ]


def _mismatch(result: DriftResult) -> bool:
    """Return whether the samples' vectors come from different models, which alone would look like drift."""
    reference, current = result.reference, result.current
    return (reference.model, reference.revision, reference.dimension) != (
        current.model,
        current.revision,
        current.dimension,
    )


def _approximation(result: DriftResult) -> str:
    """Return what the random features' error means for this run, or ``""`` where nothing was approximated."""
    if not result.approximation > 0:
        return ""
    bound = formats.number(result.approximation, digits=2)
    said = f"Random features put an error of at most {bound} into MMD², in 99 of 100 draws of them"
    if not abs(result.mmd2) > result.approximation:
        return f"{said}: as much as MMD² itself, whose size is therefore not known. The p-value holds all the same."
    return f"{said}. The p-value does not depend on it."


def _setting_rows(result: DriftResult) -> list[_Row]:
    projection = f"{formats.plural(result.components, 'principal component')}" if result.components else "none"
    alone = len(result.kernels) == 1
    leading = "" if alone else "Leading kernel's "
    interval = result.mmd2_interval
    values = {
        "Run began": formats.long_time(result.created),
        **({"Run": formats.clean(result.run, _MAX_NAME)} if result.run else {}),
        **({"Run's name in the backend": formats.clean(result.job, _MAX_NAME)} if result.job else {}),
        **({"Windows as of": formats.long_time(result.as_of)} if result.as_of not in ("", result.created) else {}),
        **({"Column of the texts": formats.clean(result.text_column, _MAX_NAME)} if result.text_column else {}),
        "Method": formats.clean(result.method, _MAX_NAME),
        **({} if alone else {"Kernels": formats.count(len(result.kernels))}),
        **({} if alone else {"Combined by": combination_in_words(result.combination)}),
        "Kernel" if alone else "Leading kernel": formats.clean(result.kernel.name, _MAX_NAME),
        f"{leading}{GAMMA} (inverse squared length scale)": formats.exact(result.kernel.gamma),
        "Projection": projection,
        "Level": formats.level_percent(result.level),
        "Permutations": formats.count(result.permutations) if result.permutations else "none",
        "Seed": str(result.seed),
        "MMD²": formats.exact(result.mmd2),
        "95% interval": "none" if interval is None else " to ".join(formats.exact(end) for end in interval),
        **({"Error of random features": formats.exact(result.approximation)} if result.method == "features" else {}),
        "Old told from new": formats.exact(result.discrimination),
        **({} if quantity(result) == "MMD²" else {quantity(result).capitalize(): formats.exact(result.statistic)}),
        "Threshold": formats.exact(result.threshold),
        "p-value": formats.exact(result.p_value),
    }
    return [_Row(head, (cell,)) for head, cell in values.items()]


def _step_rows(result: DriftResult) -> list[_Row]:
    return [
        _Row(formats.clean(step.name, _MAX_NAME), (formats.count(step.tasks), formats.duration(step.seconds)))
        for step in result.steps[:_MAX_STEPS]
    ]
