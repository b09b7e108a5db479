"""OpenAI's embeddings: what its clients send, and the objects that they expect back, errors included."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, cast

import orjson
from starlette.responses import Response

from driftline.serving.server.bodies import json_answer, json_rows
from driftline.serving.server.failures import Failure, RequestError
from driftline.serving.server.protocols.tensors import float_bytes
from driftline.serving.server.service import EmbeddingService, Options, TextModel, read_options

OWNER: Final = "driftline"

_TYPES: Final[dict[int, str]] = {
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "server_error",
    HTTPStatus.GATEWAY_TIMEOUT: "server_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "server_error",
}


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A request for embeddings.

    Attributes:
        model: name of the model.
        texts: fit for the encoder.
        encoding: how vectors are written.
        options: what is asked for beside the texts.
    """

    model: str
    texts: list[str]
    encoding: Literal["float", "base64"]
    options: Options


def read_embeddings_request(service: EmbeddingService, body: dict[str, Any]) -> EmbeddingsRequest:
    """Read a request; `prompt`, the name of one of the model's prompts, is taken beside what OpenAI's API has.

    Raises:
        RequestError, PoisonError: it is none.
    """
    model = body.get("model")
    if not isinstance(model, str):
        raise RequestError(HTTPStatus.BAD_REQUEST, "model: expected the name of a model, a string", parameter="model")
    given = body.get("input")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list):
        raise RequestError(HTTPStatus.BAD_REQUEST, "input: expected a text, or an array of texts", parameter="input")
    texts = cast("list[object]", given)
    if any(isinstance(text, (int, list)) and not isinstance(text, bool) for text in texts):
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            "input: token ids are not taken, since each model has its own; send the texts",
            parameter="input",
        )
    if not all(isinstance(text, str) for text in texts):
        raise RequestError(HTTPStatus.BAD_REQUEST, "input: expected an array of texts", parameter="input")
    encoding = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise RequestError(
            HTTPStatus.BAD_REQUEST, "encoding_format: expected float or base64", parameter="encoding_format"
        )
    return EmbeddingsRequest(
        model, service.check_texts("input", texts), encoding or "float", read_options("body", body)
    )


async def embeddings(service: EmbeddingService, body: dict[str, Any], expires: float) -> Response:
    """Answer a request for embeddings.

    Raises:
        RequestError, DriftlineError: it is refused, or fails.
    """
    request = read_embeddings_request(service, body)
    embedded = await service.embed(service.model(request.model), request.texts, request.options, expires)
    vectors = embedded.vectors
    if request.encoding == "base64":
        written: list[object] = [base64.b64encode(float_bytes(vector)).decode() for vector in vectors]
    else:
        written = [orjson.Fragment(row) for row in await json_rows(vectors)]
    data = [
        {"object": "embedding", "index": number, "embedding": embedding} for number, embedding in enumerate(written)
    ]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return json_answer({"object": "list", "data": data, "model": request.model, "usage": usage})


def model_object(model: TextModel, created_s: int) -> dict[str, object]:
    """Return what OpenAI's API says of a model, and beside it what its vectors are.

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


def error_object(failure: Failure) -> dict[str, object]:
    """Return OpenAI's object of an error."""
    return {
        "error": {
            "message": failure.message,
            "type": _TYPES.get(failure.status, "invalid_request_error"),
            "param": failure.parameter or None,
            "code": failure.code or None,
        }
    }
