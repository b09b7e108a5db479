"""`driftline serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from driftline.components.command_line.options import model_cache_option, options_of, settings_from, tunings_option
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.user_paths import user_tunings
from driftline.serving.batching.limits import BatcherLimits
from driftline.serving.commands.kafka_options import kafka_options
from driftline.serving.server.settings import EventSettings, RequestLimits, ServerSettings

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
@options_of(ServerSettings, EventSettings, BatcherLimits, RequestLimits, EncoderSettings)
@click.option("--device", default="", metavar="NAME", help="PyTorch's device, such as cuda:0.  [default: the best]")
@tunings_option
@model_cache_option("temporary")
@kafka_options(required=False)
def serve(
    model: tuple[str, ...],
    device: str,
    tunings: str | None,
    model_cache: str | None,
    kafka: KafkaSettings | None,
    **options: Any,
) -> None:
    """Serve embeddings by KServe's protocols, OpenAI's API and CloudEvents.

    Models named NAME answer at /v1/models/NAME:predict (V1, and CloudEvents as a KafkaSource sends them),
    /v2/models/NAME/infer (V2, in gRPC too) and /openai/v1/embeddings; /openapi.json says more. Texts of all requests
    are encoded in common batches.
    """
    from driftline.serving.models.spec import ModelSettings, ModelSpec

    served = ModelSettings(
        encoder=settings_from(EncoderSettings, options),
        limits=settings_from(BatcherLimits, options),
        tunings=user_tunings() if tunings is None else tunings,
        cache=model_cache or "",
        device=device,
    )
    settings = settings_from(
        ServerSettings,
        options,
        limits=settings_from(RequestLimits, options),
        events=settings_from(EventSettings, options, kafka=kafka),
    )
    specs = [ModelSpec.parse(one) for one in model]

    # What is wrong so far is told at once; these take seconds to import.
    from prometheus_client import REGISTRY

    from driftline.serving.models.host import ServedModels
    from driftline.serving.process import set_up_logging
    from driftline.serving.server.server import EmbeddingServer

    set_up_logging()
    EmbeddingServer(ServedModels(specs, served, REGISTRY), settings, REGISTRY).run()
