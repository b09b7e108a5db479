"""What Driftline's commands share: how they end, and the one line that an error becomes.

Exit status: 0 done; 2 wrong usage; 1 failure; 130 interrupted, 143 told to end; others are the command's own.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import click

from driftline.components.errors import DriftlineError, UsageError

INTERRUPTED: Final = 128 + signal.SIGINT


def run_command(command: click.Command, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run a command and end the process with its status.

    Args:
        command: what to run.
        name: what the user calls it.
        arguments: the command line; None for the process's own.
    """
    with _ending_in_order():
        sys.exit(_status(lambda: command.main(arguments, prog_name=name, standalone_mode=False)))


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
