"""A small HTTP server beside a worker: `/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import click
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from driftline.components.errors import UsageError

LOGGER: Final = logging.getLogger("driftline.health")

NO_HEALTH_PORT: Final = -1
_PLAIN: Final = "text/plain; charset=utf-8"

health_port_option = click.option(
    "--health-port",
    type=click.IntRange(NO_HEALTH_PORT, 65_535),
    default=8082,
    show_default=True,
    metavar="PORT",
    help="Port of /livez, /readyz and /metrics; 0 for any free one, -1 for none.",
)


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a process, asked for at each probe.

    Attributes:
        live: None while it works; else why it should be restarted.
        ready: None while it takes work; else why not.
    """

    live: Callable[[], str | None]
    ready: Callable[[], str | None]


@contextmanager
def serving_health(
    port: int,
    health: Health,
    registry: CollectorRegistry,
    host: str = "0.0.0.0",
    on_listening: Callable[[int], None] = lambda port: None,
) -> Generator[int | None]:
    """Serve a process's health and metrics for as long as the block lasts.

    Args:
        port: where; 0 for any free one, -1 for nowhere.
        health: how the process is.
        registry: its metrics.
        host: the address to listen on; a pod's probes come from outside of it.
        on_listening: is given the port.

    Yields:
        The port, which is logged too; None for nowhere.

    Raises:
        UsageError: the port is taken, or may not be had.
    """
    if port == NO_HEALTH_PORT:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))
                return
            asked = {"/livez": health.live, "/readyz": health.ready}.get(path)
            if asked is None:
                self._answer(HTTPStatus.NOT_FOUND, _PLAIN, b"there are /livez, /readyz and /metrics\n")
                return
            trouble = asked()
            status = HTTPStatus.OK if trouble is None else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, _PLAIN, f"{trouble or 'ok'}\n".encode())

        def log_message(self, format: str, *args: object) -> None:  # probes every few seconds are no news
            pass

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"health-port {port}: {error}; choose another one") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="driftline-health", daemon=True)
    thread.start()
    port = int(server.server_address[1])
    LOGGER.info("health and metrics on port %d", port)
    on_listening(port)
    try:
        yield port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
