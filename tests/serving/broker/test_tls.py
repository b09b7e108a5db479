"""TLS for real: a proxy that ends it stands before a broker that advertises the proxy's address."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from driftline.serving.broker.clients import open_consumer, open_producer, record_of
from driftline.serving.broker.settings import KafkaSettings
from driftline.serving.errors import UnavailableError
from tests.support.brokers import create_topics, eventually, tansu_broker


def authority(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1 that vouches for itself, and its key."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    places = folder / "certificate.pem", folder / "key.pem"
    places[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    places[1].write_bytes(secret)
    return places


class TlsProxy:
    """Ends TLS on a port of its own and hands the bytes on to another one."""

    def __init__(self, certificate: Path, key: Path, clients: Path | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target = ("127.0.0.1", 0)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError):
            client = self._context.wrap_socket(raw, server_side=True)
            broker = socket.create_connection(self.target)
            self._open += [client, broker]
            threading.Thread(target=self._pass_on, args=(broker, client), daemon=True).start()
            self._pass_on(client, broker)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@contextmanager
def tls_broker(certificate: Path, key: Path, clients: Path | None = None) -> Generator[tuple[str, str]]:
    """Run a broker behind TLS; yields the address there, and the broker's own."""
    proxy = TlsProxy(certificate, key, clients)
    try:
        with tansu_broker(advertised_port=proxy.port) as own:
            host, _, port = own.rpartition(":")
            proxy.target = (host, int(port))
            yield f"127.0.0.1:{proxy.port}", own
    finally:
        proxy.close()


def round_trip(settings: KafkaSettings, topic: str) -> bytes | None:
    producer = open_producer(settings)
    producer.send(topic, b"over TLS", b"k").get(timeout=30)
    producer.close()
    consumer = open_consumer(settings, group=None)
    consumer.subscribe([topic])
    found: list[bytes | None] = []
    eventually(
        lambda: bool(found.extend(record_of(r).value for rs in consumer.poll(200).values() for r in rs) or found)
    )
    consumer.close()
    return found[0]


@pytest.mark.parametrize("mutual", [False, True])
def test_records_pass_over_tls(tmp_path: Path, mutual: bool) -> None:
    certificate, key = authority(tmp_path / "broker", "broker")
    own_certificate, own_key = authority(tmp_path / "client", "client")
    with tls_broker(certificate, key, own_certificate if mutual else None) as (address, _):
        settings = KafkaSettings(
            (address,),
            security_protocol="SSL",
            tls_ca_file=str(certificate),
            tls_certificate_file=str(own_certificate) if mutual else "",
            tls_key_file=str(own_key) if mutual else "",
        )
        producer = open_producer(settings)
        producer.close()
        create_topics(address, {"t": 1}, security_protocol="SSL", **client_options(settings))
        assert round_trip(settings, "t") == b"over TLS"


def test_a_broker_whose_authority_is_not_trusted_is_refused(tmp_path: Path) -> None:
    certificate, key = authority(tmp_path / "broker", "broker")
    stranger, _ = authority(tmp_path / "stranger", "stranger")
    with tls_broker(certificate, key) as (address, _):
        settings = KafkaSettings((address,), security_protocol="SSL", tls_ca_file=str(stranger))
        with pytest.raises(UnavailableError, match=f"Kafka at {address}: .*check the address, the security settings"):
            open_producer(settings, bootstrap_timeout_ms=1000)


def client_options(settings: KafkaSettings) -> dict[str, object]:
    return {name: value for name, value in settings.options().items() if name.startswith("ssl_")}
