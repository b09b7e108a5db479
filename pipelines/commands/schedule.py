"""`driftline schedule`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from driftline.components.errors import UsageError
from driftline.pipelines.commands.chosen_pipeline import ChosenPipeline
from driftline.pipelines.commands.kubeflow_options import (
    Reach,
    dry_run_option,
    experiment_option,
    kubeflow_options,
    parameter_options,
    service_account_option,
)

if TYPE_CHECKING:
    from driftline.pipelines.cron import Cron


@click.command()
@click.argument("pipeline", required=False, metavar="[FILE|NAME]")
@click.option("--name", required=True, metavar="NAME", help="The schedule's; one of that name is replaced.")
@click.option(
    "--cron",
    default="",
    metavar="LINE",
    help="Five fields as in Unix, '5 0 * * *' for 00:05 each day; or six, seconds first; or @daily and the like.",
)
@parameter_options
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    metavar="ZONE",
    help="The controller's, its CRON_SCHEDULE_TIMEZONE, to tell the next times by; it cannot be asked.",
)
@click.option(
    "--max-concurrency",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    metavar="N",
    help="Runs of it at once.",
)
@click.option("--catchup", is_flag=True, help="After an outage run every slot that was missed, not only the last.")
@click.option("--disabled", is_flag=True, help="Keep it switched off.")
@click.option("--remove", "removes", is_flag=True, help="Delete it; its runs stay.")
@experiment_option
@service_account_option
@dry_run_option
@kubeflow_options
def schedule(
    reach: Reach,
    pipeline: str | None,
    name: str,
    cron: str,
    version_name: str,
    params: tuple[str, ...],
    params_file: str,
    zone: str,
    max_concurrency: int,
    catchup: bool,
    disabled: bool,
    removes: bool,
    experiment: str,
    service_account: str,
    dry_run: bool,
) -> None:
    """Make or replace a schedule on Kubeflow: afterwards there is one of that name, as described here.

    Run it as often as you like: what is as it should be is left alone, and what changed is replaced without a gap.
    FILE is a compiled pipeline, which is uploaded unless its content is there; NAME a pipeline that is there.
    """
    from driftline.pipelines.cron import parse_cron, parse_zone
    from driftline.pipelines.schedules import Schedule, keep, remove

    told = _would_be if dry_run else click.echo
    if removes:
        if pipeline or cron:
            raise UsageError("remove: expected --name alone, got a pipeline or --cron too; leave them out")
        kubeflow, health = reach.open(dry_run=dry_run)
        within = kubeflow.find_experiment(experiment)
        remove(kubeflow, name, within, spares_runs=health.spares_runs, told=told)
        return
    if not pipeline:
        raise UsageError("schedule: expected a pipeline's file or name; or --remove")
    when, controllers = parse_cron(cron), parse_zone(zone)
    chosen = ChosenPipeline(pipeline, version_name, params, params_file)
    kubeflow, health = reach.open(dry_run=dry_run)
    pinned, parameters = chosen.pinned(kubeflow, quiet=dry_run)
    wanted = Schedule(
        name=name,
        experiment=kubeflow.experiment(experiment),
        version=pinned.version.reference(),
        parameters=parameters,
        cron=when.line,
        max_concurrency=max_concurrency,
        catchup=catchup,
        service_account=service_account,
        enabled=not disabled,
    )
    keep(kubeflow, wanted, spares_runs=health.spares_runs, told=told)
    for line in _when(when, datetime.now(controllers), zone):
        click.echo(line)


def _when(when: Cron, now: datetime, zone: str) -> list[str]:
    """Say when it starts runs."""
    times = ", ".join(f"{one:%a %Y-%m-%d %H:%M:%S %Z}" for one in when.next_times(now))
    note = [f"note: {when.note}"] if when.note else []
    return [f"cron {when.line!r} in the zone {zone}; next: {times}", *note]


def _would_be(line: str) -> None:
    """In a dry run nothing was done; say only where nothing would be."""
    if line.endswith("there is none") or "is as it should be" in line:
        click.echo(f"nothing to send: {line}")
