"""The `driftline` command.

Exit status: 0 done, and no drift found; 3 drift found; 2 wrong usage; 1 failure; 130 interrupted, 143 told to end.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

import click

from driftline.components.command_line import run_command
from driftline.pipelines.commands.bench import bench
from driftline.pipelines.commands.compile import compile_
from driftline.pipelines.commands.drift import drift
from driftline.pipelines.commands.embed import embed
from driftline.pipelines.commands.runs import runs
from driftline.pipelines.commands.schedule import schedule
from driftline.pipelines.commands.submit import submit
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


for command in (embed, drift, bench, compile_, submit, schedule, runs):
    cli.add_command(command)


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
    from driftline.pipelines.demo.drift import run_demo

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
    from driftline.pipelines.demo.streaming import run_streaming_demo

    run_streaming_demo(folder, seed, click.echo)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every error that a user can put right is one line, never a traceback."""
    run_command(cli, "driftline", arguments)
