"""`python -m driftline.serving COMMAND`: the entry point of containers, which hold no `driftline` command."""

# ruff: noqa: E402
import signal
import sys

# First of all: a container's first process is sent no signal that it has not asked for, and imports take seconds.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

import click

from driftline.components.command_line.ending import run_command
from driftline.components.command_line.group import LazyGroup
from driftline.serving.commands.group import COMMANDS


@click.group(cls=LazyGroup, lazy=COMMANDS)
def serving() -> None:
    """Serve, stream, archive and watch texts' embeddings."""


if __name__ == "__main__":
    run_command(serving, "driftline")
