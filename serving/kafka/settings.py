"""What it takes to reach a Kafka cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from driftline.components.errors import UsageError
from driftline.components.secret import Secret

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SECURITY_PROTOCOLS: Final = get_args(SecurityProtocol)
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
SASL_MECHANISMS: Final = get_args(SaslMechanism)


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach a cluster.

    Attributes:
        bootstrap_servers: ``host:port`` of some brokers.
        security_protocol: plain or encrypted, with or without a login.
        sasl_mechanism: of the login; None without one.
        sasl_username: of the login.
        sasl_password: of the login.
        tls_ca_file: authorities to trust, PEM; empty for the system's.
        tls_certificate_file: this client's certificate, PEM, where the brokers ask for one.
        tls_key_file: its key, PEM.
        client_id: what the brokers call this client in their logs and quotas.

    Raises:
        UsageError: settings that contradict one another, or a login that lacks a part.
    """

    bootstrap_servers: tuple[str, ...]
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str = ""
    sasl_password: Secret | None = None
    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
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
