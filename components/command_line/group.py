"""Groups of commands, each of which is loaded, with what it needs, when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import click

PREFIX: Final = "DRIFTLINE"
WIDTH: Final = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}


class LazyGroup(click.Group):
    """A group that lists its commands without loading them.

    Each option of all commands may be given as an environment variable too: ``DRIFTLINE_<COMMAND>_<OPTION>``, after
    what is typed.
    """

    def __init__(self, *arguments: Any, lazy: Mapping[str, tuple[str, str]], **others: Any) -> None:
        """Make a group.

        Args:
            arguments: as of :class:`click.Group`.
            lazy: by a command's name, ``module:attribute`` of it and what the list of commands says of it.
            others: as of :class:`click.Group`.
        """
        super().__init__(*arguments, context_settings=WIDTH, **others)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, its options' environment variables named, or None where there is none of that name."""
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        _name_variables(found, f"{PREFIX}_{_variable(cmd_name)}")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.lazy[name][1]) for name in self.list_commands(ctx)])


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
