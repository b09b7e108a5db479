"""`driftline submit`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from driftline.pipelines.commands.chosen_pipeline import ChosenPipeline
from driftline.pipelines.commands.kubeflow_options import (
    Reach,
    dry_run_option,
    experiment_option,
    kubeflow_options,
    parameter_options,
    service_account_option,
    timeout_option,
)

if TYPE_CHECKING:
    from driftline.components.kubeflow.client import Kubeflow, Run

DRIFT_FOUND: Final = 3
"""Exit status where drift was found."""


@click.command(epilog="Exit status: 0 no drift, 3 drift, 2 wrong usage, 1 failure.")
@click.argument("pipeline", metavar="FILE|NAME")
@parameter_options
@click.option("--name", default="", metavar="NAME", help="What to call the run.  [default: the pipeline and the time]")
@experiment_option
@service_account_option
@click.option("--wait/--no-wait", "waits", default=True, show_default=True, help="Wait until the run is over.")
@timeout_option
@dry_run_option
@kubeflow_options
def submit(
    reach: Reach,
    pipeline: str,
    version_name: str,
    params: tuple[str, ...],
    params_file: str,
    name: str,
    experiment: str,
    service_account: str,
    waits: bool,
    timeout_s: float,
    dry_run: bool,
) -> None:
    """Run a pipeline on Kubeflow, and end with its verdict.

    FILE is a compiled pipeline, which is uploaded unless its content is there; NAME a pipeline that is there.
    """
    chosen = ChosenPipeline(pipeline, version_name, params, params_file)
    kubeflow, _ = reach.open(dry_run=dry_run)
    pinned, parameters = chosen.pinned(kubeflow, quiet=dry_run)
    body: dict[str, Any] = {
        "display_name": name or f"{pinned.pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        "experiment_id": kubeflow.experiment(experiment),
        "pipeline_version_reference": pinned.version.reference(),
        "runtime_config": {"parameters": parameters},
    }
    if service_account:
        body["service_account"] = service_account
    run = kubeflow.create_run(body)
    if dry_run:
        return
    click.echo(f"run {run.id}: {run.name}")
    if waits:
        end_with(watched(kubeflow, run.id, timeout_s))


def watched(kubeflow: Kubeflow, identity: str, timeout_s: float) -> Run:
    """Wait for a run and print its states."""
    from driftline.pipelines.cluster_runs import wait

    return wait(kubeflow, identity, click.echo, timeout_s=timeout_s)


def end_with(run: Run) -> None:
    """Print the verdict of a run that is over, and end with its status.

    Raises:
        KubeflowError: it failed, and not because it was asked to fail over drift.
    """
    from driftline.pipelines.cluster_runs import Histories, failure, lines, red_by_request

    found = Histories().of(run)
    for line in lines(found):
        click.echo(line)
    failed = failure(run)
    if failed is not None:
        if not red_by_request(run, found):
            raise failed
        click.echo(str(failed), err=True)
    if found.drift:
        sys.exit(DRIFT_FOUND)
