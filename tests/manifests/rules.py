"""What must hold of pods and of what they name, beyond the form of each object. Each rule lists what breaks it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from driftline.components import images
from tests.manifests.objects import Object, Pod, name_of, of_kind, pods, title

USER = 10001
"""The images' user."""

GPU = "nvidia.com/gpu"


def confined(pod: Pod) -> Iterator[str]:
    """The pod keeps to Kubernetes' restricted profile, and can write to its volumes alone."""
    inside = pod.spec.get("securityContext", {})
    for key, expected in {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}.items():
        if inside.get(key) != expected:
            yield f"securityContext.{key} is {inside.get(key)}, expected {expected}"
    if inside.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccompProfile is not RuntimeDefault"
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "a service account's token is mounted, which nothing uses"
    yield from (f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key))
    for volume in pod.spec.get("volumes", []):
        (kind,) = volume.keys() - {"name"}
        if kind not in ("configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"):
            yield f"volume {volume['name']} is of the kind {kind}"
    for container in pod.spec.get("initContainers", []) + pod.spec["containers"]:
        own = container.get("securityContext", {})
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if own != expected:
            yield f"container {container['name']} has the securityContext {own}, expected {expected}"


def provided(pod: Pod) -> Iterator[str]:
    """The pod says what it needs: memory is bounded and not overcommitted, GPUs are whole, volumes have a size."""
    resources = pod.container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    yield from (f"requests no {name}" for name in ("cpu", "memory") if name not in requests)
    if limits.get("memory") is None or limits["memory"] != requests.get("memory"):
        yield f"memory: limit {limits.get('memory')}, request {requests.get('memory')}, expected the same"
    if limits.get(GPU) != requests.get(GPU):
        yield f"{GPU}: limit {limits.get(GPU)}, request {requests.get(GPU)}, expected the same"
    if GPU in limits and not any(one.get("key") == GPU for one in pod.spec.get("tolerations", [])):
        yield "wants a GPU and does not tolerate the taint of GPU nodes"
    try:
        quantities = {name: parse_quantity(value) for name, value in (requests | limits).items()}
    except ValueError as error:
        yield str(error)
        return
    in_memory = 0
    for volume in pod.spec.get("volumes", []):
        if "emptyDir" not in volume:
            continue
        size = volume["emptyDir"].get("sizeLimit")
        if size is None:
            yield f"volume {volume['name']} has no sizeLimit"
        elif volume["emptyDir"].get("medium") == "Memory":
            in_memory += parse_quantity(size)
    if in_memory * 2 > quantities.get("memory", 0):
        yield "volumes in memory may take more than half of the container's memory"


def probed(pod: Pod) -> Iterator[str]:
    """The pod is probed, at ports that it has, for as long as a start takes; and it has the time to end."""
    ports = {port["name"]: port["containerPort"] for port in pod.container.get("ports", [])}
    if len(set(ports.values())) != len(pod.container.get("ports", [])):
        yield "two ports of one number or one name"
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = pod.container.get(name)
        if probe is None:
            yield f"no {name}"
            continue
        if probe["httpGet"]["port"] not in ports:
            yield f"{name}: port {probe['httpGet']['port']}, expected one of {sorted(ports)}"
        if not probe["httpGet"]["path"].startswith("/"):
            yield f"{name}: path {probe['httpGet']['path']}"
        if probe.get("timeoutSeconds", 1) > probe.get("periodSeconds", 10):
            yield f"{name}: the timeout is longer than the period"
    startup = pod.container.get("startupProbe", {})
    if startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3) < 600:
        yield "startupProbe: gives a start less than 10 minutes"
    asleep = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if pod.owner["kind"] == "InferenceService" and asleep < 5:
        yield "no preStop sleep: requests still come while the server closes"
    if pod.spec.get("terminationGracePeriodSeconds", 30) - asleep < 45:
        yield "less than 45 s to end in"


def mounted(pod: Pod) -> Iterator[str]:
    """Every volume is mounted and every mount has its volume; what libraries write to is writable."""
    volumes = [volume["name"] for volume in pod.spec.get("volumes", [])]
    mounts = {mount["mountPath"]: mount for mount in pod.container.get("volumeMounts", [])}
    used = [mount["name"] for mount in mounts.values()]
    if sorted(volumes) != sorted(used):
        yield f"volumes {sorted(volumes)}, mounts of {sorted(used)}"
    kinds = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
    for path in ("/tmp", "/home/driftline"):
        if "emptyDir" not in kinds.get(mounts.get(path, {}).get("name"), {}):
            yield f"{path} is not writable"
    for path, mount in mounts.items():
        if "secret" in kinds.get(mount["name"], {}) and not mount.get("readOnly"):
            yield f"{path} holds a secret and is not read-only"


def pinned(pod: Pod) -> Iterator[str]:
    """The image is that of this version."""
    for container in pod.spec.get("initContainers", []) + pod.spec["containers"]:
        if container["image"] not in images.DEFAULTS.values():
            yield f"image {container['image']}, expected one of {sorted(images.DEFAULTS.values())}"


