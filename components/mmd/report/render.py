"""The report's assembly: figures, words and tables into one HTML file.

The file stands alone: no script, no request, no font, no reference to anything outside it, so that it renders
inside the sandboxed frame of the Kubeflow Pipelines UI, from a bucket, or out of an e-mail. The same data
give the same bytes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Final

import jinja2
from markupsafe import Markup

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.data import HistoryPoint, ReportData
from driftline.components.mmd.report.figures.histogram import permutation_histogram
from driftline.components.mmd.report.figures.kernels import GAMMA, combination_in_words, family_name, kernel_table
from driftline.components.mmd.report.figures.scatter import sample_scatter
from driftline.components.mmd.report.figures.svg import KEYS, element
from driftline.components.mmd.report.figures.trend import auc_trend, mmd2_trend
from driftline.components.mmd.report.figures.variance import variance_bars
from driftline.components.mmd.report.verdict import (
    LARGE_FROM,
    SMALL_BELOW,
    compared_figures,
    compose,
    key_figures,
    quantity,
)
from driftline.components.mmd.result import DriftResult, FoundWindow, MovedText, SkippedResult

_MAX_TEXT: Final = 300
_MAX_ID: Final = 120
_MAX_NAME: Final = 200
_MAX_REASON: Final = 500
_MAX_MOVED: Final = 50
_MAX_COLUMNS: Final = 8
_MAX_COLUMN_NAME: Final = 60
_MAX_HISTORY_ROWS: Final = 20
_MAX_STEPS: Final = 100


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
    """One of the two tables of texts.

    Attributes:
        rows: the texts shown, the strongest witness first.
        hidden: number of texts beyond the longest table.
        has_text: whether any row has a text; the column of texts is left out otherwise.
        lacking: whether some row has no text.
    """

    rows: tuple[_MovedRow, ...]
    hidden: int
    has_text: bool
    lacking: bool


@dataclass(frozen=True, slots=True)
class _Texts:
    """The column that the texts of the tables are from.

    Attributes:
        column: the column's name; empty where there is none.
        absent: whether there is no such column, so that the tables have ids alone.
        carried: names of the first few columns of the datasets.
        more: number of further columns.
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

    Ids, texts and names come from outside: what HTML forbids is replaced, they are cut to a readable length, and
    escaped. The result stays below about 1 MB for any input.

    Args:
        data: the run's result, and what the figures need.

    Returns:
        The document, which can be written as UTF-8.
    """
    result = data.result
    head = compose(result, data.history)
    trends = (auc_trend(data.history, result.level), mmd2_trend(data.history))
    return _template("report.html.j2").render(
        css=_style(),
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
        feature_error=_feature_error(result),
        settings=_setting_rows(result),
        steps=_step_rows(result),
        hidden_steps=max(0, len(result.steps) - _MAX_STEPS),
        total=formats.duration(math.fsum(step.seconds for step in result.steps if math.isfinite(step.seconds))),
        permutations=formats.count(result.permutations),
        level=formats.level_percent(result.level),
        small_below=formats.level_percent(SMALL_BELOW),
        large_from=formats.level_percent(LARGE_FROM),
        keys=KEYS,
    )


def render_skipped(result: SkippedResult) -> str:
    """Return the page as one HTML document that loads nothing, like the report's.

    Args:
        result: the reason and the windows.
    """
    sides = result.reference, result.current
    rows: dict[str, Callable[[FoundWindow], str]] = {
        "Asked for": lambda side: formats.clean(side.asked, _MAX_NAME),
        "Window": lambda side: formats.clean(side.uri, _MAX_NAME),
        "Texts": lambda side: formats.count(side.rows),
        "Missing from the window": lambda side: formats.missing(side.missing),
    }
    return _template("skipped.html.j2").render(
        css=_style(),
        created=formats.long_time(result.created),
        reason=formats.clean(result.reason, _MAX_REASON),
        rows=[
            ("As of", formats.long_time(result.as_of), formats.long_time(result.as_of)),
            *((head, *map(cell, sides)) for head, cell in rows.items()),
        ],
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
                formats.share(run.auc),
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


def _feature_error(result: DriftResult) -> str:
    """Return the meaning of the random features' error for this run, or ``""`` where nothing was approximated."""
    if not result.feature_error_bound > 0:
        return ""
    bound = formats.number(result.feature_error_bound, digits=2)
    error = f"In 99 of 100 draws of the random features their error in MMD² is at most {bound}"
    if not abs(result.mmd2) > result.feature_error_bound:
        return f"{error}: as large as MMD² itself, so its size is not known. The p-value is valid nevertheless."
    return f"{error}. The p-value does not depend on it."


def _setting_rows(result: DriftResult) -> list[_Row]:
    projection = f"{formats.plural(result.components, 'principal component')}" if result.components else "none"
    alone = len(result.kernels) == 1
    leading = "" if alone else "Leading kernel's "
    interval, bound = result.mmd2_interval, formats.exact(result.feature_error_bound)
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
        **({"Error of random features": bound} if result.method == "features" else {}),
        "Witness AUC": formats.exact(result.auc),
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


def _style() -> Markup:
    """Return the pages' CSS."""
    return Markup(_packaged("report.css"))


@functools.lru_cache(maxsize=2)
def _template(name: str) -> jinja2.Template:
    """Return one of this package's templates."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_packaged),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _packaged(name: str) -> str:
    return resources.files(__package__ or __name__).joinpath(name).read_text(encoding="utf-8")
