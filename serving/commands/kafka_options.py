"""Options with which every command reaches Kafka."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from driftline.components.command_line.options import fields_from, options_of
from driftline.components.errors import UsageError
from driftline.components.secret import Secret
from driftline.serving.kafka.settings import KafkaSettings


def kafka_options(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that reach Kafka, and the parameter ``kafka`` with what they say.

    Args:
        required: whether the brokers must be named; where they need not be and are not, ``kafka`` is None.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--bootstrap-servers",
            metavar="HOST:PORT[,…]",
            required=required,
            help="Some of the Kafka cluster's brokers.",
        )
        @options_of(KafkaSettings)
        @click.option(
            "--sasl-password-file",
            metavar="FILE",
            default="",
            help="File that holds the password; trailing newlines are no part.",
        )
        @wraps(command)
        def wrapped(bootstrap_servers: str | None, sasl_password_file: str, **options: Any) -> Any:
            given = fields_from(KafkaSettings, options)
            servers = tuple(part.strip() for part in (bootstrap_servers or "").split(",") if part.strip())
            password = _password(sasl_password_file)
            kafka = KafkaSettings(servers, sasl_password=password, **given) if bootstrap_servers else None
            return command(kafka=kafka, **options)

        return wrapped

    return decorate


def _password(file: str) -> Secret | None:
    """Return the password that a file holds, read here and once; None for no file."""
    if not file:
        return None
    try:
        return Secret(Path(file).read_text(encoding="utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise UsageError(f"sasl-password-file {file}: {reason}; name a file that holds it") from error
