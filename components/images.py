"""The container images that the components run in.

A task runs in the image that is chosen when it is made: by `task.set_container_image`, by a profile, or for all
components at once by the environment variable DRIFTLINE_IMAGES, such as

    DRIFTLINE_IMAGES=embed=registry.example/driftline/embed@sha256:…,kernels=registry.example/driftline/kernels@sha256:…

and else in those named here: in production give an image's digest in a registry of your own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from driftline.components.errors import UsageError

VERSION: Final = "0.1.0"

DEFAULTS: Final[Mapping[str, str]] = {
    "embed": f"driftline/embed:{VERSION}",  # PyTorch and sentence-transformers: encoding and backfill
    "kernels": f"driftline/kernels:{VERSION}",  # JAX: sampling, projection, kernels, tests and report
}
"""Image references by name."""

VARIABLE: Final = "DRIFTLINE_IMAGES"


def references() -> dict[str, str]:
    """Return the image references by name, those of the environment in the place of the defaults.

    The environment is read when a task is made, not at import: a notebook may set it between two pipelines.

    Raises:
        UsageError: the environment variable is not a list of NAME=REFERENCE, or names an image that there is not.
    """
    found = dict(DEFAULTS)
    for entry in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        name, separator, reference = entry.partition("=")
        if name not in DEFAULTS or not separator or not reference:
            raise UsageError(
                f"{VARIABLE}: expected NAME=REFERENCE with NAME one of {', '.join(DEFAULTS)}, separated by commas, got "
                f"{entry!r}"
            )
        found[name] = reference
    return found


def reference(name: str) -> str:
    """Return the reference of one image. Raises UsageError as :func:`references` does."""
    return references()[name]
