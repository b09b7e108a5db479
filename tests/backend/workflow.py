"""A small Argo: runs a compiled Workflow in order on this machine, its containers in pods that are given to it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol

from tests.backend.argo_rules import (
    Phase,
    UnsupportedError,
    admits,
    dag_phase,
    dependencies,
    holds,
    retry_strategy,
    substitute,
)
from tests.support.argo_retries import Attempt, decide

AT_ONCE: Final = 2  # iterations of a loop; a cluster runs many, so that what races there races here


@dataclass(frozen=True, slots=True)
class Finished:
    """A container that ended."""

    status: int
    output: str  # standard output and standard error


@dataclass(frozen=True, slots=True)
class Container:
    """What a pod's main container is to run.

    Attributes:
        command: the program and its arguments.
        environment: variables by name, beyond those that every pod has.
        secrets: names and keys of the Secrets whose values are variables, by variable.
        claims: persistent volume claims by the path that they are mounted at.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)


class Pods(Protocol):
    """Where containers run."""

    def run(self, container: Container, folder: Path) -> Finished:
        """Run a container to its end; the folder is the pod's own, empty and there."""
        ...


@dataclass(slots=True)
class Node:
    """A task of the Workflow, or a part of one, and what became of it.

    Attributes:
        path: names of the Workflow's tasks from its entry point on.
        phase: how it ended.
        message: why, where it did not succeed.
        outputs: its output parameters, as text.
        attempts: of a container, its pods.
        logs: of each attempt, what it printed.
        arguments: of a container, its command.
        children: of a DAG or a loop, its tasks or iterations.
    """

    path: str
    phase: Phase
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    arguments: Sequence[str] = ()
    children: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of its task, without an iteration's number."""
        return self.path.rpartition("/")[2].partition("[")[0]

    def walk(self) -> Iterator[Node]:
        """Yield the node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def story(self) -> str:
        """Tell what became of every container and of all that did not succeed, a line each and their messages."""
        told: list[str] = []
        for node in self.walk():
            if node.attempts or node.phase is not Phase.SUCCEEDED:
                tries = f" after {len(node.attempts)} attempts" if len(node.attempts) > 1 else ""
                told += [f"{node.phase:<9} {node.path}{tries}", *(f"    {line}" for line in node.message.splitlines())]
        return "\n".join(told)


def run_workflow(workflow: Mapping[str, Any], pods: Pods, folder: Path, *, reverse: bool = False) -> Node:
    """Run a Workflow to its end.

    Args:
        workflow: the Workflow, as its YAML says.
        pods: where its containers run.
        folder: for the pods' own folders.
        reverse: run a loop's iterations from the last to the first.

    Returns:
        Its entry point's node, whose phase is the Workflow's.

    Raises:
        UnsupportedError: it uses what this Argo does not know.
    """
    return _Run(workflow, pods, folder, reverse).entry()


_GLOG: Final = re.compile(r"^[EF]\d{4} [\d:.]+ +\d+ ")  # errors in the log of KFP's programs
_SHOWN_LINES: Final = 25  # of a failed container's log without such lines


def _cause(output: str) -> str:
    """Return the lines of a failed container's log that say what was wrong, as far as they can be told."""
    lines = output.splitlines()
    errors = [_GLOG.sub("", line) for line in lines if _GLOG.match(line)]
    return "\n".join([*lines[-_SHOWN_LINES:], *errors] if errors else lines[-_SHOWN_LINES:])


