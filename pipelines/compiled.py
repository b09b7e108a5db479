"""Compile pipelines to the YAML that a Kubeflow cluster takes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from kfp.compiler import Compiler

from driftline.components.errors import UsageError
from driftline.components.storage.store import write_bytes
from driftline.pipelines.backfill import backfill_pipeline
from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.profile import Profile

PIPELINES: Final[Mapping[str, Callable[[Profile], Callable[..., Any]]]] = {
    "backfill": backfill_pipeline,
    "drift": drift_pipeline,
}


def compile_pipeline(name: str, profile: Profile) -> str:
    """Return a pipeline's YAML: the pipeline spec and, where tasks have Kubernetes settings, the platform spec.

    Raises:
        UsageError: there is no pipeline of that name.
    """
    if name not in PIPELINES:
        raise UsageError(f"pipeline: unknown {name!r}; choose one of: {', '.join(PIPELINES)}")
    with tempfile.TemporaryDirectory(prefix="driftline-") as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(PIPELINES[name](profile), str(path))  # pyright: ignore[reportArgumentType]
        return path.read_text(encoding="utf-8")


def write_pipeline(name: str, profile: Profile, out: str) -> None:
    """Compile a pipeline to a file, local or gs://, whole or not at all."""
    write_bytes(out, compile_pipeline(name, profile).encode())
