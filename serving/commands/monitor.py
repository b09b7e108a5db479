"""`driftline monitor`."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

import click

from driftline.components.command_line.options import fields_from, options_of, settings_from
from driftline.components.errors import UsageError
from driftline.components.mmd.online import OnlineSettings
from driftline.serving.commands.kafka_options import kafka_options
from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings, RunSettings
from driftline.serving.telemetry.health import health_port_option

if TYPE_CHECKING:
    from driftline.serving.kafka.settings import KafkaSettings

_SUBMIT: Final = "submit:"


@click.command()
@options_of(MonitorSettings, ReferenceSettings, OnlineSettings)
@click.option(
    "--on-drift",
    default="",
    metavar="submit:PIPELINE",
    help="Start a run of the Kubeflow pipeline of this name.  [default: nothing]",
)
@click.option("--kfp-url", default="", metavar="URL", help="Kubeflow Pipelines' API for --on-drift.")
@options_of(RunSettings, but=["url"])
@click.option(
    "--run-parameter",
    "run_parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the run; numbers are given as such. In a value {alert} stands for the alert's id, {first_date} "
    "and {last_date} for the days of the window. The parameter reference is the monitor's unless given. Repeatable.",
)
@health_port_option
@kafka_options()
def monitor(
    on_drift: str,
    kfp_url: str,
    run_parameters: tuple[str, ...],
    health_port: int,
    kafka: KafkaSettings,
    **options: Any,
) -> None:
    """Watch a stream of embeddings for drift, and raise alarms.

    One monitor watches all partitions of a topic. Restarted, it goes on where its state says, each record counted once.
    """
    from driftline.serving.monitor.worker import run
    from driftline.serving.process import set_up_logging, stopping_on_signals

    online = settings_from(OnlineSettings, options)
    started = fields_from(RunSettings, options)
    reference = settings_from(ReferenceSettings, options, online=online)
    settings = settings_from(
        MonitorSettings,
        options,
        reference=reference,
        run=RunSettings(kfp_url, _pipeline(on_drift), _parameters(reference.dataset, run_parameters), **started)
        if on_drift
        else None,
    )
    set_up_logging()
    # The clients tell every attempt to reach a broker that is away; the monitor tells that once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    with stopping_on_signals() as stop:
        run(settings, kafka, stop, health_port=health_port)


def _pipeline(on_drift: str) -> str:
    if not on_drift.startswith(_SUBMIT):
        raise UsageError(f"on-drift: expected submit: and a pipeline's name, got {on_drift!r}")
    return on_drift.removeprefix(_SUBMIT)


def _parameters(reference: str, given: tuple[str, ...]) -> tuple[tuple[str, object], ...]:
    """Read NAME=VALUE pairs: JSON's numbers, true, false and quoted strings as such, all else as strings."""
    parameters: dict[str, object] = {"reference": reference}
    for pair in given:
        name, separator, text = pair.partition("=")
        if not name or not separator:
            raise UsageError(f"run-parameter: expected NAME=VALUE, got {pair!r}")
        try:
            parameters[name] = json.loads(text, parse_constant=_no_number)
        except ValueError:
            parameters[name] = text
    return tuple(parameters.items())


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
