"""TLS and logins for real: a proxy that ends them stands before a broker that advertises the proxy's address."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ipaddress
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.brokers import tansu_broker


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


_API_VERSIONS, _SASL_HANDSHAKE, _SASL_AUTHENTICATE = 18, 17, 36
_UNSUPPORTED_MECHANISM, _NOT_AUTHENTICATED = 33, 58  # Kafka's error codes


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
        self.target: tuple[str, int] = ("127.0.0.1", 0)
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
            self._admit(client, broker)
            threading.Thread(target=self._pass_on, args=(broker, client), daemon=True).start()
            self._pass_on(client, broker)

    def _admit(self, client: ssl.SSLSocket, broker: socket.socket) -> None:
        """Do what comes before bytes are handed on; raise OSError for a client that is not let in."""

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class LoginProxy(TlsProxy):
    """Asks for a login before it hands anything on: `PLAIN`, or `SCRAM-SHA-512` as RFC 5802 says.

    Attributes:
        names: of those who were let in, one for each connection.
        refused: connections that were not.
    """

    def __init__(self, certificate: Path, key: Path, mechanism: str, name: str, password: str) -> None:
        self._mechanism = mechanism
        self._login = name, password
        self.names: list[str] = []
        self.refused = 0
        super().__init__(certificate, key)

    def _admit(self, client: ssl.SSLSocket, broker: socket.socket) -> None:
        steps: Generator[Any, bytes] = self._plain() if self._mechanism == "PLAIN" else self._scram()
        next(steps)
        while True:
            request = _frame(client)
            kind, version, correlation = struct.unpack(">hhi", request[:8])
            name = struct.unpack(">h", request[8:10])[0]
            body = request[10 + max(name, 0) :]
            head = struct.pack(">i", correlation)
            if kind == _API_VERSIONS:
                broker.sendall(struct.pack(">i", len(request)) + request)
                _send(client, _frame(broker))
            elif kind == _SASL_HANDSHAKE:
                wanted = body[2 : 2 + struct.unpack(">h", body[:2])[0]].decode()
                known = self._mechanism.encode()
                error = 0 if wanted == self._mechanism else _UNSUPPORTED_MECHANISM
                _send(client, head + struct.pack(">hih", error, 1, len(known)) + known)
            elif kind == _SASL_AUTHENTICATE and version == 2:
                answer = steps.send(_compact_bytes(body[1:]))
                error = _NOT_AUTHENTICATED if answer is None else 0
                # No tags, the error, no message, the token, a session without end, no tags.
                token = _uvarint(len(answer or b"") + 1) + (answer or b"")
                _send(client, head + b"\0" + struct.pack(">hb", error, 0) + token + struct.pack(">qb", 0, 0))
                if answer is None:
                    self.refused += 1
                    raise OSError("not let in")
                if next(steps):
                    self.names.append(self._login[0])
                    return
            else:
                raise OSError(f"request {kind} of version {version} before a login")

    def _plain(self) -> Generator[Any, bytes]:
        token = yield None
        _, name, password = token.split(b"\0")
        right = (name.decode(), password.decode()) == self._login
        yield b"" if right else None
        yield True

    def _scram(self) -> Generator[Any, bytes]:
        name, password = self._login
        first = (yield None).removeprefix(b"n,,")
        said = dict(part.split(b"=", 1) for part in first.split(b","))
        salt, rounds, nonce = secrets.token_bytes(16), 4096, said[b"r"] + secrets.token_hex(8).encode()
        challenge = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(salt), rounds)
        yield challenge
        last = yield False
        bare, _, proof = last.rpartition(b",p=")
        message = b",".join((first, challenge, bare))
        salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha512")
        signature = hmac.digest(hashlib.sha512(client_key).digest(), message, "sha512")
        shown = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        right = said[b"n"].decode() == name and nonce in bare and hmac.compare_digest(shown, client_key)
        server = hmac.digest(hmac.digest(salted, b"Server Key", "sha512"), message, "sha512")
        yield b"v=" + base64.b64encode(server) if right else None
        yield True


def _frame(connection: socket.socket) -> bytes:
    """Read one request or answer: four bytes of length, then so many."""
    return _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise OSError("the connection ended")
        parts += part
    return bytes(parts)


def _compact_bytes(body: bytes) -> bytes:
    """Read Kafka's compact bytes: their length and one as a variable-length integer, then so many."""
    size = shift = place = 0
    while True:
        size |= (body[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not body[place - 1] & 0x80:
            return body[place : place + size - 1]


def _uvarint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _send(connection: socket.socket, answer: bytes) -> None:
    connection.sendall(struct.pack(">i", len(answer)) + answer)


@contextmanager
def behind(proxy: TlsProxy) -> Generator[str]:
    """Run a broker behind a proxy; yields the address there."""
    try:
        with tansu_broker(advertised_port=proxy.port) as own:
            host, _, port = own.rpartition(":")
            proxy.target = (host, int(port))
            yield f"127.0.0.1:{proxy.port}"
    finally:
        proxy.close()
