"""Options of every command that loads an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

_OPTIONS: Final = (
    click.option("--prompt", default="", help="Name of one of the model's prompts, such as document."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="Number type of the model: auto is float32 on a CPU, float16 on a GPU.",
    ),
    click.option(
        "--dimension",
        type=click.IntRange(min=0),
        default=0,
        metavar="D",
        help="Leading numbers of a Matryoshka model's vectors to keep.  [default: all]",
    ),
    click.option(
        "--max-tokens",
        type=click.IntRange(min=0),
        default=0,
        metavar="T",
        help="Tokens of a text to look at.  [default: the model's maximum]",
    ),
    click.option(
        "--segments",
        type=click.Choice(["mean", "max"]),
        default=None,
        help="Embed longer texts by overlapping windows, pooled so, instead of cutting them.",
    ),
    click.option(
        "--overlap",
        type=click.IntRange(min=0),
        default=0,
        metavar="T",
        help="Tokens that neighbouring windows share.  [default: an eighth]",
    ),
)


def encoder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that decide an encoder's vectors."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
