"""The components' tables in the READMEs of their folders, written from the declarations: `make golden` calls this.

Whatever a README says by hand stands outside the two marks, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from docstring_parser.google import DEFAULT_SECTIONS, GoogleParser, Section, SectionType

from driftline.components.declaration import Component
from driftline.pipelines.catalogue import COMPONENTS

ROOT = Path(__file__).parents[2]
BEGIN = "<!-- From here on written by `make golden` from component.py. -->"
END = "<!-- By hand again. -->"

ALONE = "Output"
"""What KFP calls the output of a component that returns one unnamed value."""

_PYTHON = {
    "String": "str",
    "Integer": "int",
    "Float": "float",
    "Boolean": "bool",
    "List": "list",
    "Dict": "dict",
    "typing.List[dict]": "List[dict]",
}
_SECTIONS = [section for section in DEFAULT_SECTIONS if section.title != "Returns"]


def by_folder() -> Mapping[Path, list[Component]]:
    """The components of each folder that holds any, in the order of a pipeline."""
    folders: dict[Path, list[Component]] = {}
    for component in COMPONENTS.values():
        part = component.python_func.__module__.split(".")[-2]
        folders.setdefault(ROOT / "components" / part, []).append(component)
    return folders


def tables(components: Iterable[Component]) -> str:
    """Return what a README says of its folder's components, as Markdown."""
    return "\n".join("\n".join(_section(component)) for component in components)


def written(readme: str, generated: str) -> str:
    """Return a README with the part between its marks in the place of the one that is there.

    Raises:
        ValueError: it lacks a mark.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{generated}\n{END}{after}"


def _section(component: Component) -> Iterator[str]:
    said, spec = _docstring(component), component.component_spec
    yield f"### {component.python_func.__name__}\n"
    yield f"{said['']} Image: `{component.image}`; compiled: [{component.name}.yaml]({_yaml(component)}).\n"
    yield "| input | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, declared in spec.inputs.items():
        default = f"`{declared.default!r}`".replace("'", '"') if declared.optional else ""
        yield f"| `{name}` | {_type(declared.type)} | {default} | {said[name]} |"
    if spec.outputs:
        yield "\n| output | type | meaning |"
        yield "|---|---|---|"
        for name, declared in spec.outputs.items():
            yield f"| `{name}` | {_type(declared.type)} | {said[name]} |"
    yield ""


def _docstring(component: Component) -> Mapping[str, str]:
    """Return what a component's docstring says: of itself by the empty name, of inputs and outputs by theirs."""
    text = component.python_func.__doc__
    named = [name for name in component.component_spec.outputs or {} if name != ALONE]
    kind = SectionType.MULTIPLE if re.search(rf"Returns:\s+({'|'.join(named)}): ", text) else SectionType.SINGULAR
    parsed = GoogleParser([*_SECTIONS, Section("Returns", "returns", kind)]).parse(text)
    about = filter(None, (parsed.short_description, parsed.long_description))
    said = {"": " ".join(map(_line, about))}
    said |= {one.arg_name: _line(one.description) for one in parsed.params}
    said |= {one.args[-1] if kind is SectionType.MULTIPLE else ALONE: _line(one.description)
             for one in parsed.many_returns}  # fmt: skip
    return said


def _line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _type(declared: Any) -> str:
    """Return a type as it is written in Python, an artifact's by its class."""
    known = _PYTHON.get(str(declared))
    return f"`{known}`" if known else f"`{str(declared).partition('@')[0].removeprefix('system.Driftline')}`"


def _yaml(component: Component) -> str:
    return f"../../pipelines/yaml/{component.name}.yaml"


def main() -> None:
    """Write the tables into every README."""
    for folder, components in by_folder().items():
        readme = folder / "README.md"
        readme.write_text(written(readme.read_text(encoding="utf-8"), tables(components)), encoding="utf-8")


if __name__ == "__main__":
    main()
