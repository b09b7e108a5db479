"""`driftline serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

HOST = "127.0.0.1"
_LISTENING = re.compile(r"listening on http://[\d.]+:(\d+)(?: and for gRPC on port (\d+))?")


@dataclass
class Process:
    """A running server.

    Attributes:
        process: the process.
        log: the file that takes what it writes.
        url: of its HTTP side.
        grpc: address of its gRPC side; without a port where it has none.
    """

    process: subprocess.Popen[bytes]
    log: Path
    url: str
    grpc: str

    def end(self) -> int:
        """Tell it to end, and return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(*arguments: str, environment: dict[str, str] | None = None) -> Generator[Process]:
    """Run the command on free ports until the block ends; it has loaded its models when the block begins.

    Raises:
        RuntimeError: it ended before; the message is what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "driftline.serving", "serve", "--host", HOST, "--http-port", "0"]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*command, "--grpc-port", "0", "--drain-delay-s", "0.2", *arguments],
                stdout=sink,
                stderr=sink,
                env={**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", **(environment or {})},
            )
        try:
            deadline = time.monotonic() + 120
            while (found := _LISTENING.search(log.read_text())) is None or not _ready(int(found[1])):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                if time.monotonic() > deadline:
                    raise TimeoutError(log.read_text())
                time.sleep(0.05)
            yield Process(process, log, f"http://{HOST}:{found[1]}", f"{HOST}:{found[2]}")
        finally:
            process.kill()
            process.wait()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False
