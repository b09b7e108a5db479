"""What it takes to reach a Kafka cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from driftline.components.errors import UsageError
from driftline.components.secret import Secret
from driftline.components.settings import Setting

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""Names that Kafka takes for a topic."""

InstanceId = Annotated[
    str,
    Setting("This worker's name in the group, the same again after a restart", "the host's name", metavar="NAME"),
]
"""A static member's name (KIP-345)."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach a cluster.

    Attributes:
        bootstrap_servers: ``host:port`` of some brokers.
        sasl_password: of the login.
        client_id: what the brokers call this client in their logs and quotas.

    Raises:
        UsageError: settings that contradict one another, or a login that lacks a part.
    """

    bootstrap_servers: tuple[str, ...]
    security_protocol: Annotated[SecurityProtocol, Setting("Encryption and login")] = "PLAINTEXT"
    sasl_mechanism: Annotated[SaslMechanism | None, Setting("Kind of login", "none")] = None
    sasl_username: Annotated[str, Setting("User name of the login", "none", metavar="NAME")] = ""
    sasl_password: Secret | None = None
    tls_ca_file: Annotated[str, Setting("Authorities to trust, PEM", "the system's", metavar="FILE")] = ""
    tls_certificate_file: Annotated[str, Setting("This client's certificate, PEM", "none", metavar="FILE")] = ""
    tls_key_file: Annotated[str, Setting("This client's key, PEM", "none", metavar="FILE")] = ""
    client_id: str = "driftline"

    def __post_init__(self) -> None:
        if not self.bootstrap_servers or not all(self.bootstrap_servers):
            raise UsageError("bootstrap-servers: expected host:port of at least one broker, got nothing")
        with_login = self.security_protocol.startswith("SASL")
        login = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if with_login and not all(login):
            raise UsageError(
                f"security-protocol {self.security_protocol}: it needs a SASL mechanism, a user name and a password"
            )
        if not with_login and any(login):
            raise UsageError(
                f"security-protocol {self.security_protocol}: it has no login; choose SASL_SSL, or leave SASL out"
            )
        files = (self.tls_ca_file, self.tls_certificate_file, self.tls_key_file)
        if not self.security_protocol.endswith("SSL") and any(files):
            raise UsageError(
                f"security-protocol {self.security_protocol}: it is not encrypted; choose SSL or SASL_SSL, or "
                "leave the TLS files out"
            )
        if bool(self.tls_certificate_file) != bool(self.tls_key_file):
            raise UsageError("tls-certificate-file and tls-key-file: give both or neither")

    def options(self) -> dict[str, Any]:
        """Return the settings as kafka-python's clients take them; the password is in the clear there."""
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap_servers),
            "security_protocol": self.security_protocol,
            "client_id": self.client_id,
        }
        if self.sasl_mechanism and self.sasl_password:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.reveal()
        if self.security_protocol.endswith("SSL"):
            options["ssl_cafile"] = self.tls_ca_file or None
            options["ssl_certfile"] = self.tls_certificate_file or None
            options["ssl_keyfile"] = self.tls_key_file or None
        return options
