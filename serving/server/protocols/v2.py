"""The V2 protocol in REST: tensors in JSON, or in binary behind it (the binary tensor data extension), both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

import orjson
from starlette.responses import Response

from driftline.serving.server.bodies import json_answer, json_numbers, json_object
from driftline.serving.server.failures import RequestError
from driftline.serving.server.protocols.tensors import (
    OUTPUT,
    check_count,
    check_outputs,
    check_tensor,
    decoded,
    float_bytes,
    read_bytes_tensor,
)
from driftline.serving.server.service import EmbeddingService, Options, read_options, whole

JSON_LENGTH_HEADER: Final = "inference-header-content-length"
BINARY: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A V2 request.

    Attributes:
        id: the caller's name for it; empty where it has none.
        texts: fit for the encoder.
        options: what is asked for beside them.
        binary: whether the vectors are to be written in binary.
    """

    id: str
    texts: list[str]
    options: Options
    binary: bool


def read_infer(service: EmbeddingService, content: bytes, json_length: str | None) -> InferRequest:
    """Read a V2 request.

    Args:
        service: which knows how many texts a request may have.
        content: the body.
        json_length: what the header of :data:`JSON_LENGTH_HEADER` says; None where there is none, and all is JSON.

    Raises:
        RequestError, PoisonError: it is none.
    """
    if json_length is None:
        head, tail = content, b""
    else:
        size = int(json_length) if json_length.isascii() and json_length.isdigit() and len(json_length) < 18 else -1
        if not 0 < size <= len(content):
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"header {JSON_LENGTH_HEADER}: expected the length of the body's JSON, up to {len(content):,} bytes, "
                f"got {json_length[:20]!r}",
            )
        head, tail = content[:size], content[size:]
    body = json_object(head)
    given_id = body.get("id")
    if given_id is not None and not isinstance(given_id, str):
        raise RequestError(HTTPStatus.BAD_REQUEST, "id: expected a string")
    tensor, name = _only_input(body)
    shape = tensor.get("shape")
    if isinstance(shape, list):
        shape = [whole(size) for size in cast("list[object]", shape)]
    declared = check_tensor(name, tensor.get("datatype"), shape)
    parameters = _object(body, "parameters", "parameters")
    options = read_options("parameters", parameters)
    binary = _binary_output(body, parameters)
    size = whole(_object(tensor, "parameters", f"input {name}: parameters").get("binary_data_size"))
    if size is not None:
        if "data" in tensor:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"input {name}: has both data and binary_data_size")
        if type(size) is not int or size != len(tail):
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"input {name}: binary_data_size is {str(size)[:20]}, but {len(tail):,} bytes follow the JSON",
            )
        elements = read_bytes_tensor(name, tail, service.limits.texts)
        if len(elements) <= service.limits.texts:
            check_count(name, declared, len(elements))
        texts: Sequence[object] = decoded(name, elements)
    else:
        if tail:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, f"input {name}: bytes follow the JSON, but it has no binary_data_size"
            )
        texts = _json_data(name, tensor.get("data"))
        check_count(name, declared, len(texts))
    return InferRequest(given_id or "", service.check_texts(f"input {name}", texts), options, binary)


async def infer(
    service: EmbeddingService, model: str, content: bytes, json_length: str | None, expires: float
) -> Response:
    """Answer a V2 request.

    Raises:
        RequestError, DriftlineError: it is refused, or fails.
    """
    found = service.model(model)
    request = read_infer(service, content, json_length)
    vectors = (await service.embed(found, request.texts, request.options, expires)).vectors
    output: dict[str, object] = {"name": OUTPUT, "datatype": "FP32", "shape": list(vectors.shape)}
    answer: dict[str, object] = {"model_name": model, "id": request.id, "outputs": [output]}
    if not request.binary:
        output["data"] = orjson.Fragment(await json_numbers(vectors, flat=True))
        return json_answer(answer)
    tail = float_bytes(vectors)
    output["parameters"] = {"binary_data_size": len(tail)}
    head = orjson.dumps(answer)
    return Response(head + tail, HTTPStatus.OK, {JSON_LENGTH_HEADER: str(len(head))}, BINARY)


def _only_input(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or len(cast("list[object]", inputs)) != 1:
        raise RequestError(HTTPStatus.BAD_REQUEST, "inputs: expected an array of one tensor, the BYTES tensor of texts")
    tensor = cast("list[object]", inputs)[0]
    if not isinstance(tensor, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "inputs[0]: expected an object with name, datatype, shape and data")
    found = cast("dict[str, Any]", tensor)
    name = found.get("name")
    if not isinstance(name, str):
        raise RequestError(HTTPStatus.BAD_REQUEST, "inputs[0]: expected a name, a string")
    return found, name[:60]


def _object(holder: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{where}: expected an object")
    return cast("dict[str, Any]", value)


def _binary_output(body: dict[str, Any], parameters: dict[str, Any]) -> bool:
    binary = parameters.get("binary_data_output", False)
    outputs = body.get("outputs")
    if outputs is not None:
        if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in cast("list[object]", outputs)):
            raise RequestError(HTTPStatus.BAD_REQUEST, "outputs: expected an array of objects with a name")
        asked = cast("list[dict[str, Any]]", outputs)
        check_outputs([one.get("name") for one in asked])
        for one in asked:
            binary = _object(one, "parameters", f"output {OUTPUT}: parameters").get("binary_data", binary)
    if not isinstance(binary, bool):
        raise RequestError(HTTPStatus.BAD_REQUEST, "binary_data and binary_data_output: expected true or false")
    return binary


def _json_data(name: str, data: object) -> list[object]:
    """Return the elements of a tensor in JSON, which may be nested as its shape is."""
    if not isinstance(data, list):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"input {name}: expected data, an array of strings")
    elements: list[object] = []
    for element in cast("list[object]", data):
        if isinstance(element, list):
            elements += cast("list[object]", element)
        else:
            elements.append(element)
    if not all(isinstance(element, str) for element in elements):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"input {name}: expected data of strings")
    return elements
