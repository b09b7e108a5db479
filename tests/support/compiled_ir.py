"""A compiled pipeline as a graph: its tasks, and the types of the values that run along its edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

Spec: TypeAlias = Mapping[str, Any]


def documents(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline spec and the platform spec of a compiled pipeline; the latter empty where there is none."""
    found = [document for document in yaml.safe_load_all(text) if document is not None]
    spec, platform = [*found, {}][:2]
    return spec, platform


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a DAG.

    Attributes:
        dag: name of the component whose DAG holds it; root for the pipeline's own.
        parent: that component.
        name: its key in the DAG.
        spec: what the DAG says of it.
        component: what it runs.
    """

    dag: str
    parent: Spec
    name: str
    spec: Spec
    component: Spec

    def __str__(self) -> str:
        return f"{self.dag}/{self.name}"

    @property
    def siblings(self) -> Spec:
        return self.parent["dag"]["tasks"]

    @property
    def is_loop(self) -> bool:
        return "parameterIterator" in self.spec or "artifactIterator" in self.spec

    @property
    def executor(self) -> str:
        """Name of its executor; empty for a DAG."""
        return self.component.get("executorLabel", "")

    @property
    def item(self) -> str:
        """Name of the input that takes a loop's item; empty where it is no loop over parameters."""
        return self.spec.get("parameterIterator", {}).get("itemInput", "")

    def inputs(self, kind: str) -> Mapping[str, Spec]:
        """Return where its inputs come from, by name; the kind is parameters or artifacts."""
        return self.spec.get("inputs", {}).get(kind, {})


def inputs_of(component: Spec, kind: str = "parameters") -> Mapping[str, Spec]:
    """Return the inputs that a component declares."""
    return component.get("inputDefinitions", {}).get(kind, {})


def outputs_of(component: Spec, kind: str = "parameters") -> Mapping[str, Spec]:
    """Return the outputs that a component declares."""
    return component.get("outputDefinitions", {}).get(kind, {})


class Graph:
    """The tasks of a pipeline spec, nested ones too."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.components: Mapping[str, Spec] = spec.get("components", {})
        self.executors: Mapping[str, Spec] = spec.get("deploymentSpec", {}).get("executors", {})

    def dags(self) -> Iterator[tuple[str, Spec]]:
        """Yield the components that are DAGs, the root first."""
        for name, component in [("root", self.spec["root"]), *self.components.items()]:
            if "dag" in component:
                yield name, component

    def tasks(self) -> Iterator[Task]:
        """Yield every task whose component is there."""
        for dag, parent in self.dags():
            for name in parent["dag"].get("tasks", {}):
                task = self.task(dag, parent, name)
                if task is not None:
                    yield task

    def task(self, dag: str, parent: Spec, name: str) -> Task | None:
        """Return a DAG's task; None where there is none of that name, or nothing that it could run."""
        spec = parent["dag"].get("tasks", {}).get(name, {})
        component = self.components.get(spec.get("componentRef", {}).get("name", ""))
        return None if component is None else Task(dag, parent, name, spec, component)

    def collected(self) -> Iterator[tuple[Task, str]]:
        """Yield the loops whose outputs are collected, each with who takes one."""
        for dag, parent in self.dags():
            loops = {task.name: task for task in self.tasks() if task.dag == dag and task.is_loop}
            for taker, source in _takers(parent["dag"]):
                if source in loops:
                    yield loops[source], f"{dag}/{taker}"

    def source_types(self, dag: str, parent: Spec, source: Spec) -> set[str]:
        """Return the types that a task's input parameter may get; none where that cannot be told before it runs."""
        if "parameterExpressionSelector" in source:
            return set()
        if "componentInputParameter" in source:
            declared = inputs_of(parent).get(source["componentInputParameter"], {})
            return {declared["parameterType"]} if "parameterType" in declared else set()
        if "taskOutputParameter" in source:
            wanted = source["taskOutputParameter"]
            return self.output_types(dag, parent, wanted["producerTask"], wanted["outputParameterKey"])
        constant = source.get("runtimeValue", {}).get("constant")
        return set() if constant is None else {type_of(constant)}

    def output_types(self, dag: str, parent: Spec, producer: str, key: str) -> set[str]:
        """Return the types of a task's output parameter, traced to the containers that may write it."""
        task = self.task(dag, parent, producer)
        if task is None:
            return set()
        if task.is_loop:
            return {"LIST"}
        if task.executor:
            declared = outputs_of(task.component).get(key, {})
            return {declared["parameterType"]} if "parameterType" in declared else set()
        name = task.spec["componentRef"]["name"]
        chosen = task.component["dag"].get("outputs", {}).get("parameters", {}).get(key, {})
        return {
            found
            for selector in selectors_of(chosen)
            for found in self.output_types(
                name, task.component, selector["producerSubtask"], selector["outputParameterKey"]
            )
        }


def selectors_of(output: Spec) -> list[Spec]:
    """Return the tasks from which a DAG's output, a parameter or an artifact, may come."""
    if "valueFromParameter" in output:
        return [output["valueFromParameter"]]
    return [*output.get("valueFromOneof", {}).get("parameterSelectors", []), *output.get("artifactSelectors", [])]


def _takers(dag: Spec) -> Iterator[tuple[str, str]]:
    """Yield who takes an output of a task in a DAG, and that task's name."""
    for name, task in dag.get("tasks", {}).items():
        for kind, source in (("parameters", "taskOutputParameter"), ("artifacts", "taskOutputArtifact")):
            for taken in task.get("inputs", {}).get(kind, {}).values():
                if source in taken:
                    yield name, taken[source]["producerTask"]
    for outputs in dag.get("outputs", {}).values():
        for key, output in outputs.items():
            for selector in selectors_of(output):
                yield f"output {key}", selector["producerSubtask"]


def type_of(constant: Any) -> str:
    """Return the parameter type that the backend sees in a JSON value; it has one kind of number."""
    match constant:
        case bool():
            return "BOOLEAN"
        case int() | float():
            return "NUMBER_DOUBLE"
        case str():
            return "STRING"
        case list():
            return "LIST"
        case _:
            return "STRUCT"
