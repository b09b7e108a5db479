"""A proxy over real TCP in front of a Google Cloud Storage emulator, which does what networks and services do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.support.http_server import TestServer, serving

Kind = Literal[
    "status",  # answered without reaching the store
    "refuse",  # the connection breaks before the request has reached the store
    "half-sent",  # the store gets half of the request's body, then the connection breaks
    "no-answer",  # the store does what was asked, and the connection breaks before it answers
    "half-answer",  # the connection breaks in the middle of the answer's body; before it, where that is empty
    "short-answer",  # half of the answer's body comes, and its length says that this is all
    "damage",  # the answer's body has a byte changed
    "delay",  # the answer takes a while
]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request."""

    kind: Kind
    status: int = 503
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came.

    Attributes:
        method: GET, POST, PUT, DELETE or PATCH.
        path: With the query.
        range: First byte and last byte that were asked for, or None.
        sent: Bytes of its body.
    """

    method: str
    path: str
    range: tuple[int, int] | None
    sent: int

    @property
    def is_upload(self) -> bool:
        """Whether it carries an object's content."""
        return "uploadType" in self.path and (self.method == "PUT" or "uploadType=multipart" in self.path)

    @property
    def is_media(self) -> bool:
        """Whether it asks for an object's content."""
        return self.method == "GET" and "alt=media" in self.path


Plan = Callable[[Seen], Fault | None]


@dataclass
class FaultyProxy:
    """The proxy as a test sees it.

    Attributes:
        endpoint: Its URL.
        plan: What happens to each request; asked by many threads.
        seen: The requests that came.
    """

    endpoint: str = ""
    plan: Plan = lambda seen: None
    seen: list[Seen] = field(default_factory=list)

    def next_faults(self, *faults: Fault, where: Callable[[Seen], bool] = lambda seen: True) -> None:
        """Let these happen to the next requests for which `where` is true, in turn."""
        left, lock = list(faults), threading.Lock()

        def plan(seen: Seen) -> Fault | None:
            with lock:
                return left.pop(0) if left and where(seen) else None

        self.plan = plan

    def down_for(self, seconds: float, status: int = 503) -> None:
        """Let every request be answered with `status` until so many seconds have passed."""
        until = time.monotonic() + seconds
        self.plan = lambda seen: Fault("status", status) if time.monotonic() < until else None

    @property
    def media(self) -> list[Seen]:
        """The requests for objects' content so far."""
        return [seen for seen in self.seen if seen.is_media]


class _Broken(Exception):  # noqa: N818
    """The connection ends here, without another byte."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two parts would wait 40 ms for the client's acknowledgement
    server: _Server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = self.headers.get("Range", "").removeprefix("bytes=").split("-")
        span = (int(asked[0]), int(asked[1])) if len(asked) == 2 and asked[1] else None
        seen = Seen(self.command, self.path, span, len(body))
        fault = None
        # The library looks at the bucket once, in the background, for its traces: no concern of any test.
        if "/o" in self.path:
            self.server.proxy.seen.append(seen)
            fault = self.server.proxy.plan(seen)
        try:
            self._act(fault, body)
        except _Broken:
            self.close_connection = True
            with suppress(OSError):
                # No farewell: the client's next read or write fails with a reset.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    def _act(self, fault: Fault | None, body: bytes) -> None:
        kind = None if fault is None else fault.kind
        if fault is not None and kind == "status":
            self._answer(fault.status, [("Content-Type", "text/plain")], b"not now")
            return
        if fault is not None and kind == "delay":
            self.server.stopping.wait(fault.seconds)
        if kind == "refuse":
            raise _Broken
        if kind == "half-sent":
            self._send_half(body)
            raise _Broken
        upstream = http.client.HTTPConnection(*self.server.store, timeout=60)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if kind == "no-answer" or (kind == "half-answer" and not content):
            raise _Broken
        if kind == "short-answer":
            content = content[: len(content) // 2]
        if kind == "damage":
            content = bytes([content[0] ^ 1]) + content[1:]
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("content-length", "server", "date")]
        self._answer(answer.status, headers, content, broken=kind == "half-answer")

    def _send_half(self, body: bytes) -> None:
        head = [f"{self.command} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in self.headers.items())]
        with socket.create_connection(self.server.store, timeout=60) as upstream:
            upstream.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body[: len(body) // 2])
            upstream.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                upstream.recv(1 << 16)  # until the store has done with it

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, broken: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if broken else content)
        if broken:
            self.wfile.flush()
            time.sleep(0.02)  # so that what was sent arrives before the reset overtakes it
            raise _Broken

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _serve  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(TestServer):
    def __init__(self, store: tuple[str, int], proxy: FaultyProxy) -> None:
        self.store = store
        self.proxy = proxy
        super().__init__(_Handler)


@contextmanager
def faulty_proxy(endpoint: str) -> Generator[FaultyProxy]:
    """Run a proxy in front of the store at `endpoint`, which does no harm until it is told to."""
    url = urlsplit(endpoint)
    proxy = FaultyProxy()
    with serving(_Server((str(url.hostname), int(url.port or 80)), proxy)) as proxy.endpoint:
        yield proxy
