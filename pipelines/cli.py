"""The `driftline` command.

Exit status: 0 done, and no drift found; 3 drift found; 2 wrong usage; 1 failure; 130 interrupted, 143 told to end.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

import click

from driftline.components.errors import DriftlineError, UsageError
from driftline.pipelines.commands.bench import bench
from driftline.pipelines.commands.drift import drift
from driftline.pipelines.commands.embed import embed

# Imports of the jobs stand in the commands: `driftline --help` answers at once, and each command loads, and needs
# installed, only its own part.

INTERRUPTED: Final = 128 + signal.SIGINT
WIDTH: Final = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=WIDTH, epilog="Exit status: 0 no drift, 3 drift, 2 wrong usage, 1 failure.")
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every error that a user can put right is one line, never a traceback."""
    with _ending_in_order():
        sys.exit(_status(lambda: cli.main(arguments, prog_name="driftline", standalone_mode=False)))


@contextmanager
def _ending_in_order() -> Generator[None]:
    """Let SIGTERM end the command as Ctrl-C does: with its tasks stopped and its working files removed."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _status(run: Callable[[], Any]) -> int:
    try:
        run()
    except UsageError as error:
        click.echo(f"driftline: {error}", err=True)
        return 2
    except DriftlineError as error:
        click.echo(f"driftline: {error}", err=True)
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = "driftline" if context is None else context.command_path
        message = " ".join(error.format_message().split()).rstrip(".")
        click.echo(f"driftline: {message}; see {command} --help", err=True)
        return error.exit_code
    except ModuleNotFoundError as error:
        part = "all" if error.name is None else error.name
        click.echo(
            f"driftline: the package {part} is not installed; pip install 'driftline[all]', or the extra of this part",
            err=True,
        )
        return 1
    except OSError as error:  # of the machine rather than of a dataset: no room for temporary files, say
        place = "" if error.filename is None else f"{error.filename}: "
        click.echo(
            f"driftline: {place}{error.strerror or error}; check the path, its permissions and its disk", err=True
        )
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("driftline: interrupted", err=True)
        return INTERRUPTED
    return 0
