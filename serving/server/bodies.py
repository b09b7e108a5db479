"""Bodies of requests and answers: bounded reading, media types, typed JSON, fast JSON of vectors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import Annotated, Any, Final, Generic, TypeVar, cast

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from driftline.serving.errors import UnavailableError
from driftline.serving.server.failures import ClientGoneError, RequestError

Answer = TypeVar("Answer")
Body = TypeVar("Body")
Schema = dict[str, Any]

JSON: Final = "application/json"
_JSON_TYPES: Final = frozenset(("", JSON))

# Numbers that are written in one go, about 5 ms; between two goes, others have their turn on the event loop.
_NUMBERS_AT_A_TIME: Final = 128 * 1024
_SHOWN: Final = 40  # characters of a wrong value in a message
_FEW: Final = 4  # elements of an array that a message shows
REFUSED: Final = "refused"
"""Type of a pydantic error whose own message tells the caller what is wrong."""

MOST_TEXTS: Final = "texts in a request"
"""Stands for `RequestLimits.texts` in schemas of types, until the OpenAPI document is written for certain limits."""

TEXT: Final[Schema] = {"type": "string", "minLength": 1, "pattern": r"\S"}
NUMBERS: Final[Schema] = {"type": "array", "items": {"type": "number"}}
SEVERAL: Final[Schema] = {"minItems": 1, "maxItems": MOST_TEXTS}


def whole(value: object) -> object:
    """Return the integer for a number without a fraction: JSON knows no other difference between 2 and 2.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Whether a text is fit for the encoder is not for its type to say: `EmbeddingService.check_texts` does, with 422.
Text = Annotated[str, WithJsonSchema(TEXT)]
AnyText = Annotated[object, WithJsonSchema(TEXT)]
Size = Annotated[int, Field(strict=True, ge=0, description="an integer of 0 or more"), BeforeValidator(whole)]
Flag = Annotated[bool, Field(strict=True, description="true or false")]
# What `json_numbers` and `json_rows` wrote, an orjson.Fragment.
Vector = Annotated[object, WithJsonSchema(NUMBERS)]
Vectors = Annotated[object, WithJsonSchema({"type": "array", "items": NUMBERS})]

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
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit_bytes and request.headers.get("expect"):
        raise _too_large(limit_bytes)
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
                    raise _too_large(limit_bytes)
    except ClientDisconnect as error:
        raise ClientGoneError("the client went away while sending its request") from error
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    return b"".join(pieces)


def media_type(request: Request) -> str:
    """Return the media type of a request's body, in lower case without parameters; empty where it is not stated."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


def check_json_type(kind: str) -> None:
    """Check that a body of this media type may be read as JSON: it says so, or says nothing.

    Raises:
        RequestError: 415, it is something else.
    """
    if kind not in _JSON_TYPES:
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type {kind[:60]}: expected {JSON}", code="content_type"
        )


class BodyType(Generic[Body]):
    """A kind of body: a type that JSON's values are checked against, whose descriptions say what was expected.

    Args:
        body: a type that pydantic knows; the description of each of its parts goes on with "expected".
    """

    def __init__(self, body: type[Body]) -> None:
        self._adapter = TypeAdapter(body)

    def read(self, value: object) -> Body:
        """Return a value of JSON as this type.

        Raises:
            RequestError: 400, it is of another form.
        """
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        raise self._refusal(value, errors)

    @cached_property
    def _schema(self) -> Schema:
        return self._adapter.json_schema()

    def _refusal(self, value: Any, errors: Sequence[ErrorDetails]) -> RequestError:
        """Return the first of some errors in one line: where, what was expected, and what stands there.

        A union has errors of each of its members; the one that came furthest says the most.
        """
        found = [(self._places(error["loc"]), error) for error in errors]
        first = [step for step, _ in found[0][0]]
        alike = (one for one in found if [step for step, _ in one[0]][: len(first)] == first)
        places, error = max(alike, key=lambda one: len(one[0]))
        path, where, expected = "", "the body", "a JSON object"
        got, parameter = value, next((step for step, _ in reversed(places) if isinstance(step, str)), "")
        for number, (step, schema) in enumerate(places, 1):
            holder = f"{path}: the object" if path else "the body"
            path = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}".removeprefix(".")
            if number == len(places) and error["type"] == "missing":
                message = f"{holder} has no {step!r}; expected {schema.get('description', 'a text')}"
                return RequestError(HTTPStatus.BAD_REQUEST, message, parameter=parameter)
            value = value[step]
            if "description" in schema:
                where, expected, got = path, str(schema["description"]), value
        message = error["msg"] if error["type"] == REFUSED else f"expected {expected}, got {_shown(got)}"
        return RequestError(HTTPStatus.BAD_REQUEST, f"{where}: {message}", parameter=parameter)

    def _places(self, location: tuple[str | int, ...]) -> list[tuple[str | int, Schema]]:
        """Return the steps that lead to an error, each with the schema of what it leads to."""
        places: list[tuple[str | int, Schema]] = []
        schema = self._schema
        for step in location:
            inner = self._inner(schema, step)
            if inner is not None:  # else the name of a member of a union, which is no step
                places.append((step, inner))
                schema = inner
        return places

    def _inner(self, node: Schema, step: str | int) -> Schema | None:
        """Return the schema of a part of what a schema describes; None where there is no such part."""
        if "$ref" in node:
            node = self._schema["$defs"][node["$ref"].rpartition("/")[2]]
        for one in cast("list[Schema]", node.get("anyOf", ())):
            if (found := self._inner(one, step)) is not None:
                return found
        if isinstance(step, int):
            return node.get("items")
        return node.get("properties", {}).get(step)


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


class InFlight:
    """The requests in flight: each is dropped when its client goes away, all when the server gives up."""

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


def _too_large(limit_bytes: int) -> RequestError:
    message = f"the body is larger than {limit_bytes:,} bytes; split the request"
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _parts(vectors: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    rows = max(1, _NUMBERS_AT_A_TIME // max(1, vectors.shape[1]))
    contiguous = np.ascontiguousarray(vectors)
    return (contiguous[start : start + rows] for start in range(0, len(contiguous), rows))


def _written(numbers: NDArray[np.float32]) -> bytes:
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)


def _shown(value: object) -> str:
    """Return a wrong value as a message shows it: what is long is cut, or said in general terms."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        inner = cast("list[object]", value)
        if len(inner) > _FEW or any(isinstance(one, (dict, list, str)) for one in inner):
            return f"an array of {len(inner)}"
    text = json.dumps(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
