"""V2's tensors: one BYTES tensor of texts in, one FP32 tensor of vectors out; pure, for REST and gRPC alike."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from driftline.serving.server.failures import RequestError

INPUT: Final = "text"
OUTPUT: Final = "embedding"

_LENGTH: Final = struct.Struct("<I")


def check_tensor(name: str, datatype: object, shape: object) -> int:
    """Return how many texts a tensor holds by its header.

    Args:
        name: of the tensor, for messages.
        datatype: must be BYTES.
        shape: must be (n,), (n, 1) or (1, n).

    Raises:
        RequestError: 400, it is not so.
    """
    if datatype != "BYTES":
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"input {name}: expected datatype BYTES, got {str(datatype)[:20]}; texts are BYTES"
        )
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"input {name}: expected a shape, an array of integers")
    sizes = cast("Sequence[object]", shape)
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"input {name}: expected a shape of integers of 0 or more")
    known = cast("Sequence[int]", sizes)
    if len(known) not in (1, 2) or (len(known) == 2 and 1 not in known):
        shown = ", ".join(str(size) for size in known[:4])
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"input {name}: expected shape [n], [n, 1] or [1, n] for n texts, got [{shown}]"
        )
    return math.prod(known)


def check_count(name: str, declared: int, found: int) -> None:
    """Check that a tensor holds as many texts as its shape says.

    Raises:
        RequestError: 400, it does not.
    """
    if declared != found:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"input {name}: its shape says {declared} texts, its data holds {found}"
        )


def check_outputs(names: Sequence[object]) -> None:
    """Check the outputs that a request names.

    Raises:
        RequestError: 400, there is no such output.
    """
    for name in names:
        if name != OUTPUT:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"output {str(name)[:40]}: there is none but {OUTPUT!r}")


def read_bytes_tensor(name: str, content: bytes | memoryview, most: int) -> list[bytes]:
    """Return the elements of a binary BYTES tensor: each its length, 4 bytes little-endian, and then itself.

    Args:
        name: of the tensor, for messages.
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
                f"input {name}: element {len(elements)} goes beyond the tensor's {end:,} bytes; each element is its "
                "length, 4 bytes little-endian, and then itself",
            )
        elements.append(bytes(content[start:at]))
    return elements


def decoded(name: str, elements: Sequence[bytes]) -> list[str]:
    """Return texts of their UTF-8.

    Raises:
        RequestError: 400, one is none.
    """
    texts: list[str] = []
    for number, element in enumerate(elements):
        try:
            texts.append(element.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"input {name}: element {number} is not UTF-8 ({error.reason} at byte {error.start})",
            ) from error
    return texts


def float_bytes(vectors: NDArray[np.float32]) -> bytes:
    """Return a binary FP32 tensor: little-endian, row after row."""
    return np.ascontiguousarray(vectors, "<f4").tobytes()
