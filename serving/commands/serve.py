"""`driftline serve`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from driftline.components.user_paths import user_profile
from driftline.serving.commands.encoder_options import encoder_options
from driftline.serving.commands.kafka_options import kafka_options

if TYPE_CHECKING:
    from driftline.serving.kafka.settings import KafkaSettings


@click.command()
@click.option(
    "--model",
    required=True,
    multiple=True,
    metavar="[NAME=]M",
    help="Folder, gs:// prefix or name of a sentence-transformers model, and its name in the routes; may be repeated.  "
    "[default: the last part of where it lies]",
)
@click.option("--host", default="0.0.0.0", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    metavar="PORT",
    help="Port of HTTP; 0 for any free one.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(-1, 65_535),
    default=8081,
    show_default=True,
    metavar="PORT",
    help="Port of gRPC; 0 for any free one, -1 for none.",
)
@click.option(
    "--output-topic",
    default="",
    metavar="TOPIC",
    help="Topic that takes the results of events before they are answered.  [default: replies alone]",
)
@click.option(
    "--format",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help='How texts are written in events that do not say so: {"text": …} or plain.',
)
@click.option(
    "--vectors",
    type=click.Choice(["numbers", "base64"]),
    default="numbers",
    show_default=True,
    help="How events' vectors are written: as JSON numbers, or base64 of little-endian float32.",
)
@click.option("--text/--no-text", default=True, show_default=True, help="Carry events' texts along with vectors.")
@click.option(
    "--produce-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds within which a result is safe on the output topic, or the event is answered with 503.",
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=0),
    default=0,
    metavar="T",
    help="Tokens of a batch.  [default: as many as the encoder runs at a time]",
)
@click.option(
    "--queue-texts",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Texts that may wait for each model; beyond, requests are answered with 429.",
)
@click.option(
    "--queue-characters",
    type=click.IntRange(min=1),
    default=16_000_000,
    show_default=True,
    help="Characters of all texts in hand, for each model.",
)
@click.option(
    "--max-texts",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Texts in a request; more are answered with 422.",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(min=1),
    default=16 * 1024 * 1024,
    show_default=True,
    help="Size of a request's body; a larger one is answered with 413.",
)
@click.option(
    "--max-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds that an answer may take, whatever the request's X-Request-Timeout-Ms says; then 504.",
)
@click.option(
    "--drain-delay",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Seconds of serving on when told to end, until load balancers have noticed that it is not ready any more.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    default=25.0,
    show_default=True,
    metavar="S",
    help="Seconds to finish what is in hand when told to end, the delay included.",
)
@encoder_options
@click.option("--device", default="", metavar="NAME", help="PyTorch's device, such as cuda:0.  [default: the best]")
@click.option(
    "--profile",
    metavar="FILE",
    help="What `driftline bench encode` measured.  [default: of this user, where there is one]",
)
@click.option(
    "--model-cache", default="", metavar="DIR", help="Local folder for models from gs://.  [default: temporary]"
)
@kafka_options(required=False)
def serve(
    model: tuple[str, ...],
    host: str,
    http_port: int,
    grpc_port: int,
    output_topic: str,
    format: str,
    vectors: str,
    text: bool,
    produce_timeout: float,
    batch_tokens: int,
    queue_texts: int,
    queue_characters: int,
    max_texts: int,
    max_body_bytes: int,
    max_timeout: float,
    drain_delay: float,
    drain_timeout: float,
    prompt: str,
    precision: str,
    dimension: int,
    max_tokens: int,
    segments: str | None,
    overlap: int,
    device: str,
    profile: str | None,
    model_cache: str,
    kafka: KafkaSettings | None,
) -> None:
    """Serve embeddings by KServe's protocols, OpenAI's API and CloudEvents.

    Models named NAME answer at /v1/models/NAME:predict (V1, and CloudEvents as a KafkaSource sends them),
    /v2/models/NAME/infer (V2, in gRPC too) and /openai/v1/embeddings; /openapi.json says more. Texts of all requests
    are encoded in common batches.
    """
    from driftline.components.embedding.encoding.settings import EncoderSettings
    from driftline.serving.batching.limits import Limits
    from driftline.serving.models.spec import ModelSettings, ModelSpec
    from driftline.serving.server.settings import EventSettings, RequestLimits, ServerSettings

    settings = ServerSettings(
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        limits=RequestLimits(max_body_bytes, max_texts, max_timeout),
        events=EventSettings(
            payload=format,  # pyright: ignore[reportArgumentType] - one of the option's choices, as the next one
            output_topic=output_topic,
            kafka=kafka,
            vectors=vectors,  # pyright: ignore[reportArgumentType]
            carry_text=text,
            produce_timeout_s=produce_timeout,
        ),
        drain_delay_s=drain_delay,
        drain_timeout_s=drain_timeout,
    )
    served = ModelSettings(
        encoder=EncoderSettings.of(prompt, precision, dimension, max_tokens, segments, overlap),
        limits=Limits(batch_tokens=batch_tokens, queue_texts=queue_texts, queue_characters=queue_characters),
        profile=user_profile() if profile is None else profile,
        cache=model_cache,
        device=device,
    )
    specs = [ModelSpec.parse(one) for one in model]

    # What is wrong so far is told at once; these take seconds to import.
    from prometheus_client import REGISTRY

    from driftline.serving.models.host import ServedModels
    from driftline.serving.server.server import EmbeddingServer

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("driftline").setLevel(logging.INFO)
    EmbeddingServer(ServedModels(specs, served, REGISTRY), settings, REGISTRY).run()
