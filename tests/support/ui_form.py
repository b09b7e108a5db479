"""The form for a run as Kubeflow's UI has it, by the UI's own rules.

They are those of Kubeflow Pipelines 2.17.0, ``frontend/src/components/NewRunParametersV2.tsx`` and
``frontend/src/lib/NewRunParametersUtils.ts``. The order is the API server's, which sends maps by key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.support.compiled_ir import Spec, inputs_of

TYPES: Final = {
    "NUMBER_DOUBLE": "double",
    "NUMBER_INTEGER": "integer",
    "STRING": "string",
    "BOOLEAN": "boolean",
    "LIST": "list",
    "STRUCT": "dict",
}
LEFT_OUT: Final = object()
"""What a box gives whose parameter is not sent."""

_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")  # of JavaScript's, those that people write


class RefusedError(Exception):
    """What stands in red below a box, which keeps the run from being started."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box of the form.

    Attributes:
        name: the parameter's.
        kind: its type.
        required: whether "Missing parameter." stands below it at the start.
        text: what is in it at the start.
        options: what can be chosen, where it is a select box; else nothing.
    """

    name: str
    kind: str
    required: bool
    text: str
    options: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.name} - {TYPES[self.kind]}"

    def given(self, text: str) -> object:
        """Return what is sent for what stands in the box.

        Raises:
            RefusedError: nothing is.
        """
        if text == "" and self.kind != "STRING":
            if self.required:
                raise RefusedError("Missing parameter.")
            return LEFT_OUT
        try:
            return _converted(self.kind, text)
        except ValueError as error:
            raise RefusedError(f"Invalid input. This parameter should be in {TYPES[self.kind]} type") from error


def boxes(spec: Spec) -> list[Box]:
    """Return the form's boxes, from the top."""
    return [_box(name, declared) for name, declared in sorted(inputs_of(spec["root"]).items())]


def sent(spec: Spec, typed: Mapping[str, str]) -> dict[str, object]:
    """Return the parameters that are sent, once something was typed into some of the boxes.

    Raises:
        RefusedError: the run cannot be started; the message says what stands below the box.
    """
    values: dict[str, object] = {}
    for box in boxes(spec):
        if box.required and box.name not in typed:
            raise RefusedError(f"{box.label}: Missing parameter.")
        try:
            values[box.name] = box.given(typed.get(box.name, box.text))
        except RefusedError as error:
            raise RefusedError(f"{box.label}: {error}") from error
    return {name: value for name, value in values.items() if value is not LEFT_OUT}


def _box(name: str, declared: Spec) -> Box:
    default = declared.get("defaultValue")
    kind = declared["parameterType"]
    return Box(name, kind, default is None, "" if default is None else _shown(default), _options(declared))


def _options(declared: Spec) -> tuple[str, ...]:
    return tuple(_shown(one) for one in declared.get("literals", ()))


def _shown(value: Any) -> str:
    """Return a value as JavaScript has it as a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _converted(kind: str, text: str) -> object:
    """Return a text as a value. Raises ValueError where it is none of its type."""
    match kind:
        case "STRING":
            return text
        case "BOOLEAN":
            return {"true": True, "false": False}[text] if text in ("true", "false") else _none(text)
        case "NUMBER_INTEGER" | "NUMBER_DOUBLE":
            number = float(text) if _NUMBER.fullmatch(text.strip()) else _none(text)
            return number if kind == "NUMBER_DOUBLE" or number.is_integer() else _none(text)
        case "LIST":
            return json.loads(text) if text.strip().startswith("[") else _none(text)
        case _:
            return json.loads(text) if text.strip().startswith("{") else _none(text)


def _none(text: str) -> Any:
    raise ValueError(text)
