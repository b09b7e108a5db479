"""OpenAI's embeddings: the requests of its clients, and the objects that they expect back, errors included."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import orjson
from pydantic import Field, WrapValidator
from pydantic_core import PydanticCustomError
from starlette.responses import Response
from typing_extensions import TypedDict

from driftline.serving.server.bodies import REFUSED, SEVERAL, BodyType, Text, Vector, json_answer, json_rows
from driftline.serving.server.failures import Failure
from driftline.serving.server.protocols.v2 import float_bytes
from driftline.serving.server.service import EmbeddingService, Options

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel

OWNER: Final = "driftline"

_TYPES: Final[dict[int, str]] = {
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "server_error",
    HTTPStatus.GATEWAY_TIMEOUT: "server_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "server_error",
}


def _texts_only(value: object, read: Callable[[object], Any]) -> Any:
    try:
        return read(value)
    except ValueError:
        given = cast("list[object]", value) if isinstance(value, list) else []
        if any(isinstance(one, (int, list)) and not isinstance(one, bool) for one in given):
            message = "token ids are not taken, since each model has its own; send the texts"
            raise PydanticCustomError(REFUSED, message) from None
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIRequest(Options):
    """Texts to embed; `prompt`, the name of one of the model's prompts, is taken beside what OpenAI's API has."""

    model: Annotated[str, Field(description="the name of a model, a string")]
    input: Annotated[
        Text | Annotated[list[Text], Field(json_schema_extra=SEVERAL)],
        WrapValidator(_texts_only),
        Field(description="a text, or an array of texts"),
    ]
    encoding_format: Annotated[Literal["float", "base64"] | None, Field(description="float or base64")] = None


class OpenAIEmbedding(TypedDict):
    """A text's vector."""

    object: Literal["embedding"]
    index: int
    embedding: Vector | str


class OpenAIUsage(TypedDict):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int


class OpenAIResponse(TypedDict):
    """The texts' vectors."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIModel(TypedDict):
    """A model, and beside what OpenAI's API says of it what its vectors are."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    revision: str
    dimension: int
    max_tokens: int


class OpenAIModels(TypedDict):
    """The models."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIFailure(TypedDict):
    """Reason of a failure."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(TypedDict):
    """A failed request's answer."""

    error: OpenAIFailure


REQUEST: Final = BodyType(OpenAIRequest)


async def embeddings(service: EmbeddingService, body: object, expires: float) -> Response:
    """Answer a request for embeddings, given its JSON.

    Raises:
        RequestError, DriftlineError: it is refused, or fails.
    """
    request = REQUEST.read(body)
    texts = service.check_texts("input", [request.input] if isinstance(request.input, str) else request.input)
    embedded = await service.embed_in_time(service.model(request.model), texts, request, expires)
    vectors = embedded.vectors
    if request.encoding_format == "base64":
        written: list[orjson.Fragment | str] = [base64.b64encode(float_bytes(vector)).decode() for vector in vectors]
    else:
        written = [orjson.Fragment(row) for row in await json_rows(vectors)]
    data: list[OpenAIEmbedding] = [
        {"object": "embedding", "index": number, "embedding": embedding} for number, embedding in enumerate(written)
    ]
    usage: OpenAIUsage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    answer: OpenAIResponse = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return json_answer(answer)


def model_object(model: ServedModel, created_s: int) -> OpenAIModel:
    """Return a model as OpenAI's API describes it.

    Args:
        model: which.
        created_s: when the server began to serve it, seconds since 1970.
    """
    return {
        "id": model.name,
        "object": "model",
        "created": created_s,
        "owned_by": OWNER,
        "revision": model.revision,
        "dimension": model.dimension,
        "max_tokens": model.max_tokens,
    }


def error_object(failure: Failure) -> OpenAIError:
    """Return OpenAI's object of an error."""
    return {
        "error": {
            "message": failure.message,
            "type": _TYPES.get(failure.status, "invalid_request_error"),
            "param": failure.parameter or None,
            "code": failure.code or None,
        }
    }
