"""Load on an HTTP server of this machine, from one process, as light as Python can: requests are rendered beforehand.

Two kinds: *closed*, so many connections, each with a request in flight all the time, which tells the throughput; and
*open*, requests at random moments of a given rate, whatever becomes of those before them, which tells how long a user
waits: a late answer makes no other request later, and the wait counts from the moment planned.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured.

    Attributes:
        seconds: from the first request to the last answer.
        waits_ms: of each request, in milliseconds.
        bodies: the answers, in the order of the requests, where they were wanted.
    """

    seconds: float
    waits_ms: list[float]
    bodies: list[bytes]

    def percentile_ms(self, percent: int) -> float:
        """Return the wait that so many per cent of the requests did not exceed."""
        return statistics.quantiles(self.waits_ms, n=100, method="inclusive")[percent - 1]


def rendered(path: str, body: bytes) -> bytes:
    """Return a POST of JSON, whole."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


class Connection:
    """A connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the answer's body.

        Raises:
            RuntimeError: the answer's status is not 200.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(HOST, self._port, limit=1 << 22)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        size = next(int(field.split(b":")[1]) for field in fields if field.startswith(b"content-length:"))
        body = await self._reader.readexactly(size)
        if not fields[0].startswith(b"http/1.1 200"):
            raise RuntimeError(f"{fields[0].decode()}: {body[:200].decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Close it."""
        if self._writer is not None:
            self._writer.close()


def closed(port: int, requests: Sequence[bytes], connections: int, timeout_s: float, *, keep: bool = False) -> Load:
    """Send requests over so many connections, each as soon as the one before it is answered."""

    async def run() -> Load:
        waits: list[float] = [0.0] * len(requests)
        bodies: list[bytes] = [b""] * len(requests)
        numbers = iter(range(len(requests)))

        async def one() -> None:
            connection = Connection(port)
            try:
                for number in numbers:
                    began = time.perf_counter()
                    body = await connection.ask(requests[number])
                    waits[number] = 1000 * (time.perf_counter() - began)
                    if keep:
                        bodies[number] = body
            finally:
                connection.close()

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(connections)))
        return Load(time.perf_counter() - began, waits, bodies)

    return asyncio.run(asyncio.wait_for(run(), timeout_s))


def opened(port: int, requests: Sequence[bytes], per_second: float, timeout_s: float, seed: int) -> Load:
    """Send requests at the moments of a Poisson process of this rate, over as many connections as that takes."""

    async def run() -> Load:
        gaps = random.Random(seed)
        idle: list[Connection] = []
        every: list[Connection] = []
        waits: list[float] = []

        async def one(request: bytes, planned: float) -> None:
            if not idle:
                idle.append(Connection(port))
                every.append(idle[-1])
            connection = idle.pop()
            await connection.ask(request)
            waits.append(1000 * (time.perf_counter() - planned))
            idle.append(connection)

        began = planned = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for request in requests:
                    planned += gaps.expovariate(per_second)
                    await asyncio.sleep(max(0.0, planned - time.perf_counter()))
                    group.create_task(one(request, planned))
        finally:
            for connection in every:
                connection.close()
        return Load(time.perf_counter() - began, waits, [])

    return asyncio.run(asyncio.wait_for(run(), timeout_s))
