"""Requests' bodies and answers' bodies: bounded reading, media types, fast JSON of vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar, cast

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from driftline.serving.errors import UnavailableError
from driftline.serving.records.payloads import parsed_json
from driftline.serving.server.failures import ClientGoneError, RequestError

Answer = TypeVar("Answer")

JSON: Final = "application/json"
_JSON_TYPES: Final = frozenset(("", JSON))

# Numbers that are written in one go, about 5 ms; between two goes, others have their turn on the event loop.
_NUMBERS_AT_A_TIME: Final = 128 * 1024
# What is too large is read on so far and thrown away, so that a client that sends before it listens sees the 413.
_DISCARDED_BYTES: Final = 64 * 1024 * 1024


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return a request's body.

    Raises:
        RequestError: 413, it is larger; 415, it is compressed.
        ClientGoneError: the client went away while sending it.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-encoding {coding[:40]}: send the body uncompressed"
        )
    too_large = RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit_bytes:,} bytes; split the request"
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit_bytes and request.headers.get("expect"):
        raise too_large
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size <= limit_bytes:
                pieces.append(piece)
            else:
                pieces.clear()
                if size > limit_bytes + _DISCARDED_BYTES:
                    raise too_large
    except ClientDisconnect as error:
        raise ClientGoneError("the client went away while sending its request") from error
    if size > limit_bytes:
        raise too_large
    return b"".join(pieces)


def media_type(request: Request) -> str:
    """Return the media type of a request's body, in lower case without parameters; empty where it is not stated."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


def check_json_type(request: Request) -> None:
    """Check that a body may be read as JSON: it says so, or says nothing.

    Raises:
        RequestError: 415, it is something else.
    """
    if (kind := media_type(request)) not in _JSON_TYPES:
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type {kind[:60]}: expected {JSON}", code="content_type"
        )


def json_object(content: bytes) -> dict[str, Any]:
    """Return a body's JSON object.

    Raises:
        PoisonError: it is not JSON.
        RequestError: 400, it is no object.
    """
    value = parsed_json("the body", content)
    if not isinstance(value, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body: expected a JSON object")
    return cast("dict[str, Any]", value)


async def json_numbers(vectors: NDArray[np.float32], *, flat: bool = False) -> bytes:
    """Write vectors as a JSON array, of the shortest decimals that read back as the same float32.

    Args:
        vectors: (n, d), finite.
        flat: one array of n·d numbers instead of n arrays of d.
    """
    pieces: list[bytes] = []
    for part in _parts(vectors):
        if pieces:
            await asyncio.sleep(0)
        pieces.append(_written(part.ravel() if flat else part)[1:-1])
    return b"[" + b",".join(pieces) + b"]"


async def json_rows(vectors: NDArray[np.float32]) -> list[bytes]:
    """Write each of some vectors, (n, d), as a JSON array of d numbers."""
    rows: list[bytes] = []
    for part in _parts(vectors):
        if rows:
            await asyncio.sleep(0)
        rows += [_written(row) for row in part]
    return rows


def json_answer(
    content: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None, kind: str = JSON
) -> Response:
    """Return an answer in JSON; ``orjson.Fragment`` stands for what is written already."""
    return Response(orjson.dumps(content), status, headers, kind)


class InHand:
    """The answers that are being made: each is dropped when its client goes away, all when the server gives up."""

    def __init__(self) -> None:
        self._work: set[asyncio.Future[Any]] = set()

    async def answered(self, request: Request, answer: Awaitable[Answer]) -> Answer:
        """Wait for an answer.

        Raises:
            ClientGoneError: the client went away.
            UnavailableError: the server gave up.
        """
        work = asyncio.ensure_future(answer)
        gone = asyncio.ensure_future(_gone(request))
        self._work.add(work)
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.cancelled():
                raise UnavailableError("the server is shutting down, and this took too long; try again")
            if work.done():
                return work.result()
            raise ClientGoneError("the client went away before its answer was there")
        finally:
            self._work.discard(work)
            gone.cancel()
            work.cancel()

    def give_up(self) -> None:
        """Drop all answers that are not there yet."""
        for work in self._work:
            work.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _parts(vectors: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    rows = max(1, _NUMBERS_AT_A_TIME // max(1, vectors.shape[1]))
    contiguous = np.ascontiguousarray(vectors)
    return (contiguous[start : start + rows] for start in range(0, len(contiguous), rows))


def _written(numbers: NDArray[np.float32]) -> bytes:
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
