"""A run's parameters: what a pipeline declares, and what a person gives, converted and checked before it is sent.

The server converts nothing: "0.1" for a number is refused, and so is what it does not know or misses; but 8.5 for a
whole number is taken, and fails in the run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, cast

import yaml

from driftline.components.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a pipeline declares.

    Attributes:
        name: its name.
        kind: STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, LIST or STRUCT.
        required: whether a run must be given it.
        default: what it is otherwise; None for nothing.
        meaning: what it is for.
        literals: the values that it can have; empty for any.
    """

    name: str
    kind: str
    required: bool
    default: object = None
    meaning: str = ""
    literals: tuple[object, ...] = ()


_WORDS: Final[Mapping[str, str]] = {
    "STRING": "text",
    "NUMBER_INTEGER": "whole number",
    "NUMBER_DOUBLE": "number",
    "BOOLEAN": "true or false",
    "LIST": "list, as JSON",
    "STRUCT": "object, as JSON",
}
"""KFP's types in plain words."""


def declared(spec: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return the parameters of a pipeline spec, by name, in its order.

    Raises:
        DataError: it is no pipeline spec.
    """
    root = _mapping(spec.get("root"))
    if "dag" not in root:
        raise DataError("pipeline: expected a compiled pipeline with 'root' and its 'dag'; compile it with kfp 2")
    found: dict[str, Parameter] = {}
    for name, value in _mapping(_mapping(root.get("inputDefinitions")).get("parameters")).items():
        one = _mapping(value)
        default = one.get("defaultValue")
        found[name] = Parameter(
            name=name,
            kind=str(one.get("parameterType") or "STRING"),
            required=default is None and not one.get("isOptional"),
            default=default,
            meaning=str(one.get("description") or ""),
            literals=tuple(cast("Sequence[object]", one.get("literals") or ())),
        )
    return found


def grouped(parameters: Mapping[str, Parameter]) -> dict[str, list[Parameter]]:
    """Return parameters by group: those that must be given under an empty name, then by how their names begin.

    Groups and names come in the order of Kubeflow's form, which is that of letters.
    """
    groups: dict[str, list[Parameter]] = {}
    for one in sorted(parameters.values(), key=lambda parameter: (not parameter.required, parameter.name)):
        group = "" if one.required else one.name.partition("_")[0] or one.name
        groups.setdefault(group, []).append(one)
    return groups


def brief(parameters: Mapping[str, Parameter], *, meanings: bool = True) -> str:
    """Return parameters as short Markdown, an item for each group.

    It is made for the card of a pipeline in Kubeflow's UI, which is 410 pixels wide, does not scroll and has room for
    some 36 lines; a table of four columns does not fit. It can also be read when its lines are joined, as the UI's box
    for a description does with what is pasted into it.

    Args:
        parameters: by name.
        meanings: whether to say what each is for: the beginning of its meaning.
    """
    items: list[str] = []
    for group, members in grouped(parameters).items():
        told = [
            f"{_code(one.name)} {_text(_gist(one.meaning), parameters) if meanings else ''}".rstrip() for one in members
        ]
        items.append(("- " if group else "- **must be given:** ") + "; ".join(told))
    return "\n".join(items)


def markdown(parameters: Mapping[str, Parameter]) -> str:
    """Return tables of parameters with their whole meanings: those that must be given, and the rest."""
    groups = grouped(parameters)
    needed, optional = groups.pop("", []), [one for group in groups.values() for one in group]
    tables: list[str] = []
    if needed:
        tables.append(
            _table(
                ("must be given", "type", "meaning"),
                [(_code(one.name), _kind(one), _text(one.meaning, parameters)) for one in needed],
            )
        )
    if optional:
        rows = [(_code(one.name), _kind(one), _code(_shown(one)), _text(one.meaning, parameters)) for one in optional]
        tables.append(_table(("may be given", "type", "default", "meaning"), rows))
    return "\n\n".join(tables)


def read_parameters(path: str) -> dict[str, Any]:
    """Return the parameters that a file gives, YAML or JSON: names and values of their own types.

    Dates stay text, and ``yes`` or ``on`` stay words, as in YAML 1.2.

    Raises:
        UsageError: it cannot be read.
        DataError: it is no YAML, or no mapping.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), PlainLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UsageError(f"params {path}: {error.strerror}; name a YAML or JSON file") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise DataError(f"params {path}: is no YAML or JSON ({_problem(error)})") from error
    if not isinstance(content, dict):
        raise DataError(f"params {path}: expected names and values, got {type(content).__name__}")
    return {str(name): value for name, value in cast("dict[object, Any]", content).items()}