class _Run:
    """One run of a Workflow."""

    def __init__(self, workflow: Mapping[str, Any], pods: Pods, folder: Path, reverse: bool) -> None:
        spec = workflow["spec"]
        unknown = spec.keys() & {"onExit", "hooks", "templateDefaults"}
        if unknown:
            raise UnsupportedError(f"workflow: {', '.join(sorted(unknown))}")
        self._pods = pods
        self._folder = folder
        self._reverse = reverse
        self._entry: str = spec["entrypoint"]
        self._templates: dict[str, Mapping[str, Any]] = {template["name"]: template for template in spec["templates"]}
        name = workflow["metadata"]["generateName"] + "tests"
        self._global = {"workflow.name": name, "workflow.creationTimestamp": "2026-11-30T00:00:00Z"}
        for parameter in spec.get("arguments", {}).get("parameters", ()):
            self._global[f"workflow.parameters.{parameter['name']}"] = str(parameter["value"])
        self._pod_numbers = count()

    def entry(self) -> Node:
        return self._template(self._entry, {}, self._entry)

    def _template(self, name: str, given: Mapping[str, str], path: str) -> Node:
        template = self._templates[name]
        scope = dict(self._global)
        for parameter in template.get("inputs", {}).get("parameters", ()):
            declared = parameter.get("value", parameter.get("default"))
            if parameter["name"] not in given and declared is None:
                return Node(path, Phase.ERROR, f"{name}: no value for the input {parameter['name']}")
            scope[f"inputs.parameters.{parameter['name']}"] = given.get(parameter["name"], str(declared))
        if "dag" in template:
            return self._dag(template, scope, path)
        if "podSpecPatch" in template:
            return self._executor(template, scope, path)
        if "container" in template:
            return self._driver(template, scope, path)
        raise UnsupportedError(f"template {name}: neither a DAG nor a container")

    def _dag(self, template: Mapping[str, Any], scope: dict[str, str], path: str) -> Node:
        tasks: dict[str, Mapping[str, Any]] = {task["name"]: task for task in template["dag"]["tasks"]}
        depends = {name: dependencies(task.get("depends", "")) for name, task in tasks.items()}
        nodes: dict[str, Node] = {}
        while len(nodes) < len(tasks):
            ready = [name for name in tasks if name not in nodes and depends[name] <= nodes.keys()]
            if not ready:
                raise UnsupportedError(f"{path}: these wait for one another: {', '.join(tasks.keys() - nodes.keys())}")
            for name in ready:
                before = {other: node.phase for other, node in nodes.items()}
                try:
                    nodes[name] = self._task(tasks[name], scope, before, f"{path}/{name}")
                except KeyError as missing:
                    nodes[name] = Node(f"{path}/{name}", Phase.ERROR, f"unresolved: {missing}")
                for output, value in nodes[name].outputs.items():
                    scope[f"tasks.{name}.outputs.parameters.{output}"] = value
        phase = dag_phase(depends, {name: node.phase for name, node in nodes.items()})
        return Node(path, phase, children=list(nodes.values()))

    def _task(self, task: Mapping[str, Any], scope: Mapping[str, str], before: Mapping[str, Phase], path: str) -> Node:
        unknown = task.keys() - {"name", "template", "arguments", "depends", "when", "withSequence"}
        if unknown:
            raise UnsupportedError(f"{path}: {', '.join(sorted(unknown))}")
        depends = task.get("depends", "")
        if depends and not admits(depends, before):
            return Node(path, Phase.OMITTED, f"depends: {depends}")
        when = substitute(task.get("when", ""), scope)
        if when and not holds(when):
            return Node(path, Phase.SKIPPED, f"when: {when}")

        def arguments(scope: Mapping[str, str]) -> dict[str, str]:
            given: Iterable[Mapping[str, Any]] = task.get("arguments", {}).get("parameters", ())
            return {one["name"]: substitute(str(one.get("value", one.get("default"))), scope) for one in given}

        if "withSequence" not in task:
            return self._template(task["template"], arguments(scope), path)
        number = int(substitute(str(task["withSequence"]["count"]), scope))
        if number == 0:
            return Node(path, Phase.SKIPPED, "an empty sequence")
        items = list(range(number))
        if self._reverse:
            items.reverse()

        def iteration(item: int) -> Node:
            given = arguments({**scope, "item": str(item)})
            return self._template(task["template"], given, f"{path}[{item}]")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            done = list(pool.map(iteration, items))
        failed = [node.phase for node in done if node.phase in (Phase.FAILED, Phase.ERROR)]
        return Node(path, failed[-1] if failed else Phase.SUCCEEDED, children=done)

    def _pod_folder(self, path: str) -> Path:
        last = path.rpartition("/")[2]
        folder = self._folder / f"{next(self._pod_numbers):03d}-{re.sub(r'[^A-Za-z0-9]+', '-', last).strip('-')}"
        folder.mkdir(parents=True)
        return folder

    def _driver(self, template: Mapping[str, Any], scope: Mapping[str, str], path: str) -> Node:
        folder = self._pod_folder(path)
        outputs: Iterable[Mapping[str, Any]] = template.get("outputs", {}).get("parameters", ())
        places = {output["name"]: folder / output["name"] for output in outputs}
        scope = {**scope, **{f"outputs.parameters.{name}.path": str(place) for name, place in places.items()}}
        container = template["container"]
        words = [substitute(word, scope) for word in (*container["command"], *container["args"])]
        node = self._attempt(Container(words, _environment(container, scope)), folder, Node(path, Phase.FAILED))
        if node.phase is Phase.SUCCEEDED:
            for output in outputs:
                place = places[output["name"]]
                default = output["valueFrom"].get("default")
                if place.exists():
                    node.outputs[output["name"]] = place.read_text(encoding="utf-8")
                elif default is not None:
                    node.outputs[output["name"]] = default
                else:
                    node.phase, node.message = Phase.ERROR, f"the output {output['name']} was not written"
        return node

    def _executor(self, template: Mapping[str, Any], scope: Mapping[str, str], path: str) -> Node:
        patch = json.loads(substitute(template["podSpecPatch"], scope))
        strategy = retry_strategy(template, scope) if "retryStrategy" in template else None
        node = Node(path, Phase.FAILED)
        while True:
            here = {**scope, "retries": str(len(node.attempts))}
            self._attempt(_patched(template, patch, here), self._pod_folder(path), node)
            if node.phase is Phase.SUCCEEDED or strategy is None:
                return node
            ended_s = node.attempts[-1].finished_s
            decision = decide(strategy, node.attempts, ended_s)
            if decision.until_s is not None:
                # Nobody waits here: the attempts so far are put back by the pause instead.
                pause_s = decision.until_s - ended_s
                node.attempts = [
                    replace(attempt, started_s=attempt.started_s - pause_s, finished_s=attempt.finished_s - pause_s)
                    for attempt in node.attempts
                ]
                decision = decide(strategy, node.attempts, ended_s)
            if decision.action == "end":
                node.message += f"\n{decision.message}"
                return node

    def _attempt(self, container: Container, folder: Path, node: Node) -> Node:
        started_s = time.monotonic()
        done = self._pods.run(container, folder)
        node.phase = Phase.SUCCEEDED if done.status == 0 else Phase.FAILED
        node.message = "" if done.status == 0 else f"{_cause(done.output)}\nexit status {done.status}"
        node.attempts.append(Attempt(started_s, time.monotonic(), "Failed" if done.status else "Succeeded"))
        node.logs.append(done.output)
        node.arguments = container.command
        return node


