"""Frozen dataclasses as JSON files: what tasks hand to each other."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from driftline.components.errors import DataError
from driftline.components.storage.store import read_bytes, write_bytes

T = TypeVar("T")


def write_value(uri: str, value: object) -> None:
    """Write a dataclass as JSON, whole or not at all. Floats survive the round trip bit for bit."""
    write_bytes(uri, TypeAdapter(type(value)).dump_json(value))


def read_value(uri: str, kind: type[T]) -> T:
    """Read a dataclass that :func:`write_value` wrote.

    Raises:
        DataError: the file holds something else, or the value of another version of Driftline.
        StorageError: the file could not be read.
    """
    try:
        return TypeAdapter(kind).validate_json(read_bytes(uri))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(
            f"{uri}: expected a {kind.__name__}, but {place}: {first['msg']}; run the step that wrote it "
            "again, "
            "with the same version of Driftline"
        ) from error
