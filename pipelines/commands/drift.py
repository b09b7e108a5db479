"""`driftline drift`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from driftline.components.command_line.options import fields_from, options_of
from driftline.components.drift_settings import IN_PIPELINES, DriftSettings
from driftline.components.settings import in_options

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
@options_of(DriftSettings)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def drift(reference: str, current: str, out: str, as_json: bool, **options: Any) -> None:
    """Tell whether one embeddings dataset still looks like another.

    Runs the drift pipeline on this machine, the same that `driftline compile drift` writes for a cluster. Exit
    status: 0 no drift, or skipped since a window held too little; 3 drift.
    """
    from driftline.components.mmd.result import SkippedResult
    from driftline.components.storage.dataset.windows import parse_as_of
    from driftline.pipelines.runs import absolute, run_drift

    given = fields_from(DriftSettings, options)
    parse_as_of(given.get("window_as_of", ""), datetime.now(UTC))
    if history := given.get("output_history"):
        given["output_history"] = absolute(history)
    with in_options(IN_PIPELINES):
        settings = DriftSettings.of(**given)
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
    yield f"MMD² {result.mmd2:.3g}{within}; of two texts, one of each, it tells {result.auc:.1%} apart"
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
