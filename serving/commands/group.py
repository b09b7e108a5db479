"""The commands by name, each loaded, with what it needs, when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

NAMES: Final = ("serve", "stream", "archive", "monitor", "dead-letters")
PREFIX: Final = "DRIFTLINE"


def command(name: str) -> click.Command:
    """Return one of the commands, its options' environment variables named."""
    word = name.replace("-", "_")
    return with_variables(getattr(import_module(f"driftline.serving.commands.{word}"), word), name)


def with_variables(found: click.Command, name: str) -> click.Command:
    """Name the environment variables of a command's options, ``DRIFTLINE_<COMMAND>_<OPTION>``, after what is typed."""
    _name_variables(found, f"{PREFIX}_{_variable(name)}")
    return found


class ServingCommands(click.Group):
    """The commands of the streaming side; a group may have others of its own.

    Each option of all of them may be given as an environment variable too.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted({*super().list_commands(ctx), *NAMES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where there is none of that name."""
        if cmd_name in NAMES:
            return command(cmd_name)
        found = super().get_command(ctx, cmd_name)
        return None if found is None else with_variables(found, cmd_name)


def _name_variables(named: click.Command, prefix: str) -> None:
    """Name the environment variables of a command's options, and of the commands below it."""
    for parameter in named.params:
        if isinstance(parameter, click.Option) and parameter.envvar is None:
            flag = next(flag for flag in parameter.opts if flag.startswith("--"))
            parameter.envvar = f"{prefix}_{_variable(flag.removeprefix('--'))}"
    if isinstance(named, click.Group):
        for name, below in named.commands.items():
            _name_variables(below, f"{prefix}_{_variable(name)}")


def _variable(word: str) -> str:
    return word.replace("-", "_").upper()
