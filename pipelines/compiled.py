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
from driftline.pipelines.parameters import brief, declared, markdown
from driftline.pipelines.profile import Profile

_PAGE: Final = """\
# {name}

<!-- Written by `make golden`. -->

Who uploads the file in Kubeflow's UI pastes this into the box *Pipeline Description*; `driftline submit` and
`driftline schedule` send it by themselves.

```text
{pasted}
```

## Parameters

A text that is left empty, and a number that is left out, is the default.

{tables}
"""

DIGEST_LENGTH: Final = 12  # hexadecimal digits, 48 bits: of the versions of one pipeline no two will share them


def compile_pipeline(name: str, profile: Profile, *, choices: bool = False) -> str:
    """Return a pipeline's YAML: the pipeline spec and, where tasks have Kubernetes settings, the platform spec.

    Args:
        name: of the pipeline.
        profile: where its tasks run.
        choices: whether to write down which words parameters take. KFP knows them from 2.16 on, and older releases
            refuse the file.

    Raises:
        UsageError: there is no pipeline of that name.
    """
    if name not in PIPELINES:
        raise UsageError(f"pipeline: unknown {name!r}; choose one of: {', '.join(PIPELINES)}")
    text = _yaml(PIPELINES[name](profile))
    return _offering_choices(text, name) if choices else text


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


def compile_objects(
    name: str, profile: Profile, *, namespace: str = "", version_name: str = "", choices: bool = False
) -> str:
    """Return a pipeline as the Kubernetes objects Pipeline and PipelineVersion, for KFP servers that keep them so.

    Args:
        name: of the pipeline.
        profile: where its tasks run.
        namespace: of the objects; empty to leave it to who applies them.
        version_name: name of the PipelineVersion; empty for :func:`version_of`.
        choices: as of :func:`compile_pipeline`.

    Raises:
        UsageError: there is no pipeline of that name.
    """
    pipeline = compile_pipeline(name, profile, choices=choices)
    options = KubernetesManifestOptions(
        pipeline_version_name=version_name or version_of(pipeline),
        namespace=namespace or None,
        include_pipeline_manifest=True,
    )
    text = _yaml(PIPELINES[name](profile), kubernetes_manifest_format=True, kubernetes_manifest_options=options)
    # KFP describes the version as it does the pipeline; what is new in a version is its parameters.
    described = brief(declared(_documents(pipeline)[0]))
    objects = _documents(_offering_choices(text, name) if choices else text)
    objects[-1]["spec"]["description"] = described
    return _dumped(objects)


def explain(name: str, text: str) -> str:
    """Return the page of a compiled pipeline, as Markdown: what to paste where it is uploaded by hand, and its tables.

    Kubeflow takes no description from a pipeline's file. The box for it has one line, which joins what is pasted.

    Args:
        name: of the pipeline.
        text: its YAML.
    """
    from driftline.pipelines.choices import offer_choices  # imports numpy, which compiling alone has no need of

    spec = _documents(text)[0]
    info = spec["pipelineInfo"]
    pasted = " ".join(f"{info['description']} {brief(declared(spec))}".split())
    offer_choices(spec, name)
    return _PAGE.format(name=info["name"], pasted=pasted, tables=markdown(declared(spec)))


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


def _offering_choices(text: str, name: str) -> str:
    """Return a pipeline's YAML, of either format, with the words that its parameters take."""
    from driftline.pipelines.choices import offer_choices  # as above

    documents = _documents(text)
    for document in documents:
        spec = document if "root" in document else document.get("spec", {}).get("pipelineSpec")
        if spec is not None:
            offer_choices(spec, name)
    head = re.match(r"(?:#.*\n)*", text)
    return (head[0] if head else "") + _dumped(documents)


def _documents(text: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all(text)]


def _dumped(documents: list[dict[str, Any]]) -> str:
    """Return documents as KFP's SDK writes them."""
    return yaml.dump_all(documents, sort_keys=True)


def _yaml(compiled: Any, **options: Any) -> str:
    with tempfile.TemporaryDirectory(prefix="driftline-") as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(compiled, str(path), **options)
        return path.read_text(encoding="utf-8")
