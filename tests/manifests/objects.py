"""The manifests' objects, built by kustomize, and the pods that they make, as a cluster would run them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "manifests" / "base"

Object = dict[str, Any]
"""One Kubernetes object, as parsed from YAML."""


def build(folder: Path) -> list[Object]:
    """Build a kustomization."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            assert "deprecated" not in done.stderr
            return [one for one in yaml.safe_load_all(done.stdout) if one]
    pytest.skip("neither kubectl nor kustomize is installed, so nothing builds the manifests")


def title(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: Sequence[Object], kind: str, stem: str) -> Object:
    """The one object of this kind and name; a generated one's name ends in a hash."""
    found = [
        one for one in of_kind(objects, kind) if re.fullmatch(rf"{re.escape(stem)}(-[a-z0-9]{{10}})?", name_of(one))
    ]
    assert len(found) == 1, f"{len(found)} objects {kind}/{stem}"
    return found[0]


def name_of(one: Object) -> str:
    return one["metadata"]["name"]


@dataclass(frozen=True)
class Pod:
    """A pod that an object makes; its template is part of the object, so that a change of it shows there.

    Attributes:
        owner: the object.
        labels: the pod's.
        spec: the pod's; of an InferenceService, the predictor.
    """

    owner: Object
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.spec["containers"]
        return only


def pods(objects: Sequence[Object]) -> Iterator[Pod]:
    for one in objects:
        if one["kind"] in ("StatefulSet", "Deployment", "Job"):
            template = one["spec"]["template"]
            yield Pod(one, template["metadata"]["labels"], template["spec"])
        elif one["kind"] == "InferenceService":
            predictor = one["spec"]["predictor"]
            yield Pod(one, predictor["labels"], predictor)


def pod_of(objects: Sequence[Object], component: str) -> Pod:
    (found,) = [pod for pod in pods(objects) if pod.labels["app.kubernetes.io/component"] == component]
    return found


FIELDS = {"metadata.name": "driftline-0", "metadata.namespace": "reviews"}
"""What the pod is told about itself."""


def environment(pod: Pod, objects: Sequence[Object]) -> dict[str, str]:
    """The container's environment, made of its sources as Kubernetes makes it; what is not there is empty."""
    settings = {name_of(one): one.get("data") or {} for one in of_kind(objects, "ConfigMap")}
    found: dict[str, str] = {}
    for source in pod.container.get("envFrom", []):
        values = settings.get(source["configMapRef"]["name"], {})
        found |= {source.get("prefix", "") + key: value for key, value in values.items()}
    own: dict[str, str] = {}
    for variable in pod.container.get("env", []):
        if "value" in variable:  # $(NAME) stands for a variable that was named before; envFrom's do not count
            value = re.sub(r"\$\((\w+)\)", lambda match: own.get(match[1], match[0]), variable["value"])
        elif "fieldRef" in variable["valueFrom"]:
            value = FIELDS[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            key = variable["valueFrom"]["configMapKeyRef"]
            value = settings.get(key["name"], {}).get(key["key"], "")
        own[variable["name"]] = value
    return found | own