def _environment(container: Mapping[str, Any], scope: Mapping[str, str]) -> dict[str, str]:
    """Return a container's variables; those that name the pod or are Secrets' come by other ways."""
    found: dict[str, str] = {}
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source is None:
            found[variable["name"]] = substitute(variable.get("value", ""), scope)
        elif not source.keys() & {"fieldRef", "secretKeyRef"}:
            raise UnsupportedError(f"env {variable['name']}: {source}")
    return found


def _patched(template: Mapping[str, Any], patch: Mapping[str, Any], scope: Mapping[str, str]) -> Container:
    """Return a template's container with the driver's pod-spec patch on it."""
    main = patch["containers"][0]
    environment = _environment(template["container"], scope)
    environment.update(_environment(main, {}))
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in patch.get("volumes") or ()
        if "persistentVolumeClaim" in volume
    }
    mounts = {
        mount["mountPath"]: claims[mount["name"]] for mount in main.get("volumeMounts") or () if mount["name"] in claims
    }
    sources = {variable["name"]: variable.get("valueFrom") or {} for variable in main.get("env") or ()}
    secrets = {
        name: (source["secretKeyRef"]["name"], source["secretKeyRef"]["key"])
        for name, source in sources.items()
        if "secretKeyRef" in source
    }
    return Container([*main["command"], *main.get("args", ())], environment, secrets, mounts)
