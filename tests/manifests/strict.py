"""Objects against their schemas, where a key that the schema does not know is an error.

Custom resources are checked against their definitions' JSON schemas, closed so that no further key is let through;
Kubernetes' own kinds against the models of its Python client, whose attributes are the fields of its API.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from kubernetes import client

from tests.manifests.objects import ROOT, Object

SCHEMAS = ROOT.parent / "shared" / "crds"
"""One file a kind, `<group>_<version>_<kind>.json`."""

OWN_KINDS = {
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "StatefulSet": "apps/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
}

SCALARS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def problems(one: Object) -> list[str]:
    """What is wrong with an object's form, a line each."""
    kind, api_version = one["kind"], one["apiVersion"]
    if kind in OWN_KINDS:
        wrong = [] if api_version == OWN_KINDS[kind] else [f"apiVersion: {api_version}, expected {OWN_KINDS[kind]}"]
        return wrong + model_problems(one, f"V1{kind}", "")
    if "status" in one:
        return ["status: it is the cluster's to write"]
    metadata = model_problems(one["metadata"], "V1ObjectMeta", "metadata")
    errors = Draft202012Validator(schema_of(api_version, kind)).iter_errors(one)
    return metadata + [f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors]


def schema_of(api_version: str, kind: str) -> dict[str, Any]:
    """A custom resource's schema, closed."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"the schemas of custom resources are not at hand: there is no folder {SCHEMAS}")
    group, _, version = api_version.partition("/")
    path = SCHEMAS / f"{group}_{version}_{kind}.json"
    if not path.exists():
        pytest.fail(f"no schema of {api_version} {kind} in {SCHEMAS}")
    schema = closed(json.loads(path.read_text(encoding="utf-8")))
    for key in ("apiVersion", "kind", "metadata"):  # every object's; a definition need not name them
        schema["properties"][key] = True
    return schema


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy of a definition's schema that admits the keys it names and no others, at every depth."""

    def close(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                close(item)
        elif isinstance(node, dict):
            for item in node.values():
                close(item)
            if node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
                node.setdefault("additionalProperties", False)

    copied = copy.deepcopy(schema)
    close(copied)
    return copied


def model_problems(value: Any, kind: str, path: str) -> list[str]:
    """What of a value does not fit a type of Kubernetes' Python client: `str`, `list[V1Container]`, `V1Pod`, …"""
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{path}: expected a list, got {value!r}"]
        return [line for at, item in enumerate(value) for line in model_problems(item, found[1], f"{path}[{at}]")]
    if found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            return [f"{path}: expected a mapping, got {value!r}"]
        return [line for key, item in value.items() for line in model_problems(item, found[1], f"{path}.{key}")]
    if kind in SCALARS:
        fits = isinstance(value, SCALARS[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{path}: expected {kind}, got {value!r}"]
    if kind == "object":  # a number or a name
        return [] if isinstance(value, int | str) else [f"{path}: expected a number or a name, got {value!r}"]
    if not isinstance(value, dict):
        return [f"{path}: expected a mapping, got {value!r}"]
    model = getattr(client, kind)
    names = {key: attribute for attribute, key in model.attribute_map.items()}
    unknown = [f"{path}.{key}".lstrip(".") + ": unknown" for key in value if key not in names]
    known = {key: item for key, item in value.items() if key in names}
    inner = [
        line
        for key, item in known.items()
        for line in model_problems(item, model.openapi_types[names[key]], f"{path}.{key}".lstrip("."))
    ]
    try:
        model(**{names[key]: item for key, item in known.items()})
    except ValueError as error:  # a field that must be there is not
        inner.append(f"{path}: {error}".lstrip(": "))
    return unknown + inner
