"""`driftline monitor`."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

import click

from driftline.components.errors import UsageError
from driftline.serving.commands.kafka_options import kafka_options

if TYPE_CHECKING:
    from driftline.serving.kafka.settings import KafkaSettings
    from driftline.serving.monitor.settings import RunSettings

_SUBMIT: Final = "submit:"


@click.command()
@click.option("--topic", required=True, metavar="TOPIC", help="Topic of embeddings, as the stream worker writes it.")
@click.option(
    "--reference",
    required=True,
    metavar="DATASET",
    help="Embeddings dataset that the stream used to look like; a folder or gs://.",
)
@click.option(
    "--state",
    required=True,
    metavar="DIR",
    help="Folder or gs:// prefix of this monitor alone, where what it has seen outlives it.",
)
@click.option("--alerts-topic", default="", metavar="TOPIC", help="Where alerts go.  [default: the log only]")
@click.option(
    "--ert",
    type=float,
    default=100_000,
    show_default=True,
    metavar="N",
    help="Mean number of records between false alarms.",
)
@click.option(
    "--window",
    type=int,
    default=200,
    show_default=True,
    metavar="W",
    help="Records that are compared with the reference: more see smaller drifts, later.",
)
@click.option(
    "--kind",
    default="ewma",
    show_default=True,
    help="Weights of the window's records: falling with age (ewma), or the same (sliding).",
)
@click.option("--steps", type=int, default=20, show_default=True, help="Scores for each window's worth of records.")
@click.option("--features", type=int, default=512, show_default=True, help="Random frequencies of the kernel.")
@click.option(
    "--kernel", default="rbf", show_default=True, help="Kernel of a distance: rbf, laplace, laplace-l1, imq or rq."
)
@click.option(
    "--on-alarm",
    default="continue",
    show_default=True,
    help="One alarm for a drift that lasts (continue), or a new window and another alarm (restart).",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="Seed of sampling and calibration.")
@click.option(
    "--reference-rows",
    type=int,
    default=20_000,
    show_default=True,
    metavar="N",
    help="At most N rows of the reference, chosen by the seed; 0 for all.",
)
@click.option(
    "--components",
    type=int,
    default=None,
    help="Principal components to compare; 0 for whole vectors.  [default: 32, or all of --projection]",
)
@click.option(
    "--projection",
    default="",
    metavar="FILE",
    help="Projection that a drift run fitted, on other rows than the reference's.  [default: fit one on a quarter]",
)
@click.option(
    "--start-at",
    default="earliest",
    show_default=True,
    help="Where a new monitor begins: with the oldest record that the topic holds (earliest), or the next (latest).",
)
@click.option("--texts", type=int, default=5, show_default=True, help="Texts of each kind in an alert; 0 for none.")
@click.option(
    "--save-interval-s",
    type=float,
    default=5.0,
    show_default=True,
    metavar="S",
    help="How often the state is written.",
)
@click.option(
    "--on-drift",
    default="",
    metavar="submit:PIPELINE",
    help="Start a run of the Kubeflow pipeline of this name.  [default: nothing]",
)
@click.option("--kfp-url", default="", metavar="URL", help="Kubeflow Pipelines' API for --on-drift.")
@click.option("--kfp-namespace", default="", help="Namespace of the pipeline, where Kubeflow serves several users.")
@click.option("--kfp-experiment", default="", help="Experiment of the run.  [default: the default one]")
@click.option("--kfp-service-account", default="", help="Service account of the run's pods.")
@click.option("--kfp-token-file", default="", metavar="FILE", help="File that holds a bearer token.")
@click.option(
    "--run-parameter",
    "run_parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the run; numbers are given as such. In a value {alert} stands for the alert's id, {first_date} "
    "and {last_date} for the days of the window. The parameter reference is the monitor's unless given. Repeatable.",
)
@click.option(
    "--cool-down-s",
    type=float,
    default=3600.0,
    show_default=True,
    metavar="S",
    help="No second run within this time.",
)
@click.option(
    "--health-port",
    type=click.IntRange(-1, 65_535),
    default=8082,
    show_default=True,
    metavar="PORT",
    help="Port of /livez, /readyz and /metrics; 0 for any free one, -1 for none.",
)
@kafka_options()
def monitor(
    topic: str,
    reference: str,
    state: str,
    alerts_topic: str,
    ert: float,
    window: int,
    kind: str,
    steps: int,
    features: int,
    kernel: str,
    on_alarm: str,
    seed: int,
    reference_rows: int,
    components: int | None,
    projection: str,
    start_at: str,
    texts: int,
    save_interval_s: float,
    on_drift: str,
    kfp_url: str,
    kfp_namespace: str,
    kfp_experiment: str,
    kfp_service_account: str,
    kfp_token_file: str,
    run_parameters: tuple[str, ...],
    cool_down_s: float,
    health_port: int,
    kafka: KafkaSettings,
) -> None:
    """Watch a stream of embeddings for drift, and raise alarms.

    One monitor watches all partitions of a topic. Restarted, it goes on where its state says, each record counted once.
    """
    from driftline.components.mmd.online_reference import OnlineSettings
    from driftline.serving.lifecycle import stopping_on_signals
    from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings, RunSettings
    from driftline.serving.monitor.worker import run

    online = OnlineSettings(
        ert=ert,
        window=window,
        kind=kind,  # pyright: ignore[reportArgumentType] - checked by the settings, as the next one
        steps=steps,
        features=features,
        kernel=kernel,
        on_alarm=on_alarm,  # pyright: ignore[reportArgumentType]
        seed=seed,
    )
    started: RunSettings | None = None
    if on_drift:
        started = RunSettings(
            url=kfp_url,
            pipeline=_pipeline(on_drift),
            parameters=_parameters(reference, run_parameters),
            namespace=kfp_namespace,
            experiment=kfp_experiment,
            service_account=kfp_service_account,
            token_file=kfp_token_file,
            cool_down_s=cool_down_s,
        )
    settings = MonitorSettings(
        topic=topic,
        reference=ReferenceSettings(reference, reference_rows, components, projection, online),
        state=state,
        alerts_topic=alerts_topic,
        start_at=start_at,  # pyright: ignore[reportArgumentType] - checked by the settings
        texts=texts,
        save_interval_s=save_interval_s,
        run=started,
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("driftline").setLevel(logging.INFO)
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
