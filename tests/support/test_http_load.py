"""The benchmarks' load on HTTP servers: each answer to its own request, and a refusal is no answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.bench.http_load import HOST, closed, opened, rendered


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(429 if self.path == "/full" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer((HOST, 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


REQUESTS = [rendered("/echo", str(number).encode() * number) for number in range(40)]


def test_answers_come_back_in_the_order_of_their_requests(port: int):
    load = closed(port, REQUESTS, 7, 60, keep=True)
    assert load.bodies == [str(number).encode() * number for number in range(40)]
    assert len(load.waits_ms) == 40
    assert 0 < load.percentile_ms(50) <= load.percentile_ms(99) <= 1000 * load.seconds


def test_every_request_at_its_moment_is_answered(port: int):
    load = opened(port, REQUESTS, 2000, 60, seed=1)
    assert len(load.waits_ms) == 40


@pytest.mark.parametrize("how", ["closed", "opened"])
def test_a_refusal_ends_the_load(port: int, how: str):
    requests = [*REQUESTS[:3], rendered("/full", b"{}")]
    with pytest.raises((RuntimeError, ExceptionGroup)) as raised:
        closed(port, requests, 2, 60) if how == "closed" else opened(port, requests, 2000, 60, seed=1)
    reasons = raised.value.exceptions if isinstance(raised.value, ExceptionGroup) else [raised.value]
    assert "429" in str(reasons[0])
