"""The demonstration's processes: each a command of its own, as it would run in a pod."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from driftline.components.errors import DriftlineError
from driftline.pipelines.demo.broker import HOST

_READY_TIMEOUT_S: Final = 600.0  # PyTorch is imported and a model loaded by several processes at once, on few cores
_STOP_TIMEOUT_S: Final = 60.0  # each finishes what it has in hand
_PROBE_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.2
_LOG_END: Final = 400


class ServiceError(DriftlineError):
    """A process of the demonstration did not start, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process of the demonstration.

    Attributes:
        name: its command.
        url: where its health and metrics are.
        ready_path: path that answers with 200 once it takes work.
        process: itself.
        log: what it prints.
    """

    name: str
    url: str
    ready_path: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ServiceError where the process has ended."""
        if self.process.poll() is not None:
            end = " ".join(self.log.read_text(encoding="utf-8", errors="replace").split())[-_LOG_END:]
            raise ServiceError(
                f"{self.name}: ended with status {self.process.returncode}; its log {self.log} ends with: {end}"
            )

    def is_ready(self) -> bool:
        """Say whether the process takes work."""
        try:
            with urllib.request.urlopen(self.url + self.ready_path, timeout=_PROBE_TIMEOUT_S):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self) -> dict[str, float]:
        """Return the process's metrics, those of one name added up over labels; none where it does not answer.

        What one label's value counts is there too, as ``name:value``.
        """
        try:
            with urllib.request.urlopen(self.url + "/metrics", timeout=_PROBE_TIMEOUT_S) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            return {}
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                for name in (sample.name, *(f"{sample.name}:{value}" for value in sample.labels.values())):
                    found[name] = found.get(name, 0.0) + sample.value
        return found

    def stop(self) -> None:
        """Tell the process to end, and wait until it has."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def running(folder: Path, commands: Sequence[tuple[str, Sequence[str], int, str]]) -> Generator[tuple[Service, ...]]:
    """Run commands for as long as the block lasts; yield them when all take work.

    Args:
        folder: where their logs go.
        commands: of each its name, its options, the port of its health and metrics, and the path that tells when it
            takes work.

    Raises:
        ServiceError: one does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        services: list[Service] = []
        for name, options, port, ready_path in commands:
            log = folder / f"{name}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "driftline.serving", name, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is ours to pass on, in order
                )
            service = Service(name, f"http://{HOST}:{port}", ready_path, process, log)
            stack.callback(service.stop)
            services.append(service)
        _wait_ready(services)
        yield tuple(services)


def _wait_ready(services: Sequence[Service]) -> None:
    end = time.monotonic() + _READY_TIMEOUT_S
    while waiting := [service for service in services if not service.is_ready()]:
        for service in services:
            service.check()
        if time.monotonic() > end:
            raise ServiceError(f"{waiting[0].name}: not ready after {_READY_TIMEOUT_S:.0f} s; see {waiting[0].log}")
        time.sleep(_POLL_S)
