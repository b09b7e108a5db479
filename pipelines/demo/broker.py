"""A Kafka broker for demonstrations and tests: noida-db, one binary that needs no JVM and no container.

It is no replacement for Apache Kafka: one node, which writes its whole content to one file about once a second and
when it is told to stop. Stopped so, it loses nothing; killed, what it was sent in its last second or so.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from driftline.components.errors import StorageError, UsageError

HOST: Final = "127.0.0.1"

# Below the ports that the system gives to clients: one of these that reconnects to a stopped broker's address on the
# same machine could be given that very port and meet itself.
_PORTS: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 20

_START_TIMEOUT_S: Final = 30.0  # it takes milliseconds, and seconds where it reads a large file
_STOP_TIMEOUT_S: Final = 30.0  # it writes its content
_POLL_S: Final = 0.02


class LocalBroker:
    """A broker's process, which can be stopped and started again at the same address with the same content.

    Attributes:
        port: where it listens.
    """

    def __init__(self, command: Callable[[int], list[str]], log: Path, port: int = 0) -> None:
        self.port = port
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            StorageError: it does not start; the end of its log is named.
        """
        attempts = 1 if self.port else _ATTEMPTS
        for attempt in range(attempts):
            port = self.port or free_ports(1)[0]
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    self._command(port), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            if _answers(process, port):
                self.port, self._process = port, process
                return
            _end(process, signal.SIGKILL)
            if attempt + 1 == attempts:
                end = self._log.read_text(encoding="utf-8", errors="replace").strip()[-300:]
                raise StorageError(f"broker at {HOST}:{port}: does not start; its log {self._log} ends with: {end}")

    def stop(self) -> None:
        """Let it write its content and end."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it without a word."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None:
            _end(self._process, number)
            self._process = None


@contextmanager
def noida_broker(folder: Path, port: int = 0) -> Generator[LocalBroker]:
    """Run noida-db for as long as the block lasts.

    Args:
        folder: where its content, its log and a copy of its binary go; content that is there is served.
        port: where it listens; 0 for any free one.

    Yields:
        The broker, started.

    Raises:
        UsageError: its package is not installed.
        StorageError: it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "noida-db"
    if not binary.exists():
        # A copy: wheels are unpacked without run bits, into folders that may not be written to.
        shutil.copyfile(_packaged("noida_db", "noida-db", "noida-db"), binary)
        binary.chmod(0o755)

    def command(port: int) -> list[str]:
        where = ["--host", HOST, "--only", "kafka", "--kafka-port", str(port)]
        return [str(binary), "start", "--data-dir", str(folder / "content"), *where]

    broker = LocalBroker(command, folder / "broker.log", port)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def _packaged(package: str, name: str, distribution: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise UsageError(f"the package {distribution} is not installed; pip install 'driftline[demo]'")
    return Path(found.origin).with_name(name)


def free_ports(count: int) -> list[int]:
    """Return ports of this machine on which nothing listens now, no two of them the same.

    Raises:
        StorageError: a hundred are taken.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, 100 + count):
        with socket.socket() as candidate:
            try:
                candidate.bind(("", port))  # also refused where something listens at one address only
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise StorageError(f"broker: no free port among {_PORTS.start}-{_PORTS.stop - 1}; end what listens there")


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection((HOST, port), timeout=1.0).close()
        except OSError:
            time.sleep(_POLL_S)
        else:
            # Another process may have taken the port; then this one ends.
            time.sleep(_POLL_S)
            return process.poll() is None
    return False


def _end(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
