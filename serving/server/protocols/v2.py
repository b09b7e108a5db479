"""The V2 protocol in REST: one BYTES tensor of texts in, one FP32 tensor of vectors out.

Tensors stand in the JSON, or in binary behind it (the binary tensor data extension), both ways. What gRPC needs as
well, `protocols.grpc` takes from here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final, Literal, NotRequired

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, FailFast, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from driftline.serving.records.payloads import parsed_json
from driftline.serving.server.bodies import (
    SEVERAL,
    BodyType,
    Flag,
    Size,
    Text,
    Vector,
    json_answer,
    json_numbers,
)
from driftline.serving.server.failures import RequestError
from driftline.serving.server.service import EmbeddingService, Options

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel

JSON_LENGTH_HEADER: Final = "inference-header-content-length"
BINARY: Final = "application/octet-stream"
INPUT: Final = "text"
OUTPUT: Final = "embedding"

_LENGTH: Final = struct.Struct("<I")


def _of_one_axis(shape: list[int]) -> list[int]:
    if len(shape) == 2 and 1 not in shape:
        raise ValueError
    return shape


Shape = Annotated[
    list[Size],
    Field(min_length=1, max_length=2, description="a shape, [n], [n, 1] or [1, n] for n texts"),
    AfterValidator(_of_one_axis),
]


@dataclass(frozen=True, slots=True)
class InputParameters:
    """Parameters of the input tensor."""

    binary_data_size: Annotated[Size | None, Field(description="the number of the tensor's bytes behind the JSON")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class InputTensor:
    """The tensor of texts; in binary, its parameters stand for its data."""

    __pydantic_config__ = ConfigDict(json_schema_extra={"required": ["name", "datatype", "shape", "data"]})

    name: Annotated[str, Field(description="a name, a string", examples=[INPUT])]
    datatype: Annotated[Literal["BYTES"], Field(description="datatype BYTES, as texts are")]
    shape: Shape
    data: Annotated[
        list[Text | list[Text]] | None,
        FailFast(),
        Field(description="data, an array of strings", json_schema_extra=SEVERAL),
    ] = None
    parameters: Annotated[InputParameters | None, Field(description="an object")] = None


@dataclass(frozen=True, slots=True)
class OutputParameters:
    """Parameters of an output tensor."""

    binary_data: Annotated[Flag | None, Field(description="true or false")] = None


@dataclass(frozen=True, slots=True)
class OutputChoice:
    """An output that is asked for."""

    name: Annotated[Literal["embedding"], Field(description=f"{OUTPUT!r}, the only output")]
    parameters: Annotated[OutputParameters | None, Field(description="an object")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class V2Parameters(Options):
    """Parameters of a V2 request."""

    binary_data_output: Flag = False


@dataclass(frozen=True, slots=True, kw_only=True)
class V2Request:
    """Texts to embed."""

    id: Annotated[str | None, Field(description="a string")] = None
    parameters: Annotated[V2Parameters | None, Field(description="an object of parameters")] = None
    inputs: Annotated[
        list[Annotated[InputTensor, Field(description="an object with name, datatype, shape and data")]],
        Field(min_length=1, max_length=1, description="an array of one tensor, the BYTES tensor of texts"),
    ]
    outputs: Annotated[list[OutputChoice] | None, Field(description="an array of objects with a name")] = None

    @property
    def tensor(self) -> InputTensor:
        """The tensor of texts."""
        return self.inputs[0]

    @property
    def where(self) -> str:
        """The tensor of texts, for messages."""
        return f"input {self.tensor.name[:60]}"

    @property
    def binary_output(self) -> bool:
        """Whether the vectors are to be written in binary."""
        binary = self.parameters is not None and self.parameters.binary_data_output
        for output in self.outputs or ():
            if output.parameters is not None and output.parameters.binary_data is not None:
                binary = output.parameters.binary_data
        return binary


class OutputTensorParameters(TypedDict):
    """Parameters of the tensor of vectors."""

    binary_data_size: int


class OutputTensor(TypedDict):
    """The tensor of vectors; in binary, its parameters stand for its data."""

    name: str
    datatype: str
    shape: list[int]
    data: NotRequired[Vector]
    parameters: NotRequired[OutputTensorParameters]


class V2Response(TypedDict):
    """The texts' vectors."""

    model_name: str
    id: str
    outputs: list[OutputTensor]


REQUEST: Final = BodyType(V2Request)


