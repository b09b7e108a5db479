"""Runs tasks of a backfill in processes of their own, to be killed, stopped and continued: a program for tests.

It imports everything once and forks a process for each task, so that one costs a tenth of a second. Each line of its
input is a JSON request, each line of its output the answer: how the process ended or stopped.

- ``{"do": "start", "steps": [[name, {arguments}], …], "log": path}`` runs steps of the backfill, in order, and appends
  a line to the log for each chunk whose encoding begins. With ``kill_after_s`` the process is killed after so long,
  counted from the beginning of its chunk ``kill_after_chunks``, with ``die_at`` at that change of a store of its own,
  with ``stop_at`` it stops itself at that chunk; ``chunk_texts`` and ``chunk_s`` set a chunk's size and how long its
  encoding takes at least. With ``model``, a folder, the process finds that model loaded already, by its parent.
- ``{"do": "continue", "pid": number}`` continues a stopped process.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import queue
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from driftline.components.embedding import step
from driftline.components.embedding.backfill import chunks
from driftline.components.embedding.encoding.encoder import Encoder, cpu_threads
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.embedding.encoding.text import Encoding
from driftline.components.errors import DriftlineError
from tests.support.dying import die_at


def run(request: dict[str, Any]) -> None:
    """Run a request's steps in this process."""
    chunks.CHUNK_TEXTS = request.get("chunk_texts", chunks.CHUNK_TEXTS)  # pyright: ignore
    _log_chunks(Path(request["log"]), request.get("chunk_s", 0.0), request.get("stop_at"))
    if "model" in request:
        _share(request["model"])
    if "die_at" in request:
        die_at(request["die_at"])
    for name, arguments in request["steps"]:
        getattr(step, name)(**arguments)


@functools.cache
def loaded(folder: str) -> Encoder:
    """Load a model with the default settings, once."""
    return Encoder.load(Path(folder), folder)


def _share(model: str) -> None:
    """Let the parent's model take the place of one that would be loaded here."""
    load = Encoder.load

    def shared(folder: Path, name: str, settings: EncoderSettings | None = None, **given: Any) -> Encoder:
        asked_for_it = str(folder) == model and settings in (None, EncoderSettings())
        return loaded(model) if asked_for_it else load(folder, name, settings, **given)

    Encoder.load = shared  # pyright: ignore


def _log_chunks(log: Path, chunk_s: float, stop_at: int | None) -> None:
    encode_chunks = Encoder.encode_chunks
    begun = 0

    def logged(self: Encoder, chunks: Iterable[Sequence[str]]) -> Iterator[Encoding]:
        nonlocal begun
        read: queue.SimpleQueue[str] = queue.SimpleQueue()  # a chunk's digest, empty at the end

        def begin(digest: str) -> None:
            nonlocal begun
            with log.open("a") as file:
                file.write(f"{os.getpid()} {digest}\n")
            begun += 1
            if begun == stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(chunk_s)

        def reading() -> Iterator[Sequence[str]]:
            first = True
            try:
                for texts in chunks:
                    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
                    if first:
                        begin(digest)  # asked for already
                        first = False
                    else:
                        read.put(digest)
                    yield texts
            finally:
                read.put("")

        for encoding in encode_chunks(self, reading()):
            yield encoding
            digest = read.get()  # the next chunk has been read ahead, or is about to be
            if digest:
                begin(digest)

    Encoder.encode_chunks = logged  # pyright: ignore


def wait(pid: int, request: dict[str, Any]) -> dict[str, Any]:
    """Wait until a process ends or stops, and say which."""
    kill_after_s: float | None = request.get("kill_after_s")
    chunks: int = request.get("kill_after_chunks", 0)
    deadline = None if kill_after_s is None or chunks else time.monotonic() + kill_after_s
    while True:
        found, status = os.waitpid(pid, os.WUNTRACED | (0 if kill_after_s is None else os.WNOHANG))
        if found and os.WIFSTOPPED(status):
            return {"pid": pid, "state": "stopped"}
        if found:
            code = os.waitstatus_to_exitcode(status)
            return {"pid": pid, "state": "killed" if code == -signal.SIGKILL else "ended", "code": code}
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)  # not reaped yet: the number is still its own
            kill_after_s = deadline = None
        elif deadline is None and kill_after_s is not None and begun_by(pid, Path(request["log"])) >= chunks:
            deadline = time.monotonic() + kill_after_s
        else:
            time.sleep(0.001)


def begun_by(pid: int, log: Path) -> int:
    """Return how many chunks a process has begun."""
    lines = log.read_text().splitlines() if log.exists() else []
    return sum(line.startswith(f"{pid} ") for line in lines)


def main() -> None:
    """Serve requests until the input ends; then end what was left stopped."""
    cpu_threads()  # remembered: encoders keep a thread for each core
    torch.set_num_threads(1)  # of this one: no team of threads that a fork would lose, or that waits for others' cores
    stopped: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "continue":
            pid = request["pid"]
            stopped.discard(pid)
            os.kill(pid, signal.SIGCONT)
        else:
            if "model" in request:
                loaded(request["model"])
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    run(request)
                    code = 0
                except DriftlineError as error:
                    sys.stderr.write(f"{error}\n")
                finally:
                    sys.stderr.flush()
                    os._exit(code)
        answer = wait(pid, request)
        if answer["state"] == "stopped":
            stopped.add(pid)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
