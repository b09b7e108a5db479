"""`driftline stream`."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

import click

from driftline.components.errors import UsageError
from driftline.components.user_paths import user_profile
from driftline.serving.commands.encoder_options import encoder_options
from driftline.serving.commands.kafka_options import kafka_options

if TYPE_CHECKING:
    from driftline.serving.kafka.settings import KafkaSettings


@click.command()
@click.option("--input-topic", required=True, metavar="TOPIC", help="Topic of the texts.")
@click.option("--output-topic", required=True, metavar="TOPIC", help="Topic of the embeddings.")
@click.option(
    "--dead-letters-topic",
    default="",
    metavar="TOPIC",
    help="Topic of what cannot be processed.  [default: the input topic's name and .dead-letters]",
)
@click.option("--create-topics", is_flag=True, help="Create the output topic and that of dead letters if missing.")
@click.option(
    "--model", required=True, metavar="M", help="Folder, gs:// prefix or name of a sentence-transformers model."
)
@click.option(
    "--group",
    default="driftline-stream",
    show_default=True,
    help="Consumer group; its workers share the input topic's partitions.",
)
@click.option(
    "--instance-id",
    default=None,
    metavar="NAME",
    help="This worker's name in the group, the same again after a restart.  [default: the host's name]",
)
@click.option(
    "--delivery",
    type=click.Choice(["exactly-once", "at-least-once"]),
    default="exactly-once",
    show_default=True,
    help="Results and offsets in one transaction, or offsets after results.",
)
@click.option(
    "--format",
    "payload",
    type=click.Choice(["json", "text", "cloudevents"]),
    default="json",
    show_default=True,
    help='How texts are written: {"text": …}, plain, or as CloudEvents.',
)
@click.option(
    "--vectors",
    type=click.Choice(["numbers", "base64"]),
    default="numbers",
    show_default=True,
    help="How vectors are written: as JSON numbers, or base64 of little-endian float32.",
)
@click.option("--text/--no-text", "with_text", default=True, show_default=True, help="Carry texts along with vectors.")
@click.option(
    "--batch-records", type=click.IntRange(min=1), default=512, show_default=True, help="Records of a micro-batch."
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    default=32_768,
    show_default=True,
    help="Tokens of a micro-batch, at four characters each.",
)
@click.option(
    "--linger-ms",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    help="How long a micro-batch that is not full waits for more.",
)
@click.option(
    "--buffer-records",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Records read ahead; beyond, partitions are paused.",
)
@click.option(
    "--buffer-bytes",
    type=click.IntRange(min=1),
    default=64 * 1024 * 1024,
    show_default=True,
    help="Bytes of the records read ahead.",
)
@click.option(
    "--assignment",
    type=click.Choice(["range", "cooperative-sticky"]),
    default="range",
    show_default=True,
    help="How the group shares partitions; the same for all of its workers.",
)
@click.option(
    "--session-timeout",
    "session_timeout_s",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds of silence after which a worker's partitions are given to others.",
)
@click.option(
    "--static/--dynamic",
    default=True,
    show_default=True,
    help="Take up this worker's place in the group again after a restart, or join as a new member.",
)
@click.option(
    "--stay",
    is_flag=True,
    help="Let the group keep this worker's partitions for its return when it ends.  [default: hand them over]",
)
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=click.FloatRange(min=0),
    default=25.0,
    show_default=True,
    metavar="S",
    help="Seconds to finish what is in hand when told to end.",
)
@click.option(
    "--monitor-reference",
    default="",
    metavar="DATASET",
    help="Watch for drift in the worker: the embeddings dataset that the stream used to look like.  [default: do not]",
)
@click.option("--monitor-state", default="", metavar="DIR", help="Folder or gs:// prefix for the monitors' states.")
@click.option("--monitor-alerts-topic", default="", metavar="TOPIC", help="Where alerts go.  [default: the log only]")
@click.option(
    "--monitor-ert",
    type=float,
    default=100_000,
    show_default=True,
    metavar="N",
    help="Mean number of records between false alarms of one worker.",
)
@click.option("--monitor-window", type=int, default=200, show_default=True, metavar="W", help="Records compared.")
@encoder_options
@click.option(
    "--profile",
    metavar="FILE",
    help="What `driftline bench encode` measured.  [default: of this user, where there is one]",
)
@click.option(
    "--model-cache", default=None, metavar="DIR", help="Local folder for models from gs://.  [default: temporary]"
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
def stream(
    input_topic: str,
    output_topic: str,
    dead_letters_topic: str,
    create_topics: bool,
    model: str,
    group: str,
    instance_id: str | None,
    delivery: str,
    payload: str,
    vectors: str,
    with_text: bool,
    batch_records: int,
    batch_tokens: int,
    linger_ms: float,
    buffer_records: int,
    buffer_bytes: int,
    assignment: str,
    session_timeout_s: float,
    static: bool,
    stay: bool,
    drain_timeout_s: float,
    monitor_reference: str,
    monitor_state: str,
    monitor_alerts_topic: str,
    monitor_ert: float,
    monitor_window: int,
    prompt: str,
    precision: str,
    dimension: int,
    max_tokens: int,
    segments: str | None,
    overlap: int,
    profile: str | None,
    model_cache: str | None,
    health_port: int,
    kafka: KafkaSettings,
) -> None:
    """Embed texts from one topic onto another, each exactly once.

    Tombstones go through as tombstones. What cannot be processed becomes a dead letter, whole, with the reason in its
    headers. Any number of workers share a topic by its partitions; each needs an instance id of its own, which also
    names its transactions.
    """
    from contextlib import ExitStack
    from pathlib import Path

    from driftline.components.embedding.encoding.settings import EncoderSettings
    from driftline.serving.lifecycle import stopping_on_signals
    from driftline.serving.stream.encoding import Model
    from driftline.serving.stream.loading import loaded_model
    from driftline.serving.stream.run import run_stream
    from driftline.serving.stream.settings import BatchLimits, BufferLimits, StreamSettings

    encoder = EncoderSettings.of(prompt, precision, dimension, max_tokens, segments, overlap)
    settings = StreamSettings(
        source=input_topic,
        output=output_topic,
        group=group,
        instance_id=instance_id or socket.gethostname(),
        dead_letters=dead_letters_topic,
        delivery=delivery,  # pyright: ignore[reportArgumentType] - one of the option's choices, as the next three
        payload=payload,  # pyright: ignore[reportArgumentType]
        vectors=vectors,  # pyright: ignore[reportArgumentType]
        with_text=with_text,
        batch=BatchLimits(batch_records, batch_tokens, linger_ms),
        buffer=BufferLimits(buffer_records, buffer_bytes),
        assignment=assignment,  # pyright: ignore[reportArgumentType]
        session_timeout_s=session_timeout_s,
        static=static,
        stay=stay,
        drain_timeout_s=drain_timeout_s,
    )
    observe = None
    if monitor_reference:
        if not monitor_state:
            raise UsageError("monitor-reference: it needs --monitor-state, where what was seen outlives the worker")
        from functools import partial

        from driftline.components.mmd.online_reference import OnlineSettings
        from driftline.components.storage.objects.store import join
        from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings
        from driftline.serving.stream.watching import watching

        online = OnlineSettings(ert=monitor_ert, window=monitor_window)
        watched = MonitorSettings(
            topic=settings.source,
            reference=ReferenceSettings(monitor_reference, online=online),
            state=join(monitor_state, settings.instance_id),
            alerts_topic=monitor_alerts_topic,
        )
        observe = partial(watching, watched, kafka)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("driftline").setLevel(logging.INFO)
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)  # it warns of every tenth of a second on a busy CPU
    with stopping_on_signals() as stop, ExitStack() as until_end:

        def load() -> Model:
            cache = None if model_cache is None else Path(model_cache)
            return until_end.enter_context(
                loaded_model(model, encoder, user_profile() if profile is None else profile, cache)
            )

        run_stream(
            settings,
            kafka,
            load,
            stop,
            create_topics=create_topics,
            health_port=health_port,
            environment=os.environ,
            observe=observe,
            told=lambda port: click.echo(f"health and metrics: port {port}"),
        )