def parameters_of(
    parameters: Mapping[str, Parameter], given: Sequence[str], from_file: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what to send for a run.

    Args:
        parameters: what the pipeline declares.
        given: NAME=VALUE each, converted to the parameter's type; they win over the file.
        from_file: names and values of their own types.

    Raises:
        UsageError: a name is unknown or given twice, a value is not of its type, or a parameter is missing.
    """
    values: dict[str, Any] = {}
    for name, value in (from_file or {}).items():
        values[name] = _checked(_known(name, parameters), value)
    typed: dict[str, Any] = {}
    for one in given:
        name, separator, text = one.partition("=")
        if not separator or not name:
            raise UsageError(f"parameter: expected NAME=VALUE, got {one!r}")
        if name in typed:
            raise UsageError(f"parameter {name}: is given twice")
        typed[name] = _converted(_known(name, parameters), text)
    values |= typed
    missing = [name for name, one in parameters.items() if one.required and name not in values]
    if missing:
        example = " ".join(f"-p {name}=…" for name in missing)
        raise UsageError(f"parameter{'s' if len(missing) > 1 else ''} {', '.join(missing)}: must be given: {example}")
    return values


class PlainLoader(yaml.SafeLoader):
    """Reads YAML's core schema: no dates or times, and ``yes`` and ``on`` are words."""


PlainLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", [*"-+0123456789"]),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
    ("merge", r"<<", ["<"]),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _known(name: str, parameters: Mapping[str, Parameter]) -> Parameter:
    if name not in parameters:
        close = get_close_matches(name, parameters, 1)
        known = f"did you mean {close[0]}?" if close else f"known: {', '.join(parameters) or 'none'}"
        raise UsageError(f"parameter {name}: the pipeline has none of that name; {known}")
    return parameters[name]


def _converted(parameter: Parameter, text: str) -> object:
    """Return a typed text as a value of the parameter's type."""
    convert = _FROM_TEXT.get(parameter.kind)
    if convert is None:
        raise UsageError(f"parameter {parameter.name}: is of the type {parameter.kind}, which cannot be given")
    try:
        value = convert(text)
    except ValueError:
        raise _wrong(parameter, text) from None
    return _checked(parameter, value)


def _checked(parameter: Parameter, value: object) -> object:
    """Return a value, once it is known to be of the parameter's type."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or (isinstance(value, float) and math.isfinite(value))
    fits = {
        "STRING": isinstance(value, str),
        "NUMBER_INTEGER": whole,
        "NUMBER_DOUBLE": number,
        "BOOLEAN": isinstance(value, bool),
        "LIST": isinstance(value, list),
        "STRUCT": isinstance(value, dict),
    }
    if not fits.get(parameter.kind, True):
        raise _wrong(parameter, value)
    if parameter.literals and value not in parameter.literals:
        expected = ", ".join(map(str, parameter.literals))
        raise UsageError(f"parameter {parameter.name}: expected one of {expected}, got {value!r}")
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_FROM_TEXT: Final[Mapping[str, Callable[[str], object]]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": _boolean,
    "LIST": json.loads,
    "STRUCT": json.loads,
}


def _wrong(parameter: Parameter, value: object) -> UsageError:
    words = _WORDS.get(parameter.kind, parameter.kind)
    return UsageError(f"parameter {parameter.name}: expected {words}, got {value!r}")


def _shown(parameter: Parameter) -> str:
    """Return a default as a person would type it; KFP keeps whole numbers as 8.0."""
    value = parameter.default
    if parameter.kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _text(plain: str, names: Collection[str]) -> str:
    """Return a plain text as Markdown, in which the underscores of names would be emphasis."""
    names = [name for name in names if "_" in name]
    parts = re.split(rf"(`[^`]*`|(?<![\w/])(?:{'|'.join(names)})(?![\w/]))" if names else r"(`[^`]*`)", plain)
    marked = [_code(part.strip("`")) if at % 2 else re.sub(r"([*_\\])", r"\\\1", part) for at, part in enumerate(parts)]
    return "".join(marked)


def _kind(parameter: Parameter) -> str:
    """Return what can be given, in words."""
    if parameter.literals and parameter.kind != "BOOLEAN":
        return "one of " + ", ".join(_code(str(one)) or "nothing" for one in parameter.literals)
    return _WORDS.get(parameter.kind, parameter.kind)


def _gist(meaning: str) -> str:
    """Return an explanation up to its first full stop or semicolon, without what stands in brackets."""
    said = " ".join(re.sub(r"\s\([^()]*\)", "", meaning).split())
    first = re.split(r"\. |; ", said, maxsplit=1)[0].removesuffix(".")
    return first[:1].lower() + first[1:] if first[1:2].islower() else first


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f", line {mark.line + 1}"
    return f"{getattr(error, 'problem', None) or 'not UTF-8'}{place}"
