"""The package's own files: templates and style, which every page carries in itself."""

from __future__ import annotations

import functools
from importlib import resources

import jinja2
from markupsafe import Markup


def style() -> Markup:
    """Return the pages' CSS."""
    return Markup(_packaged("report.css"))


@functools.lru_cache(maxsize=2)
def template(name: str) -> jinja2.Template:
    """Return one of this package's templates."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_packaged),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _packaged(name: str) -> str:
    return resources.files(__package__ or __name__).joinpath(name).read_text(encoding="utf-8")
