"""The `driftline` command.

Exit status: 0 done, and no drift found; 3 drift found; 2 wrong usage; 1 failure; 130 interrupted, 143 told to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

import click

from driftline.components.command_line.ending import run_command
from driftline.components.command_line.group import LazyGroup
from driftline.serving.commands.group import COMMANDS as STREAMING

_FOLDER: Final = "driftline.pipelines.commands"
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "embed": (f"{_FOLDER}.embed:embed", "Embed texts into an embeddings dataset."),
    "drift": (f"{_FOLDER}.drift:drift", "Tell whether one embeddings dataset still looks like another."),
    "bench": (f"{_FOLDER}.bench:bench", "Measure this machine."),
    "compile": (
        f"{_FOLDER}.compile:compile_",
        "Compile a pipeline (drift, unless named, or backfill) or a component to YAML for a Kubeflow cluster.",
    ),
    "submit": (f"{_FOLDER}.submit:submit", "Run a pipeline on Kubeflow, and end with its verdict."),
    "schedule": (
        f"{_FOLDER}.schedule:schedule",
        "Make or replace a schedule on Kubeflow: afterwards there is one of that name, as described here.",
    ),
    "runs": (
        f"{_FOLDER}.runs:runs",
        "List runs on Kubeflow with their verdicts and reports; or show one, and wait for it.",
    ),
    "demo": (
        f"{_FOLDER}.demo:demo",
        "Find drift in real film reviews: fetch a small model and the texts, embed four windows, test three.",
    ),
    "demo-stream": (
        f"{_FOLDER}.demo:demo_stream",
        "Stream real film reviews through a broker, the server, the worker, the archive and the monitor, until drift.",
    ),
    **STREAMING,
}
"""By name: where it is, and what it does. `driftline --help` answers at once, and each command loads, and needs
installed, only its own part."""


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog="Exit status: 0 no drift, 3 drift, 2 wrong usage, 1 failure.")
@click.version_option(version("driftline"), prog_name="driftline")
def cli() -> None:
    """Embed streams of texts, and tell when a stream stops looking like it used to."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every error that a user can put right is one line, never a traceback."""
    run_command(cli, "driftline", arguments)
