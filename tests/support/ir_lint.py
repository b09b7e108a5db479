"""What a compiled pipeline must keep to, so that it runs on every supported cluster as it does here.

`refusals` is what a backend refuses; `problems` adds the rules of this house.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from tests.support.compiled_ir import Graph, Spec, Task, documents, inputs_of, outputs_of, selectors_of
from tests.support.kfp_refusals import YAML_BOOLEANS, before, refusals

__all__ = ["documents", "problems", "refusals"]

FAILS_ON_PURPOSE: Final = re.compile(r"exec-fail-on-drift(-\d+)?")
"""Executors whose failure is an answer, which trying again would only delay; all others must be tried again."""

# Settings of a step's pod that older releases leave out without a word: the whole volume is mounted in the place of a
# part of it, and a secret that may be missing must be there.
SETTING_SINCE: Final = {
    ("pvcMount", "subPath"): "2.16.1",
    ("secretAsEnv", "optional"): "2.15.0",
    ("configMapAsEnv", "optional"): "2.15.0",
}


def problems(text: str, *, selectors: Collection[tuple[str, str]] = (), placed: bool = True) -> Iterator[str]:
    """Yield every breach of the rules, in words.

    Args:
        text: the YAML of a pipeline or a component.
        selectors: labels of nodes that the profile asks for; any other leaves pods pending on clusters without it.
        placed: whether its tasks are placed by a profile; a single component is placed by whoever uses it.
    """
    yield from map(str, refusals(text))
    spec, platform = documents(text)
    graph = Graph(spec)
    yield from _images(graph)
    yield from _names(spec)
    for name, declared in inputs_of(spec["root"]).items():
        if declared.get("isOptional") and "defaultValue" not in declared:
            yield f"root: {name} may be null, which KFP's local runner refuses"
    for task in graph.tasks():
        if task.is_loop:
            yield from _loop(task)
        yield from _exact_types(graph, task)
    yield from _dag_outputs(graph)
    for loop, taker in graph.collected():
        yield f"{taker}: collects from {loop.name}, so that its input grows with the number of tasks"
    settings = _settings(platform)
    for name in graph.executors:
        yield from _pod(name, settings.get(name, {}), selectors)
    if placed:
        yield from _placed(graph, settings)


def _settings(platform: Spec) -> Mapping[str, Spec]:
    """Return the Kubernetes settings of the executors that have any."""
    return platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})


def _images(graph: Graph) -> Iterator[str]:
    for name, executor in graph.executors.items():
        image = executor.get("container", {}).get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and (not tag or tag == "latest"):
            yield f"{name}: image {image} is not pinned"


def _names(document: Any) -> Iterator[str]:
    """Names that YAML 1.1 reads as booleans, quoted too: whoever writes the file anew may not quote them."""
    match document:
        case dict():
            for key, value in document.items():
                if str(key).lower() in YAML_BOOLEANS:
                    yield f"the name {key} is a boolean in YAML 1.1"
                yield from _names(value)
        case list():
            for value in document:
                yield from _names(value)
        case _:
            pass


def _loop(task: Task) -> Iterator[str]:
    if "parallelismLimit" not in task.spec.get("iteratorPolicy", {}):
        yield f"{task}: a loop without a limit of its parallelism"
    if task.spec.get("taskInfo", {}).get("name") != task.name:
        yield f"{task}: a loop by another name than its key"
    items = task.spec.get("parameterIterator", {}).get("items", {}).get("inputParameter")
    for parameter, source in task.inputs("parameters").items():
        if "taskOutputParameter" in source and parameter != items:
            yield f"{task}: the loop's body takes {parameter}, and would get the loop's item in KFP's local runner"


def _exact_types(graph: Graph, task: Task) -> Iterator[str]:
    """The backend hands any number on; KFP's SDK refuses an integer for a float, and a step may take 8.5 for one."""
    for name, source in task.inputs("parameters").items():
        target = inputs_of(task.component).get(name, {}).get("parameterType", "STRING")
        constant = source.get("runtimeValue", {}).get("constant")
        if target == "NUMBER_INTEGER" and isinstance(constant, float) and not constant.is_integer():
            yield f"{task}: {name} is a whole number, and gets {constant}"
        if "runtimeValue" in source:
            continue
        for found in sorted(graph.source_types(task.dag, task.parent, source)):
            if {found, target} == {"NUMBER_INTEGER", "NUMBER_DOUBLE"}:
                yield f"{task}: {name} is {target}, and gets {found}"


def _dag_outputs(graph: Graph) -> Iterator[str]:
    """The backend hands an output of a DAG on as it is, whatever the DAG declares; who takes it may be misled."""
    in_loops = {task.spec["componentRef"]["name"] for task in graph.tasks() if task.is_loop}
    for dag, parent in graph.dags():
        if dag in in_loops:  # a loop's outputs are declared as what they add up to
            continue
        for key, output in parent["dag"].get("outputs", {}).get("parameters", {}).items():
            target = outputs_of(parent)[key]["parameterType"]
            for selector in selectors_of(output):
                source = selector["producerSubtask"], selector["outputParameterKey"]
                for found in sorted(graph.output_types(dag, parent, *source) - {target}):
                    yield f"{dag}: output {key} is {target}, and gets {found}"


def _pod(name: str, settings: Spec, selectors: Collection[tuple[str, str]]) -> Iterator[str]:
    for label, value in settings.get("nodeSelector", {}).get("labels", {}).items():
        if (label, value) not in selectors:
            yield f"{name}: only nodes with {label}={value}, which no profile asks for"
    if "nodeSelectorJson" in settings.get("nodeSelector", {}):
        yield f"{name}: nodes chosen by a parameter"

    for (section, field), release in SETTING_SINCE.items():
        if any(setting.get(field) for setting in settings.get(section, [])):
            yield f"{name}: {section}.{field} is left out by KFP {', '.join(before(release))}"
    if "securityContext" in settings:
        yield f"{name}: securityContext is left out by KFP {', '.join(before('2.16.1'))}"


def _placed(graph: Graph, settings: Mapping[str, Spec]) -> Iterator[str]:
    """What a profile gives to every step."""
    for name, executor in graph.executors.items():
        resources = executor.get("container", {}).get("resources", {})
        if not {"resourceCpuRequest", "resourceMemoryRequest"} <= resources.keys():
            yield f"{name}: no request of CPU or memory"
        if "activeDeadlineSeconds" not in settings.get(name, {}):
            yield f"{name}: no time-out"
        if "accelerator" in resources and not settings.get(name, {}).get("tolerations"):
            yield f"{name}: a GPU without tolerations, so none of the nodes that keep others away"
    for task in graph.tasks():
        if task.executor and task.spec.get("cachingOptions", {}).get("enableCache"):
            yield f"{task}: cached by the names of datasets, not their content"
        on_purpose = FAILS_ON_PURPOSE.fullmatch(task.executor) is not None
        if task.executor and ("retryPolicy" in task.spec) is on_purpose:
            yield f"{task}: {'retried, and fails on purpose' if on_purpose else 'not retried'}"
