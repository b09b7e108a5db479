"""Models under a test's control, and the server around them: real sockets, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np
from prometheus_client import CollectorRegistry

from driftline.components.errors import UsageError
from driftline.serving.errors import DeadlineError
from driftline.serving.server.server import EmbeddingServer
from driftline.serving.server.settings import ServerSettings

HOST = "127.0.0.1"
DIMENSION = 4


def vector_of(text: str) -> np.ndarray:
    """The vector of a text: a function of it that anybody can compute."""
    return np.random.default_rng(list(text.encode())).normal(size=DIMENSION).astype(np.float32)


@dataclass
class FakeEmbedded:
    vectors: np.ndarray
    tokens: int


@dataclass
class FakeModel:
    """A model that fails, waits, is away or has long vectors as the test says."""

    name: str
    model: str = "fake-model"
    revision: str = "sha256:0123456789abcdef"
    dimension: int = DIMENSION
    max_tokens: int = 64
    repeated: int = 1
    failure: Exception | None = None
    away: str | None = None
    dead: str | None = None
    asked: list[list[str]] = field(default_factory=list)
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def unready(self) -> str | None:
        return self.away

    def stuck(self) -> str | None:
        return self.dead

    async def embed(
        self, texts: Sequence[str], *, prompt: str = "", dimensions: int = 0, deadline_s: float | None = None
    ) -> FakeEmbedded:
        self.asked.append([*texts])
        if self.failure is not None:
            raise self.failure
        if prompt not in ("", "query"):
            raise UsageError(f"prompt {prompt}: model {self.model} has no such prompt")
        if dimensions > DIMENSION:
            raise UsageError(f"dimension: model {self.model} has vectors of {DIMENSION} numbers, got {dimensions}")
        try:
            async with asyncio.timeout(deadline_s):
                while not self.gate.is_set():
                    await asyncio.sleep(0.005)
        except TimeoutError as error:
            raise DeadlineError(f"model {self.name}: not within {deadline_s} s") from error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        vectors = np.tile(np.stack([vector_of(prompt + text) for text in texts]), self.repeated)
        return FakeEmbedded(vectors[:, : dimensions or None], sum(len(text.split()) for text in texts))


@dataclass
class FakeHost:
    models: list[FakeModel]
    failure: Exception | None = None
    drained: bool = False

    async def load(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def drain(self, timeout_s: float) -> None:
        self.drained = True


@dataclass
class Served:
    """A running server.

    Attributes:
        http: a client of it.
        grpc: its gRPC address.
        stop: begins its drain.
        ended: waits for its end.
        errors: what ended it.
    """

    server: EmbeddingServer
    models: dict[str, FakeModel]
    registry: CollectorRegistry
    http: httpx.Client
    grpc: str
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    errors: list[Exception]

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.server.stop)

    def ended(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def served(
    *models: FakeModel, settings: ServerSettings | None = None, host: FakeHost | None = None
) -> Generator[Served]:
    """Run a server over fake models on free ports, for as long as the block lasts."""
    host = host or FakeHost([*models])
    settings = settings or ServerSettings(host=HOST, http_port=0, grpc_port=0, drain_delay_s=0)
    registry = CollectorRegistry()
    server = EmbeddingServer(host, settings, registry)
    loop = asyncio.new_event_loop()
    errors: list[Exception] = []

    def run() -> None:
        try:
            loop.run_until_complete(server.serve())
        except Exception as error:  # noqa: BLE001 - shown in the test's own thread
            errors.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        while server.ports[0] < 1 and thread.is_alive():
            thread.join(0.01)
        if errors:
            raise errors[0]
        with httpx.Client(base_url=f"http://{HOST}:{server.ports[0]}", timeout=30) as client:
            by_name = {model.name: model for model in host.models}
            yield Served(server, by_name, registry, client, f"{HOST}:{server.ports[1]}", loop, thread, errors)
    finally:
        for model in host.models:
            model.gate.set()
        if thread.is_alive():
            loop.call_soon_threadsafe(server.stop)
        thread.join(30)
