"""The types of carried columns: their names in JSON, and their conversion to text."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.errors import DataError

JSON_TYPE = "json"
"""The type name of a JSONL column of mixed or nested values: each value is kept as JSON text, in a string."""

# A type that has no short name, a nested one say, travels as a serialised Arrow schema.
_SERIALISED = "arrow:"
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns), tz=(.+)\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that a Parquet column is read as: dictionaries and extensions become what they hold."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return kind


def type_name(kind: pa.DataType) -> str:
    """A type's name, such that `type_from_name` gives the type back."""
    name = str(kind)
    if _from_short_name(name) == kind:
        return name
    serialised = pa.schema([pa.field("", kind)]).serialize().to_pybytes()
    return _SERIALISED + base64.b64encode(serialised).decode("ascii")


def type_from_name(name: str) -> pa.DataType:
    """The Arrow type of a name that `type_name` gave; `json` is a string.

    Raises:
        DataError: No type is so called.
    """
    if name == JSON_TYPE:
        return pa.string()
    if name.startswith(_SERIALISED):
        try:
            buffer = pa.py_buffer(base64.b64decode(name[len(_SERIALISED) :], validate=True))
            return pa.ipc.read_schema(buffer).field(0).type
        except (ValueError, OSError, pa.ArrowException) as error:
            raise DataError(f"column type {name[:40]!r} cannot be read ({error}); scan the texts again") from error
    kind = _from_short_name(name)
    if kind is None:
        raise DataError(f"column type {name!r} is not known; scan the texts again")
    return kind


def _from_short_name(name: str) -> pa.DataType | None:
    if match := _TIMESTAMP.fullmatch(name):
        return pa.timestamp(match[1], tz=match[2])
    if match := _DECIMAL.fullmatch(name):
        make: dict[str, Callable[[int, int], pa.DataType]] = {
            "32": pa.decimal32,
            "64": pa.decimal64,
            "128": pa.decimal128,
            "256": pa.decimal256,
        }
        return make[match[1]](int(match[2]), int(match[3]))
    try:
        return pa.type_for_alias(name)
    except ValueError:
        return None


def is_text(kind: pa.DataType) -> bool:
    """Say whether a type is one of Arrow's string types."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def plain_values(values: pa.Array) -> pa.Array:
    """Turn dictionary and extension arrays into arrays of what they hold."""
    if isinstance(values, pa.ExtensionArray):
        return plain_values(values.storage)
    if isinstance(values, pa.DictionaryArray):
        return plain_values(values.dictionary_decode())
    return values


def as_strings(values: pa.Array) -> pa.Array:
    """Write values of any type as strings; nulls stay null.

    Numbers, booleans and times are written as Arrow prints them, bytes as base64, nested values as JSON.
    """
    kind = values.type
    if pa.types.is_string(kind):
        return values
    if not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        try:
            return pc.cast(values, pa.string())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            # No such cast, or a time zone that this machine does not know: written value by value below.
            pass
    return pa.array([None if value is None else _one_string(value) for value in values.to_pylist()], type=pa.string())


def _one_string(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=_one_string)
    return str(value)
