"""The `driftline` command.

Exit status: 0 done, and no drift found; 3 drift found; 2 wrong usage; 1 failure; 130 interrupted, 143 told to end.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

import click

from driftline.components.command_line import run_command
from driftline.pipelines.commands.bench import bench
from driftline.pipelines.commands.drift import drift
from driftline.pipelines.commands.embed import embed
from driftline.serving.commands.group import ServingCommands

# Imports of the jobs stand in the commands: `driftline --help` answers at once, and each command loads, and needs
# installed, only its own part.

WIDTH: Final = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}


@click.group(
    cls=ServingCommands, context_settings=WIDTH, epilog="Exit status: 0 no drift, 3 drift, 2 wrong usage, 1 failure."
)
@click.version_option(version("driftline"), prog_name="driftline")
def cli() -> None:
    """Embed streams of texts, and tell when a stream stops looking like it used to."""


for command in (embed, drift, bench):
    cli.add_command(command)


def _image(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    from driftline.components.images import BY_NAME

    images = dict(BY_NAME)
    for value in values:
        name, separator, reference = value.partition("=")
        if name not in BY_NAME or not separator or not reference:
            raise click.BadParameter(f"expected NAME=REFERENCE with NAME one of {', '.join(BY_NAME)}, got {value!r}")
        images[name] = reference
    return images


@cli.command("compile")
@click.argument("pipeline", default="drift", metavar="[PIPELINE]")
@click.option("--out", required=True, metavar="FILE", help="YAML file to write, to upload to Kubeflow.")
@click.option(
    "--image",
    "images",
    multiple=True,
    callback=_image,
    metavar="NAME=REF",
    help="Image reference for embed or kernels, by digest in production; repeatable.",
)
@click.option(
    "--gpu",
    type=click.Choice(["embed", "kernels", "none"]),
    multiple=True,
    default=["embed"],
    show_default=True,
    help="Fan-outs whose tasks ask for a GPU each; repeatable.",
)
@click.option(
    "--model-claim",
    default="",
    metavar="PVC",
    help="Persistent volume claim in which models from gs:// are kept between tasks and runs.",
)
def compile_(pipeline: str, out: str, images: dict[str, str], gpu: tuple[str, ...], model_claim: str) -> None:
    """Compile a pipeline, drift or backfill, to YAML for a Kubeflow cluster."""
    from driftline.pipelines.compiled import write_pipeline
    from driftline.pipelines.profile import Profile

    write_pipeline(pipeline, Profile(images=images, gpu=frozenset(gpu) - {"none"}, model_claim=model_claim), out)
    click.echo(out)


@cli.command()
@click.option(
    "--folder",
    default=".demo",
    show_default=True,
    metavar="DIR",
    help="Where the model, the texts and the reports go.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="Seed of the windows and the tests.")
def demo(folder: str, seed: int) -> None:
    """Find drift in real film reviews: fetch a small model and the texts, embed four windows, test three."""
    from driftline.pipelines.demo import run_demo

    run_demo(folder, seed, click.echo)


@cli.command("demo-stream")
@click.option(
    "--folder",
    default=".demo",
    show_default=True,
    metavar="DIR",
    help="Where the model, the texts, the archive and the report go.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="Seed of the stream and the tests.")
def demo_stream(folder: str, seed: int) -> None:
    """Stream real film reviews through a broker, the server, the worker, the archive and the monitor, until drift."""
    from driftline.pipelines.streaming_demo.run import run_streaming_demo

    run_streaming_demo(folder, seed, click.echo)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every error that a user can put right is one line, never a traceback."""
    run_command(cli, "driftline", arguments)
