"""`python -m driftline.serving COMMAND`: the entry point of containers, which hold no `driftline` command."""

import click

from driftline.components.command_line import run_command
from driftline.serving.commands.group import ServingCommands


@click.group(cls=ServingCommands, context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})
def serving() -> None:
    """Serve, stream, archive and watch texts' embeddings."""


if __name__ == "__main__":
    run_command(serving, "driftline")
