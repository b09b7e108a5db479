"""`driftline runs`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from driftline.components.errors import UsageError
from driftline.pipelines.commands.kubeflow_options import Reach, kubeflow_options, timeout_option
from driftline.pipelines.commands.submit import DRIFT_FOUND, end_with, watched

if TYPE_CHECKING:
    from driftline.components.kubeflow.client import Kubeflow, Run
    from driftline.pipelines.cluster_runs import Found


@click.command(epilog="Exit status of one run: 0 no drift, 3 drift, 2 wrong usage, 1 failure; 0 while it is under way.")
@click.argument("run_id", required=False, metavar="[RUN_ID]")
@click.option("--schedule", default="", metavar="NAME", help="Those of a schedule, by its name or id.")
@click.option(
    "--experiment",
    default="",
    metavar="NAME",
    help="Those of an experiment.  [default: all; for --schedule, driftline]",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="The latest N.")
@click.option("--wait", "waits", is_flag=True, help="Wait until the run is over.")
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@kubeflow_options
def runs(
    reach: Reach,
    run_id: str | None,
    schedule: str,
    experiment: str,
    limit: int,
    waits: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """List runs on Kubeflow with their verdicts and reports; or show one, and wait for it."""
    from driftline.pipelines.cluster_runs import Histories

    if run_id and (schedule or experiment):
        raise UsageError("runs: expected a run's id, or --schedule and --experiment, got both")
    if waits and not run_id:
        raise UsageError("wait: expected a run's id, got none")
    kubeflow, _ = reach.open()
    if run_id:
        _one(kubeflow, run_id, waits, timeout_s, as_json)
        return
    found = _listed(kubeflow, schedule, experiment, limit)
    histories = Histories()
    rows = [(run, histories.of(run)) for run in found]
    if as_json:
        click.echo(json.dumps([_json(run, known) for run, known in rows], indent=2))
        return
    for line in _table(rows) if rows else ("no runs",):
        click.echo(line)
    for note in dict.fromkeys(known.note for _, known in rows if known.note):
        click.echo(note, err=True)


def _one(kubeflow: Kubeflow, run_id: str, waits: bool, timeout_s: float, as_json: bool) -> None:
    from driftline.pipelines.cluster_runs import Histories, failure, red_by_request, wait

    if not as_json:
        run = watched(kubeflow, run_id, timeout_s) if waits else kubeflow.run(run_id)
        if not waits:
            click.echo(f"{run.state or 'created'}: {run.name}, made {run.created}")
        if run.ended:
            end_with(run)
        return
    run = wait(kubeflow, run_id, lambda state: None, timeout_s=timeout_s) if waits else kubeflow.run(run_id)
    known = Histories().of(run)
    click.echo(json.dumps(_json(run, known), indent=2))
    failed = failure(run) if run.ended else None
    if failed is not None and not red_by_request(run, known):
        raise failed
    if known.drift:
        sys.exit(DRIFT_FOUND)


def _listed(kubeflow: Kubeflow, schedule: str, experiment: str, limit: int) -> list[Run]:
    from driftline.pipelines.commands.kubeflow_options import EXPERIMENT
    from driftline.pipelines.schedules import find_schedules, remembered

    named = experiment or (EXPERIMENT if schedule else "")
    within = kubeflow.find_experiment(named) if named else ""
    if within is None:
        raise UsageError(f"experiment {named!r}: there is none of that name; check the name and the namespace")
    if not schedule:
        return kubeflow.runs(experiment=within, at_most=limit)
    known = find_schedules(kubeflow, schedule, within)
    ids = [one for each in known for one in (each.id, *remembered(each))] or [kubeflow.recurring_run(schedule).id]
    # A schedule that was replaced goes on under another id.
    runs = [run for one in dict.fromkeys(ids) for run in kubeflow.runs(schedule=one, at_most=limit)]
    return sorted(runs, key=lambda run: run.created, reverse=True)[:limit]


def _table(rows: list[tuple[Run, Found]]) -> list[str]:
    """Return the runs, one a line, in columns."""
    cells = [("run", "state", "created", "verdict", "report", "name")]
    for run, found in rows:
        verdicts = "; ".join(one.words for one in found.verdicts) or "-"
        reports = " ".join(one.report for one in found.verdicts if one.report) or "-"
        cells.append((run.id, run.state or "-", run.created, verdicts, reports, run.name))
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    return [
        "  ".join([*(text.ljust(width) for text, width in zip(row[:5], widths, strict=True)), row[5]]) for row in cells
    ]


def _json(run: Run, found: Found) -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "state": run.state,
        "created": run.created,
        "finished": run.finished,
        "error": run.error,
        "schedule": run.schedule,
        "verdicts": [one.to_json() for one in found.verdicts],
        "note": found.note,
    }
