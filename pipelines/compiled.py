"""Compile pipelines and components to the YAML that a Kubeflow cluster takes."""

from __future__ import annotations

import copy
import hashlib
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml
from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.python_component import PythonComponent

from driftline.components.errors import UsageError
from driftline.components.images import VERSION
from driftline.pipelines.catalogue import COMPONENTS, PIPELINES
from driftline.pipelines.profile import Profile

DIGEST_LENGTH: Final = 12  # hexadecimal digits, 48 bits: of the versions of one pipeline no two will share them


def compile_pipeline(name: str, profile: Profile) -> str:
    """Return a pipeline's YAML: the pipeline spec and, where tasks have Kubernetes settings, the platform spec.

    Raises:
        UsageError: there is no pipeline of that name.
    """
    if name not in PIPELINES:
        raise UsageError(f"pipeline: unknown {name!r}; choose one of: {', '.join(PIPELINES)}")
    return _yaml(PIPELINES[name](profile))


def compile_component(name: str, profile: Profile) -> str:
    """Return a component's YAML, its image that of the profile, for pipelines of others to load.

    A profile's other settings belong to tasks: who makes a task of the component sets them.

    Raises:
        UsageError: there is no component of that name.
    """
    if name not in COMPONENTS:
        raise UsageError(f"component: unknown {name!r}; choose one of: {', '.join(COMPONENTS)}")
    component = COMPONENTS[name]
    spec: Any = copy.deepcopy(component.component_spec)
    spec.implementation.container.image = profile.image(component.image)
    return _yaml(PythonComponent(spec, component.python_func))


def compile_objects(name: str, profile: Profile, *, namespace: str = "", version_name: str = "") -> str:
    """Return a pipeline as the Kubernetes objects Pipeline and PipelineVersion, for KFP servers that keep them so.

    Args:
        name: of the pipeline.
        profile: where its tasks run.
        namespace: of the objects; empty to leave it to who applies them.
        version_name: name of the PipelineVersion; empty for :func:`version_of`.

    Raises:
        UsageError: there is no pipeline of that name.
    """
    version = version_name or version_of(compile_pipeline(name, profile))
    options = KubernetesManifestOptions(
        pipeline_version_name=version, namespace=namespace or None, include_pipeline_manifest=True
    )
    return _yaml(PIPELINES[name](profile), kubernetes_manifest_format=True, kubernetes_manifest_options=options)


def version_of(text: str) -> str:
    """Return the name of a compiled pipeline's version: the pipeline's, Driftline's version, and the YAML's digest.

    It may be a Kubernetes object's name, which must not be another pipeline's version's either.
    """
    name = next(iter(yaml.safe_load_all(text)))["pipelineInfo"]["name"]
    return f"{name}-{VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]}"


def steps_of(text: str) -> frozenset[str]:
    """Return the steps, by their components' names, that a compiled pipeline or component has."""
    return frozenset(_executors(text))


def steps_with_gpu(text: str) -> frozenset[str]:
    """Return the steps of a compiled pipeline whose tasks ask for GPUs."""
    return frozenset(
        step
        for step, executor in _executors(text).items()
        if "accelerator" in executor["container"].get("resources", {})
    )


def _executors(text: str) -> dict[str, Any]:
    spec = next(iter(yaml.safe_load_all(text)))
    # KFP tells executors of the same component that differ apart by a number.
    return {
        re.sub(r"^exec-|-\d+$", "", label): executor for label, executor in spec["deploymentSpec"]["executors"].items()
    }


def _yaml(compiled: Any, **options: Any) -> str:
    with tempfile.TemporaryDirectory(prefix="driftline-") as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(compiled, str(path), **options)
        return path.read_text(encoding="utf-8")
