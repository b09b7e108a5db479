"""A receiver of events over real HTTP, which answers as it is told to."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.support.http_server import TestServer, serving


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[["_Handler"], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer; underscores of headers' names are dashes."""

    def act(handler: _Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return act


def dies(*said: bytes) -> Behaviour:
    """End the connection after these bytes."""

    def act(handler: _Handler) -> None:
        for part in said:
            handler.wfile.write(part)
        handler.close_connection = True

    return act


def hangs(handler: _Handler) -> None:
    """Say nothing until the server is stopped."""
    handler.server.stopping.wait()
    handler.close_connection = True


def drips(handler: _Handler) -> None:
    """Answer a byte at a time, without end: no silence is long enough for a time-out of the socket."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.stopping.wait(0.01):
        handler.wfile.write(b"a")
    handler.close_connection = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
            behaviours = self.server.behaviours
            act = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        act(self)

    do_POST = do_GET = _serve  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Receiver(TestServer):
    """The receiver as a test sees it.

    Attributes:
        behaviours: what happens to each request in turn, the last to all that follow.
        seen: the requests that came.
        url: where it is, without a path.
    """

    def __init__(self, *behaviours: Behaviour, certificate: tuple[Path, Path] | None = None) -> None:
        self.behaviours = [*behaviours] or [answer(202)]
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.url = ""
        super().__init__(_Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)


@contextmanager
def receiving(*behaviours: Behaviour, certificate: tuple[Path, Path] | None = None) -> Generator[Receiver]:
    """Run a receiver."""
    receiver = Receiver(*behaviours, certificate=certificate)
    with serving(receiver) as url:
        receiver.url = url.replace("http:", "https:") if certificate else url
        yield receiver
