"""`driftline stream`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from driftline.components.command_line.options import (
    model_cache_option,
    model_option,
    options_of,
    settings_from,
    tunings_option,
)
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import UsageError
from driftline.components.mmd.online import OnlineSettings
from driftline.components.user_paths import user_tunings
from driftline.serving.commands.kafka_options import kafka_options
from driftline.serving.stream.settings import BatchLimits, BufferLimits, StreamSettings
from driftline.serving.telemetry.health import health_port_option

if TYPE_CHECKING:
    from driftline.serving.kafka.settings import KafkaSettings


@click.command()
@options_of(StreamSettings, BatchLimits, BufferLimits)
@click.option("--create-topics", is_flag=True, help="Create the output topic and that of dead letters if missing.")
@model_option
@click.option(
    "--monitor-reference",
    default="",
    metavar="DATASET",
    help="Watch for drift in the worker: the embeddings dataset that the stream used to look like.  [default: do not]",
)
@click.option("--monitor-state", default="", metavar="DIR", help="Folder or gs:// prefix for the monitors' states.")
@click.option("--monitor-alerts-topic", default="", metavar="TOPIC", help="Where alerts go.  [default: the log only]")
@options_of(OnlineSettings, only=["ert", "window"], prefix="monitor-")
@options_of(EncoderSettings)
@tunings_option
@model_cache_option("temporary")
@health_port_option
@kafka_options()
def stream(
    create_topics: bool,
    model: str,
    monitor_reference: str,
    monitor_state: str,
    monitor_alerts_topic: str,
    tunings: str | None,
    model_cache: str | None,
    health_port: int,
    kafka: KafkaSettings,
    **options: Any,
) -> None:
    """Embed texts from one topic onto another, each exactly once.

    Tombstones go through as tombstones. What cannot be processed becomes a dead letter, whole, with the reason in its
    headers. Any number of workers share a topic by its partitions; each needs an instance id of its own, which also
    names its transactions.
    """
    from pathlib import Path

    from driftline.components.embedding.encoding.opening import open_encoder
    from driftline.serving.process import set_up_logging, stopping_on_signals
    from driftline.serving.stream.encoding import Model
    from driftline.serving.stream.run import run_stream

    encoder = settings_from(EncoderSettings, options)
    settings = settings_from(
        StreamSettings,
        options,
        batch=settings_from(BatchLimits, options),
        buffer=settings_from(BufferLimits, options),
    )
    observe = None
    if monitor_reference:
        if not monitor_state:
            raise UsageError("monitor-reference: it needs --monitor-state, where what was seen outlives the worker")
        from functools import partial

        from driftline.components.storage.objects.store import join
        from driftline.serving.monitor.in_process import watching
        from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings

        online = settings_from(OnlineSettings, options, prefix="monitor-")
        watched = MonitorSettings(
            topic=settings.source,
            reference=ReferenceSettings(monitor_reference, online=online),
            state=join(monitor_state, settings.instance_id),
            alerts_topic=monitor_alerts_topic,
        )
        observe = partial(watching, watched, kafka)
    set_up_logging()

    def load() -> Model:
        cache = None if model_cache is None else Path(model_cache)
        opened = open_encoder(model, encoder, tunings=user_tunings() if tunings is None else tunings, cache=cache)
        return Model(opened.encoder, opened.name, opened.revision)

    with stopping_on_signals() as stop:
        run_stream(
            settings,
            kafka,
            load,
            stop,
            create_topics=create_topics,
            health_port=health_port,
            environment=os.environ,
            observe=observe,
        )