POD_RULES = (confined, provided, probed, mounted, pinned)


def broken_pods(objects: Sequence[Object]) -> list[str]:
    """What breaks a rule in any pod."""
    return [
        f"{title(pod.owner)}: {rule.__name__}: {line}"
        for pod in pods(objects)
        for rule in POD_RULES
        for line in rule(pod)
    ]


def references(objects: Sequence[Object]) -> Iterator[str]:
    """What the objects name is there: settings, accounts, Services and the pods behind them."""
    settings = {name_of(one): one.get("data") or {} for one in of_kind(objects, "ConfigMap")}
    accounts = {name_of(one) for one in of_kind(objects, "ServiceAccount")}
    used: set[str] = set()
    for pod in pods(objects):
        account = pod.spec.get("serviceAccountName")
        if account not in accounts:
            yield f"{title(pod.owner)}: no ServiceAccount {account}"
        used.add(account)
        for source in pod.container.get("envFrom", []):
            used.add(source["configMapRef"]["name"])
            if source["configMapRef"]["name"] not in settings:
                yield f"{title(pod.owner)}: no ConfigMap {source['configMapRef']['name']}"
        for variable in pod.container.get("env", []):
            key = variable.get("valueFrom", {}).get("configMapKeyRef")
            if key is not None:
                used.add(key["name"])
                if key["key"] not in settings.get(key["name"], {}):
                    yield f"{title(pod.owner)}: no key {key['key']} in a ConfigMap {key['name']}"
        for volume in pod.spec.get("volumes", []):
            if "configMap" in volume:
                used.add(volume["configMap"]["name"])
                if volume["configMap"]["name"] not in settings:
                    yield f"{title(pod.owner)}: no ConfigMap {volume['configMap']['name']}"
    yield from (f"nothing uses {name}" for name in sorted((settings.keys() | accounts) - used))
    services = {name_of(one): one["spec"] for one in of_kind(objects, "Service")}
    for name, service in services.items():
        chosen = [pod for pod in pods(objects) if service["selector"].items() <= pod.labels.items()]
        if len(chosen) != 1:
            yield f"Service/{name} leads to {len(chosen)} kinds of pod, expected 1"
        for pod in chosen:
            ports = {port["name"] for port in pod.container["ports"]}
            missing = {port["targetPort"] for port in service["ports"]} - ports
            yield from (f"Service/{name}: no port {port} in its pods" for port in missing)
    for one in of_kind(objects, "StatefulSet"):
        if one["spec"]["serviceName"] not in services:
            yield f"{title(one)}: no Service {one['spec']['serviceName']}"
        if not one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items():
            yield f"{title(one)}: its selector does not choose its own pods"


SECRET_NAMES = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY|ACCESS_KEY", re.IGNORECASE)
SECRET_VALUES = re.compile(r"-----BEGIN|://[^/\s:@]+:[^/\s@]+@|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{20,}\.")


def secrets(objects: Sequence[Object]) -> Iterator[str]:
    """No object holds a secret; what names one, names the file or the Secret that has it."""

    def strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from strings(item, f"{path}.{key}".lstrip("."))
        elif isinstance(value, list):
            for at, item in enumerate(value):
                yield from strings(item, f"{path}[{at}]")
        else:
            yield path, str(value)

    for one in objects:
        if one["kind"] == "Secret":
            yield f"{title(one)} holds secrets"
        yield from (
            f"{title(one)}: {path} looks like a secret" for path, text in strings(one, "") if SECRET_VALUES.search(text)
        )
        for key in (one.get("data") or {}) if one["kind"] == "ConfigMap" else ():
            if SECRET_NAMES.search(key) and not key.endswith("_FILE"):
                yield f"{title(one)}: {key} belongs into a Secret"
    for pod in pods(objects):
        for variable in pod.container.get("env", []):
            if SECRET_NAMES.search(variable["name"]) and "value" in variable and not variable["name"].endswith("_FILE"):
                yield f"{title(pod.owner)}: {variable['name']} belongs into a Secret"


def anywhere(objects: Sequence[Object]) -> Iterator[str]:
    """Nothing is bound to a namespace, and all of it is told apart from others' by its labels."""
    for one in objects:
        if "namespace" in one["metadata"]:
            yield f"{title(one)} names its namespace"
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") != "driftline":
            yield f"{title(one)} has no label app.kubernetes.io/part-of"
        if not re.fullmatch(r"driftline(-[a-z0-9]+)*", name_of(one)) or len(name_of(one)) > 52:
            yield f"{title(one)}: the name could be anyone's, or is too long for what is made of it"


OBJECT_RULES = (references, secrets, anywhere)


def broken_objects(objects: Sequence[Object]) -> list[str]:
    """What breaks a rule among the objects together."""
    return [f"{rule.__name__}: {line}" for rule in OBJECT_RULES for line in rule(objects)]
