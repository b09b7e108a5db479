"""Options with which every command reaches Kafka."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, cast

import click

from driftline.components.errors import UsageError
from driftline.components.secret import Secret
from driftline.serving.kafka.settings import (
    SASL_MECHANISMS,
    SECURITY_PROTOCOLS,
    KafkaSettings,
    SaslMechanism,
    SecurityProtocol,
)

_OPTIONS: Final = (
    click.option(
        "--bootstrap-servers", metavar="HOST:PORT[,…]", required=True, help="Some of the Kafka cluster's brokers."
    ),
    click.option(
        "--security-protocol",
        type=click.Choice(SECURITY_PROTOCOLS),
        default="PLAINTEXT",
        show_default=True,
        help="Encryption and login.",
    ),
    click.option("--sasl-mechanism", type=click.Choice(SASL_MECHANISMS), help="Kind of login."),
    click.option("--sasl-username", default="", help="User name of the login."),
    click.option(
        "--sasl-password-file",
        metavar="FILE",
        default="",
        help="File that holds the password; trailing newlines are no part.",
    ),
    click.option(
        "--tls-ca-file", metavar="FILE", default="", help="Authorities to trust, PEM.  [default: the system's]"
    ),
    click.option("--tls-certificate-file", metavar="FILE", default="", help="This client's certificate, PEM."),
    click.option("--tls-key-file", metavar="FILE", default="", help="This client's key, PEM."),
)
_NAMES: Final = (
    "bootstrap_servers",
    "security_protocol",
    "sasl_mechanism",
    "sasl_username",
    "sasl_password_file",
    "tls_ca_file",
    "tls_certificate_file",
    "tls_key_file",
)


def kafka_options(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that reach Kafka, and the parameter ``kafka`` with what they say.

    Args:
        required: whether the brokers must be named; where they need not be and are not, ``kafka`` is None.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def wrapped(**values: Any) -> Any:
            given = {name: values.pop(name) for name in _NAMES}
            kafka = kafka_settings(**given) if given["bootstrap_servers"] else None
            return command(kafka=kafka, **values)

        decorated: Callable[..., Any] = wrapped
        for option in reversed(_OPTIONS):
            decorated = option(decorated)
        if not required:
            for parameter in cast("Any", decorated).__click_params__:
                if parameter.name == "bootstrap_servers":
                    parameter.required = False
        return decorated

    return decorate


def kafka_settings(
    bootstrap_servers: str,
    security_protocol: str,
    sasl_mechanism: str | None,
    sasl_username: str,
    sasl_password_file: str,
    tls_ca_file: str,
    tls_certificate_file: str,
    tls_key_file: str,
) -> KafkaSettings:
    """Make settings of what the options say; the password is read from its file, here and once.

    Raises:
        UsageError: they contradict one another, or the password cannot be read.
    """
    password = None
    if sasl_password_file:
        try:
            password = Secret(Path(sasl_password_file).read_text(encoding="utf-8").rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not UTF-8"
            raise UsageError(f"sasl-password-file {sasl_password_file}: {reason}; name a file that holds it") from error
    return KafkaSettings(
        bootstrap_servers=tuple(part.strip() for part in bootstrap_servers.split(",") if part.strip()),
        security_protocol=cast("SecurityProtocol", security_protocol),
        sasl_mechanism=cast("SaslMechanism | None", sasl_mechanism),
        sasl_username=sasl_username,
        sasl_password=password,
        tls_ca_file=tls_ca_file,
        tls_certificate_file=tls_certificate_file,
        tls_key_file=tls_key_file,
    )