async def infer(
    service: EmbeddingService, model: ServedModel, content: bytes, json_length: str | None, expires: float
) -> Response:
    """Answer a V2 request.

    Args:
        service: makes the vectors.
        model: of what the path names.
        content: the body.
        json_length: the header of :data:`JSON_LENGTH_HEADER`; None where there is none, and all is JSON.
        expires: `time.monotonic()` when the answer would come too late.

    Raises:
        RequestError, DriftlineError: it is refused, or fails.
    """
    head, tail = _divided(content, json_length)
    request = REQUEST.read(parsed_json("the body", head))
    texts = service.check_texts(request.where, _given_texts(request, tail, service.limits.texts))
    embedded = await service.embed_in_time(model, texts, request.parameters or Options(), expires)
    vectors = embedded.vectors
    output: OutputTensor = {"name": OUTPUT, "datatype": "FP32", "shape": list(vectors.shape)}
    own_id = (request.id or "").encode("utf-8", "replace").decode()  # half surrogate pairs are no UTF-8
    answer: V2Response = {"model_name": model.name, "id": own_id, "outputs": [output]}
    if not request.binary_output:
        output["data"] = orjson.Fragment(await json_numbers(vectors, flat=True))
        return json_answer(answer)
    numbers = float_bytes(vectors)
    output["parameters"] = {"binary_data_size": len(numbers)}
    written = orjson.dumps(answer)
    return Response(written + numbers, HTTPStatus.OK, {JSON_LENGTH_HEADER: str(len(written))}, BINARY)


def _divided(content: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    """Return a body's JSON, and the binary tensors behind it."""
    if json_length is None:
        return content, b""
    size = int(json_length) if json_length.isascii() and json_length.isdigit() and len(json_length) < 18 else -1
    if not 0 < size <= len(content):
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            f"header {JSON_LENGTH_HEADER}: expected the length of the body's JSON, up to {len(content):,} bytes, "
            f"got {json_length[:20]!r}",
        )
    return content[:size], content[size:]


def _given_texts(request: V2Request, tail: bytes, most: int) -> Sequence[object]:
    tensor, where = request.tensor, request.where
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if size is not None:
        if tensor.data is not None:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"{where}: has both data and binary_data_size")
        if size != len(tail):
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"{where}: binary_data_size is {str(size)[:20]}, but {len(tail):,} bytes follow the JSON",
            )
        return decoded(request, read_bytes_tensor(where, tail, most), most)
    if tail:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{where}: bytes follow the JSON, but it has no binary_data_size")
    if tensor.data is None:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{where}: expected data, an array of strings")
    texts: list[object] = []
    for element in tensor.data:
        if isinstance(element, list):
            texts += element
        else:
            texts.append(element)
    _check_count(request, len(texts))
    return texts


def _check_count(request: V2Request, found: int) -> None:
    declared = math.prod(request.tensor.shape)
    if declared != found:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"{request.where}: its shape says {declared} texts, its data holds {found}"
        )


def read_bytes_tensor(where: str, content: bytes | memoryview, most: int) -> list[bytes]:
    """Return the elements of a binary BYTES tensor: each its length, 4 bytes little-endian, and then itself.

    Args:
        where: the tensor, for messages.
        content: the tensor's bytes.
        most: elements that are read; there may be one more in the result, so that the caller sees that there are more.

    Raises:
        RequestError: 400, a length leads beyond the end.
    """
    elements: list[bytes] = []
    at, end = 0, len(content)
    while at < end and len(elements) <= most:
        start = at + _LENGTH.size
        if start > end or (at := start + _LENGTH.unpack_from(content, at)[0]) > end:
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"{where}: element {len(elements)} goes beyond the tensor's {end:,} bytes; each element is its "
                "length, 4 bytes little-endian, and then itself",
            )
        elements.append(bytes(content[start:at]))
    return elements


def decoded(request: V2Request, elements: Sequence[bytes], most: int) -> list[str]:
    """Return texts of their UTF-8.

    Args:
        request: whose tensor they are.
        elements: the tensor's elements.
        most: texts that a request may have; of more, not all need be there.

    Raises:
        RequestError: 400, one is no UTF-8, or there are not as many as the tensor's shape says.
    """
    if len(elements) <= most:
        _check_count(request, len(elements))
    texts: list[str] = []
    for number, element in enumerate(elements):
        try:
            texts.append(element.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"{request.where}: element {number} is not UTF-8 ({error.reason} at byte {error.start})",
            ) from error
    return texts


def float_bytes(vectors: NDArray[np.float32]) -> bytes:
    """Return a binary FP32 tensor: little-endian, row after row."""
    return np.ascontiguousarray(vectors, "<f4").tobytes()
