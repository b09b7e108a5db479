"""The commands by name, each loaded, with what it needs, when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

NAMES: Final = ("serve", "stream", "archive", "monitor", "dead-letters")


def command(name: str) -> click.Command:
    """Return one of the commands."""
    word = name.replace("-", "_")
    return getattr(import_module(f"driftline.serving.commands.{word}"), word)


class ServingCommands(click.Group):
    """The commands of the streaming side; a group may have others of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted({*super().list_commands(ctx), *NAMES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where there is none of that name."""
        return command(cmd_name) if cmd_name in NAMES else super().get_command(ctx, cmd_name)
