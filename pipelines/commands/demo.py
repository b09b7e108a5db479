"""`driftline demo` and `driftline demo-stream`."""

from __future__ import annotations

import click


@click.command()
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


@click.command("demo-stream")
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
