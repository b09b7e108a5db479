"""Frozen dataclasses as JSON files: what tasks hand to each other."""

from __future__ import annotations

import functools
import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from driftline.components.errors import DataError
from driftline.components.steps import check_not_skipped
from driftline.components.storage.objects.store import ANY, Over, read_bytes, write_bytes

T = TypeVar("T")


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # takes some 10 ms to make


def value_bytes(uri: str, value: object) -> bytes:
    """Return a dataclass as the content of a JSON file. Floats survive the round trip bit for bit.

    Args:
        uri: the file, for messages.
        value: the dataclass.

    Raises:
        DataError: a number is NaN or infinite, or a string is not Unicode; neither is JSON.
    """
    try:
        plain = _adapter(type(value)).dump_python(value, mode="json")
        return json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise DataError(
            f"{uri}: the {type(value).__name__} to write is not JSON ({error}); look for NaN or damaged text in "
            "the input"
        ) from error


def write_value(uri: str, value: object, *, over: Over = ANY) -> None:
    """Write a dataclass as JSON, as of :func:`value_bytes`, whole or not at all.

    Args:
        uri: the file.
        value: the dataclass.
        over: what it may replace, as of `store.create`.

    Raises:
        DataError: it is not JSON.
        StorageConflict: something else is there than `over` says.
        StorageError: the file could not be written.
    """
    write_bytes(uri, value_bytes(uri, value), over=over)


def read_value(uri: str, kind: type[T]) -> T:
    """Read a dataclass that :func:`write_value` wrote.

    Raises:
        Skipped: the file says that the run is skipped.
        DataError: the file holds something else, or the value of another version of Driftline.
        StorageError: the file could not be read.
    """
    content = read_bytes(uri)
    try:
        return _adapter(kind).validate_json(content)
    except ValidationError as error:
        check_not_skipped(content)
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(
            f"{uri}: expected {kind.__name__}, but {place}: {first['msg']}; run the step that wrote it "
            "again, "
            "with the same version of Driftline"
        ) from error
