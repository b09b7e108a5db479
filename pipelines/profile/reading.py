"""A YAML file as a checked model, and what is wrong with it in one line that names the key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from driftline.components.errors import UsageError
from driftline.components.storage.objects.store import read_bytes

M = TypeVar("M", bound=BaseModel)

SHOWN: Final = 60  # characters of a wrong value in a message: enough to find it, and the line stays one line
SECRETS: Final = "secrets"  # whose values are never shown: somebody may have put the secret itself there


def read_model(kind: type[M], uri: str) -> M:
    """Read a YAML file, local or gs://.

    Raises:
        UsageError: it is no YAML, or not what the model expects; the line names the key.
        StorageError: it could not be read.
    """
    content = read_bytes(uri)
    try:
        loader = _Loader(content)
        found = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise UsageError(f"{uri}: {place}expected YAML ({error.problem or error.context})") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise UsageError(f"{uri}: expected YAML in UTF-8 ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        got = "an empty file" if found is None else _shown(found)
        raise UsageError(f"{uri}: expected keys such as {', '.join(list(kind.model_fields)[:3])}, got {got}")
    return checked(kind, found, uri)


def checked(kind: type[M], values: Mapping[str, Any], source: str) -> M:
    """Return a model of these values.

    Args:
        kind: the model.
        values: by the names of its attributes.
        source: where they are from, to begin the message with.

    Raises:
        UsageError: something in them is not as the model expects.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(f"{source}: {_in_one_line(kind, error)}") from error


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key given twice, of which YAML's own would take the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping's keys and values."""
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in keys:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} is given twice", problem_mark=key.start_mark)
            keys.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def _in_one_line(kind: type[BaseModel], error: ValidationError) -> str:
    """Return the first error in words, and the keys of the others."""
    schema = kind.model_json_schema()
    found = [_problem(schema, one) for one in error.errors(include_url=False)]
    places = list(dict.fromkeys(place for place, _ in found))
    (first, words), *_ = found
    others = [place for place in places if place != first]
    line = f"{first}: {words}" if first else words
    return f"{line} (and {len(others)} more: {', '.join(others)})" if others else line


def _problem(schema: Mapping[str, Any], error: ErrorDetails) -> tuple[str, str]:
    """Return a key's path and what is wrong there."""
    location = [part for part in error["loc"] if part != "[key]"]
    of_key = len(location) < len(error["loc"]) or error["type"] == "invalid_key"
    if of_key and not isinstance(error["input"], str):  # YAML reads `on:` and `1:` as other kinds of key
        words = f"expected text as every key, in quotes where need be, got {_shown(error['input'])}"
        return _path(location[:-1]), words
    context = error.get("ctx", {})
    path = _path([*location, *([context["key"]] if "key" in context else [])])
    if error["type"] == "extra_forbidden":
        return path, _unknown(str(location[-1]), _keys(schema, location[:-1]))
    if error["type"] == "missing":
        return path, f"expected a value for {location[-1]}, got none"
    if of_key and error["type"] == "literal_error":
        return path, _unknown(str(location[-1]), _keys(schema, location[:-1]))
    words = _expectation(schema, location, error)
    if of_key:
        return path, f"{words.replace('expected', 'expected as the key', 1)}, got {_shown(error['input'])}"
    if SECRETS in location:
        return path, words if "key" in context else f"{words}, and never the secret itself"
    return path, words if "key" in context else f"{words}, got {_shown(error['input'])}"


def _unknown(key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"unknown; did you mean {near[0]}?" if near else f"unknown; expected one of: {', '.join(known)}"


def _expectation(schema: Mapping[str, Any], location: Sequence[str | int], error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "expected":
            return error["msg"]
        case "literal_error":
            return f"expected {context['expected']}"
        case "greater_than_equal":
            return f"expected a whole number of at least {context['ge']}"
        case "less_than_equal":
            return f"expected a whole number of at most {context['le']}"
        case "int_type" | "int_from_float" | "int_parsing":
            return "expected a whole number"
        case "string_type":
            return "expected text (in quotes, where YAML reads a number, a date or yes and no)"
        case "tuple_type" | "frozen_set_type":
            return "expected a list"
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            keys = _keys(schema, location)
            return f"expected keys among {', '.join(keys)}" if keys else "expected keys and values"
        case _:
            return f"expected something else ({error['msg']})"


def _path(location: Sequence[str | int]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _keys(schema: Mapping[str, Any], location: Sequence[str | int]) -> list[str]:
    """Return the keys that may stand at a place; none where any may."""
    here: Any = schema
    for part in location:
        here = next((_below(schema, one, part) for one in _choices(schema, here) if _below(schema, one, part)), {})
    for one in _choices(schema, here):
        if "properties" in one:
            return list(one["properties"])
        if "enum" in one.get("propertyNames", {}):
            return list(one["propertyNames"]["enum"])
    return []


def _choices(schema: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the schema of a place, looked up, or each that it may have."""
    if "$ref" in here:
        here = schema["$defs"][here["$ref"].rpartition("/")[2]]
    if "anyOf" in here:
        for one in here["anyOf"]:
            yield from _choices(schema, one)
    else:
        yield here


def _below(schema: Mapping[str, Any], here: Mapping[str, Any], part: str | int) -> Mapping[str, Any]:
    if isinstance(part, int):
        return here.get("items", {})
    below = here.get("properties", {}).get(part, here.get("additionalProperties", {}))
    return below if isinstance(below, Mapping) else {}


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
