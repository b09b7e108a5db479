"""What a compiled pipeline must keep to, so that it runs on a cluster as it does here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml


def documents(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline spec and the platform spec of a compiled pipeline."""
    spec, platform = yaml.safe_load_all(text)
    return spec, platform


def problems(text: str) -> Iterator[str]:
    """Yield every breach of the rules, in words."""
    spec, platform = documents(text)
    if "artifactIterator" in text:
        yield "a loop over artifacts: the open-source backend cannot run it"
    yield from _images(spec)
    yield from _loops(spec)
    yield from _executors(spec, platform)


def _images(spec: dict[str, Any]) -> Iterator[str]:
    for name, executor in spec["deploymentSpec"]["executors"].items():
        image = executor["container"]["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and (not tag or tag == "latest"):
            yield f"{name}: image {image} is not pinned"


def _loops(spec: dict[str, Any]) -> Iterator[str]:
    for dag, component in [("root", spec["root"]), *spec["components"].items()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if "parameterIterator" not in task:
                continue
            if "parallelismLimit" not in task.get("iteratorPolicy", {}):
                yield f"{dag}/{name}: a loop without a limit of its parallelism"
            items = task["parameterIterator"]["items"]["inputParameter"]
            for parameter, source in task.get("inputs", {}).get("parameters", {}).items():
                if "taskOutputParameter" in source and parameter != items:
                    yield f"{dag}/{name}: the loop's body takes {parameter}, and would get the loop's item here"


def _executors(spec: dict[str, Any], platform: dict[str, Any]) -> Iterator[str]:
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, executor in spec["deploymentSpec"]["executors"].items():
        resources = executor["container"].get("resources", {})
        if "resourceCpuRequest" not in resources or "resourceMemoryRequest" not in resources:
            yield f"{name}: no request of CPU or memory"
        if "activeDeadlineSeconds" not in settings.get(name, {}):
            yield f"{name}: no time-out"
        if "accelerator" in resources:
            missing = {"nodeSelector", "tolerations"} - settings.get(name, {}).keys()
            if missing:
                yield f"{name}: a GPU without {', '.join(sorted(missing))}"
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if task.get("cachingOptions", {}).get("enableCache"):
                yield f"{name}: cached by the names of datasets, not their content"
            is_executor = "executorLabel" in spec["components"][task["componentRef"]["name"]]
            if is_executor and "retryPolicy" not in task:
                yield f"{name}: not retried"
