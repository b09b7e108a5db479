"""`driftline drift`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from driftline.components.mmd.result import DriftResult, SkippedResult

DRIFT_FOUND: Final = 3
"""Exit status where drift was found."""


@click.command()
@click.option(
    "--reference",
    required=True,
    metavar="DATASET",
    help="What the stream used to look like; of an archive by date also a window, such as reviews/date=-8d..-2d.",
)
@click.option(
    "--current", required=True, metavar="DATASET", help="What to compare with it, such as reviews/date=yesterday."
)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    help="Folder for report.html, result.json, witness.parquet, run.log and the history; {date}, {hour} and {run} in "
    "it are filled in.",
)
@click.option(
    "--level",
    type=float,
    default=0.05,
    show_default=True,
    help="Accepted rate of false alarms, between 0 and 1.",
)
@click.option(
    "--permutations", type=int, default=500, show_default=True, help="Random relabellings behind the p-value."
)
@click.option(
    "--kernel",
    default="search",
    show_default=True,
    help="Many kernels in one test (search), or one: rbf, laplace, laplace-l1, imq, rq, linear, polynomial.",
)
@click.option(
    "--gamma",
    default="median",
    show_default=True,
    help="Inverse squared length scale of one kernel: a number, or median.",
)
@click.option(
    "--combination",
    default="studentised",
    show_default=True,
    help="How the kernels of a search are combined: studentised, fuse (MMD-FUSE) or agg (MMDAgg).",
)
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="exact, cross (half of the pairs, no permutations), features (time linear in the rows), or auto, by size.",
)
@click.option(
    "--components",
    type=int,
    default=32,
    show_default=True,
    help="Principal components to compare; 0 for whole vectors.",
)
@click.option(
    "--max-rows",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="At most N rows of each dataset, chosen by the seed; all where 0.  [default: 0]",
)
@click.option(
    "--tasks",
    type=click.IntRange(1, 200),
    default=4,
    show_default=True,
    metavar="T",
    help="Kernel tasks to share the work among.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="Seed of sampling and relabelling.")
@click.option(
    "--text-column",
    default="",
    metavar="NAME",
    help="Carried column that holds the texts to show in the report.  [default: text, where it is carried]",
)
@click.option(
    "--history",
    default="",
    metavar="DIR",
    help="Folder of past results for the trend.  [default: history in the output folder]",
)
@click.option(
    "--as-of", default="", metavar="TIME", help="The moment that windows are relative to, in UTC.  [default: now]"
)
@click.option(
    "--min-rows",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Rows that each window must have to be compared.  [default: the least that a test takes]",
)
@click.option(
    "--when-small",
    type=click.Choice(["skip", "refuse"]),
    default="skip",
    show_default=True,
    help="What becomes of a run with an empty window, or one of fewer rows.",
)
@click.option(
    "--when-partial",
    type=click.Choice(["compare", "skip", "refuse"]),
    default="compare",
    show_default=True,
    help="What becomes of a run with a window that lacks some of its days.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def drift(
    reference: str,
    current: str,
    out: str,
    level: float,
    permutations: int,
    kernel: str,
    gamma: str,
    combination: str,
    method: str,
    components: int,
    max_rows: int,
    tasks: int,
    seed: int,
    text_column: str,
    history: str,
    as_of: str,
    min_rows: int,
    when_small: str,
    when_partial: str,
    as_json: bool,
) -> None:
    """Tell whether one embeddings dataset still looks like another.

    Runs the drift pipeline on this machine, the same that `driftline compile drift` writes for a cluster. Exit
    status: 0 no drift, or skipped since a window held too little; 3 drift.
    """
    from driftline.components.checks import in_options
    from driftline.components.drift_settings import IN_PIPELINES, DriftSettings
    from driftline.components.mmd.result import SkippedResult
    from driftline.components.mmd.two_sample import check_settings
    from driftline.components.storage.dataset.windows import parse_as_of
    from driftline.pipelines.runs import absolute, run_drift

    check_settings(kernel, gamma, method, combination, permutations, level, seed)
    parse_as_of(as_of, datetime.now(UTC))
    with in_options(IN_PIPELINES):
        settings = DriftSettings.of(
            output_history=absolute(history) if history else "",
            window_as_of=as_of,
            window_max_rows=max_rows,
            window_min_rows=min_rows,
            window_when_small=when_small,
            window_when_partial=when_partial,
            pca_components=components,
            kernel=kernel,
            kernel_gamma=gamma,
            kernel_combination=combination,
            kernel_tasks=tasks,
            test_method=method,
            test_permutations=permutations,
            test_level=level,
            seed=seed,
            text_column=text_column,
        )
        result = run_drift(absolute(reference), absolute(current), absolute(out), settings)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, sort_keys=True))
    else:
        for line in _summary(result):
            click.echo(line)
        click.echo(f"report: {result.report_uri}")
    if not isinstance(result, SkippedResult) and result.drift:
        sys.exit(DRIFT_FOUND)


def _summary(result: DriftResult | SkippedResult) -> Iterator[str]:
    """Yield what the command says of a result: the decision, how large the drift is, and by what it was seen."""
    from driftline.components.mmd.result import SkippedResult

    if isinstance(result, SkippedResult):
        yield f"skipped: {result.reason}"
        return
    yield f"{result.verdict}: p = {result.p_value:.4g} {'≤' if result.drift else '>'} level {result.level:g}"
    interval = result.mmd2_interval
    within = "" if interval is None else f", 95% interval {interval[0]:.3g} to {interval[1]:.3g}"
    yield f"MMD² {result.mmd2:.3g}{within}; of two texts, one of each, it tells {result.discrimination:.1%} apart"
    leading = result.kernel
    among = f", {leading.share:.0%} of the evidence of {len(result.kernels)} kernels" if len(result.kernels) > 1 else ""
    yield f"seen by the kernel {leading.name} of gamma {leading.gamma:.3g}{among}"
    yield f"method {result.method}, {result.method_reason}"
    yield f"{result.reference.sampled} against {result.current.sampled} texts"
    for name, side in (("reference", result.reference), ("current", result.current)):
        if side.asked not in ("", side.uri):
            yield f"{name}: {side.uri}"
        if side.missing:
            yield f"{name}: nothing of {', '.join(side.missing[:3])}{', …' if len(side.missing) > 3 else ''}"
