"""The server: it listens at once, loads behind its health, serves, and drains when it is to end.

On SIGTERM, readiness says no while requests are still served (`drain_delay_s`), so that no load balancer sends to a
closed door and no preStop sleep is needed. Then new requests get 503, those in flight are answered, and only after that
the listeners close. A second signal ends the process without waiting.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn
from prometheus_client import CollectorRegistry

from driftline.components.errors import UsageError
from driftline.serving.server.health import ServerHealth
from driftline.serving.server.kserve_parts import ModelRepository, ModelServer
from driftline.serving.server.metrics import ServerMetrics
from driftline.serving.server.protocols.cloud_events import EventHandler
from driftline.serving.server.protocols.grpc import (
    EmbeddingServicer,
    HealthAwareDataPlane,
    RegisteredModel,
    open_grpc,
)
from driftline.serving.server.routes import Routes
from driftline.serving.server.service import EmbeddingService
from driftline.serving.server.settings import NO_PORT, ServerSettings
from driftline.serving.server.topic_sink import TopicSink

if TYPE_CHECKING:
    from driftline.serving.models.host import ServedModels

LOGGER: Final = logging.getLogger(__name__)

_BACKLOG: Final = 2048
_POLL_S: Final = 0.02
_KEEP_ALIVE_S: Final = 65  # longer than proxies keep idle connections (60 s), so that none sends to a closed one
_QUIET: Final = ("kserve", "uvicorn", "uvicorn.error")


class EmbeddingServer(ModelServer):
    """KServe's model server, with our protocols on our batcher.

    Attributes:
        ports: where it listens once it does: of HTTP, and of gRPC (-1 for none).
    """

    def __init__(self, host: ServedModels, settings: ServerSettings, registry: CollectorRegistry) -> None:
        """Create the server; it listens from :meth:`run` on.

        Args:
            host: its models.
            settings: how it listens and ends.
            registry: takes its metrics; `/metrics` shows it.
        """
        super().__init__(
            http_port=settings.http_port,
            grpc_port=settings.grpc_port,
            workers=1,  # a second one would hold a second copy of each model
            registered_models=ModelRepository(),
            enable_grpc=settings.grpc_port != NO_PORT,
            enable_latency_logging=False,
        )
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._host = host
        self._settings = settings
        self.health = ServerHealth(host.models)
        self._metrics = ServerMetrics(registry)
        self._service = EmbeddingService(host.models, settings.limits, self.health, self._metrics.predicted)
        events = settings.events
        self._sink = (
            None
            if events.kafka is None or not events.output_topic
            else TopicSink(events.output_topic, events.kafka, events.produce_timeout_s)
        )
        handler = EventHandler(self._service, events, self._sink, registry)
        self._routes = Routes(self._service, handler, self._metrics, registry)
        self._config = self._uvicorn()
        for model in host.models:
            self.register_model(RegisteredModel(model, self.health))
        self.dataplane = HealthAwareDataPlane(self.registered_models, self.health)
        self.ports = (NO_PORT, NO_PORT)
        self._stopping = asyncio.Event()
        self._hurried = False
        self._loading = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            UsageError: a port is taken.
            DriftlineError: a model cannot be loaded.
        """
        with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:
            runner.run(self._until_signalled())

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Begin to drain; called a second time, end without waiting."""
        if self._stopping.is_set():
            LOGGER.warning("a second signal to end: requests in flight are given up")
            self._hurried = True
        self.health.draining = True
        self._stopping.set()

    async def _until_signalled(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number)
        await self.serve()
        if self._loading:
            # Its thread cannot be told to stop, and the interpreter would wait for it, for minutes perhaps.
            LOGGER.warning("ended while a model was being loaded")
            logging.shutdown()
            os._exit(0)

    async def serve(self) -> None:
        """Serve until :meth:`stop` is called.

        Raises:
            UsageError: a port is taken.
            DriftlineError: a model cannot be loaded.
        """
        with _listening(self._settings.host, self._settings.http_port) as listener:
            servicer = EmbeddingServicer(self._service, self.dataplane, self.model_repository_extension, self._metrics)
            rpc, rpc_port = None, NO_PORT
            if self.enable_grpc:
                rpc, rpc_port = await open_grpc(
                    servicer, self._settings.host, self._settings.grpc_port, self._settings.limits.body_bytes
                )
            self.ports = (listener.getsockname()[1], rpc_port)
            http = _Listener(self._config)
            serving = asyncio.create_task(http.serve(sockets=[listener]))
            loading = asyncio.create_task(self._host.load())
            self._loading = True
            stopping = asyncio.create_task(self._stopping.wait())
            LOGGER.info(
                "listening on http://%s:%d%s, loading %s",
                self._settings.host,
                self.ports[0],
                "" if rpc is None else f" and for gRPC on port {rpc_port}",
                ", ".join(self._service.models),
            )
            try:
                await asyncio.wait((serving, stopping, loading), return_when=asyncio.FIRST_COMPLETED)
                if loading.done():
                    self._loading = False
                    loading.result()
                    LOGGER.info("ready")
                    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
                loading.cancel()
                left_s = await self._drain()
                # For answers that are on their way to slow clients; idle connections are closed at once.
                self._config.timeout_graceful_shutdown = max(1, math.floor(left_s))
            finally:
                stopping.cancel()
                loading.cancel()
                http.should_exit = True
                await serving
                if rpc is not None:
                    await rpc.stop(grace=0)
                if self._sink is not None:
                    self._sink.close()

    async def _drain(self) -> float:
        """Answer the requests in flight; return the seconds that are left of the drain's time-out."""
        deadline = time.monotonic() + self._settings.drain_timeout_s
        LOGGER.info("shutting down: not ready any more, still serving for %g s", self._settings.drain_delay_s)
        await self._until(lambda: False, self._settings.drain_delay_s)
        self.health.refusing = True
        await self._until(lambda: self._metrics.in_flight == 0, deadline - time.monotonic())
        if self._metrics.in_flight > 0:
            LOGGER.warning("gave up %d requests that were not answered in time", self._metrics.in_flight)
            self._routes.in_flight.give_up()
        await self._host.drain(0.0 if self._hurried else max(0.0, deadline - time.monotonic()))
        return 0.0 if self._hurried else deadline - time.monotonic()

    async def _until(self, reached: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached() and not self._hurried and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)

    def _uvicorn(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._routes.application(),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )


class _Listener(uvicorn.Server):
    """uvicorn, which leaves the signals to us: it would close its door at the first one."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"http-port {port}: {reason}; choose another one") from error
    # Its connections inherit it: an answer's body must not wait until its head is acknowledged, 40 ms later.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield listener
    finally:
        listener.close()
