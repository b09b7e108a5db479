"""What a KFP backend does not run, read off the compiled pipeline: the rules of its compiler, driver and Argo.

Each rule says for which of the supported releases it holds. They are those of backend/src/v2/driver/resolve.go and
dag.go, of the API server's strict parse, and of Argo's retry window, as seen when the releases ran pipelines of one
construct each (tests/pipelines/test_lint.py compares). What the steps themselves do is not looked at.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.support.argo_retries import RetryStrategy
from tests.support.compiled_ir import Graph, Spec, Task, documents, inputs_of, outputs_of, selectors_of, type_of

RELEASES: Final = ("2.14.4", "2.15.0", "2.16.1", "2.17.0")


def before(release: str) -> tuple[str, ...]:
    """Return the supported releases before one."""
    return tuple(known for known in RELEASES if known < release)


class Refusal(NamedTuple):
    """Why a backend does not run a pipeline.

    Attributes:
        where: the task, DAG or executor.
        what: the breach, in words.
        releases: those of the supported ones that refuse it.
    """

    where: str
    what: str
    releases: tuple[str, ...] = RELEASES

    def __str__(self) -> str:
        return f"{self.where}: {self.what} (KFP {', '.join(self.releases)})"


# A container gets its inputs, and its own program, as arguments; Linux takes none of this many bytes.
ARGUMENT_LIMIT_BYTES: Final = 131_072

# Names and words that YAML 1.1 reads as booleans when they stand unquoted. The API server reads YAML 1.2, but kubectl
# and every tool with sigs.k8s.io/yaml reads 1.1; PyYAML quotes the longer ones, and y and n not.
YAML_BOOLEANS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false"})

TIME_PLACEHOLDERS: Final = ("{{$.pipeline_job_create_time_utc}}", "{{$.pipeline_job_schedule_time_utc}}")
WORKSPACE_PLACEHOLDER: Final = "{{$.workspace_path}}"
PLACEHOLDERS: Final = frozenset(
    {
        "{{$.pipeline_job_name}}",
        "{{$.pipeline_job_resource_name}}",
        "{{$.pipeline_job_uuid}}",
        "{{$.pipeline_task_name}}",
        "{{$.pipeline_task_uuid}}",
        *TIME_PLACEHOLDERS,
    }
)

# Fields of the pipeline spec that older API servers do not know: their strict parse refuses the upload.
FIELD_SINCE: Final = {"literals": "2.16.1", "taskConfigPassthroughs": "2.15.0"}
CONFIG_SINCE: Final = {
    "resourceTtlOnCompletion": "2.17.0",
    "resourceTtlOnSuccess": "2.17.0",
    "resourceTtlOnFailure": "2.17.0",
    "activeDeadlineSeconds": "2.17.0",
}


def refusals(text: str) -> Iterator[Refusal]:
    """Yield what a supported release would refuse, or never run to the end, in a compiled pipeline."""
    yield from _names(text)
    spec, platform = documents(text)
    yield from _parse(spec, platform)
    graph = Graph(spec)
    for dag, parent in graph.dags():
        for name in parent["dag"].get("tasks", {}):
            if graph.task(dag, parent, name) is None:
                yield Refusal(f"{dag}/{name}", "there is no such component")
        yield from _dag_outputs(graph, dag, parent)
        yield from _defaults(dag, parent)
    deadlines = _deadlines(platform)
    for task in graph.tasks():
        yield from _sources(graph, task)
        yield from _types(graph, task)
        yield from _constants(task)
        yield from _loop(task)
        if task.executor:
            yield from _retries(task, deadlines.get(task.executor))
    yield from _collected(graph)
    yield from _sizes(graph)


def _names(text: str) -> Iterator[Refusal]:
    """What YAML 1.1 reads as a boolean though it is a name: keys, and words that JSON's reader keeps as text."""
    found: set[str] = set()

    def walk(node: yaml.Node, is_key: bool = False) -> None:
        match node:
            case yaml.MappingNode():
                for key, value in node.value:
                    walk(key, True)
                    walk(value)
            case yaml.SequenceNode():
                for value in node.value:
                    walk(value)
            case yaml.ScalarNode() if node.style is None and node.value.lower() in YAML_BOOLEANS:
                if is_key or node.value.lower() not in {"true", "false"}:
                    found.add(node.value)
            case _:
                pass

    for document in yaml.compose_all(text, yaml.SafeLoader):
        if document is not None:
            walk(document)
    for name in sorted(found):
        yield Refusal("the YAML", f"the name {name} stands unquoted, and YAML 1.1 reads it as a boolean")


def _parse(spec: Spec, platform: Spec) -> Iterator[Refusal]:
    """The API server's strict parse, by the newest release's messages, and what older ones do not know."""
    for document, message in (
        (spec, pipeline_spec_pb2.PipelineSpec()),
        (platform, pipeline_spec_pb2.PlatformSpec()),
    ):
        try:
            json_format.ParseDict(document, message, ignore_unknown_fields=False)
        except json_format.ParseError as error:
            yield Refusal("the YAML", f"the API server cannot parse it: {error}")
    if spec.get("schemaVersion") != "2.1.0":
        yield Refusal("the YAML", f"schemaVersion: expected 2.1.0, got {spec.get('schemaVersion')}")
    for name, component in [("root", spec["root"]), *spec.get("components", {}).items()]:
        declared = inputs_of(component)
        for key, field in [*((name, component), *((f"{name}, {key}", field) for key, field in declared.items()))]:
            for unknown in FIELD_SINCE.keys() & field.keys():
                yield Refusal(key, f"{unknown} is unknown", before(FIELD_SINCE[unknown]))
    config = platform.get("platforms", {}).get("kubernetes", {}).get("pipelineConfig", {})
    for unknown in CONFIG_SINCE.keys() & config.keys():
        yield Refusal("pipelineConfig", f"{unknown} is unknown", before(CONFIG_SINCE[unknown]))


def _sources(graph: Graph, task: Task) -> Iterator[Refusal]:
    """Every input comes from something that is there, and every input that must come does."""
    for kind, of_dag, of_task, key in (
        ("parameters", "componentInputParameter", "taskOutputParameter", "outputParameterKey"),
        ("artifacts", "componentInputArtifact", "taskOutputArtifact", "outputArtifactKey"),
    ):
        for name, source in task.inputs(kind).items():
            if of_dag in source and source[of_dag] not in inputs_of(task.parent, kind):
                yield Refusal(str(task), f"{name}: the parent DAG has no input {source[of_dag]}")
            if of_task in source:
                producer = graph.task(task.dag, task.parent, source[of_task]["producerTask"])
                if producer is None:
                    yield Refusal(str(task), f"{name}: there is no task {source[of_task]['producerTask']} beside it")
                elif source[of_task][key] not in outputs_of(producer.component, kind):
                    yield Refusal(str(task), f"{name}: {producer.name} has no output {source[of_task][key]}")
        for name, declared in inputs_of(task.component, kind).items():
            optional = declared.get("isOptional") or "defaultValue" in declared
            if not optional and name not in task.inputs(kind) and name != task.item:
                yield Refusal(str(task), f"{name}: neither a value nor a default")
    for name, source in task.inputs("parameters").items():
        passed_on = inputs_of(task.parent).get(source.get("componentInputParameter", ""), {})
        may_be_null = passed_on.get("isOptional") and "defaultValue" not in passed_on
        if may_be_null and not inputs_of(task.component).get(name, {}).get("isOptional"):
            yield Refusal(str(task), f"{name}: may be null, and is not optional")
    for other in task.spec.get("dependentTasks", []):
        if other not in task.siblings:
            yield Refusal(str(task), f"waits for {other}, and there is no such task beside it")
    condition = task.spec.get("triggerPolicy", {}).get("condition", "")
    for name in re.findall(r"parameter_values\['([^']+)'\]", condition):
        if name not in task.inputs("parameters"):
            yield Refusal(str(task), f"its condition looks at {name}, which it does not get")


def _fits(source: str, target: str) -> bool:
    """Whether the driver hands a value on: text takes anything, numbers are one kind, nothing else is converted."""
    numbers = {"NUMBER_INTEGER", "NUMBER_DOUBLE"}
    return target == "STRING" or source == target or {source, target} <= numbers


def _types(graph: Graph, task: Task) -> Iterator[Refusal]:
    for name, source in task.inputs("parameters").items():
        target = inputs_of(task.component).get(name, {}).get("parameterType", "STRING")
        for found in sorted(graph.source_types(task.dag, task.parent, source)):
            if not _fits(found, target):
                yield Refusal(str(task), f"{name}: expects {target}, gets {found}")


def _dag_outputs(graph: Graph, dag: str, parent: Spec) -> Iterator[Refusal]:
    for kind in ("parameters", "artifacts"):
        for key, output in parent["dag"].get("outputs", {}).get(kind, {}).items():
            for selector in selectors_of(output):
                producer = graph.task(dag, parent, selector["producerSubtask"])
                name = selector.get("outputParameterKey") or selector.get("outputArtifactKey")
                if producer is None or name not in outputs_of(producer.component, kind):
                    yield Refusal(dag, f"output {key}: {selector['producerSubtask']} has no output {name}")


def _defaults(dag: str, parent: Spec) -> Iterator[Refusal]:
    for name, declared in inputs_of(parent).items():
        default = declared.get("defaultValue")
        if default is not None and not _fits(type_of(default), declared["parameterType"]):
            yield Refusal(dag, f"{name}: expects {declared['parameterType']}, its default is {type_of(default)}")


def _constants(task: Task) -> Iterator[Refusal]:
    """Placeholders that the driver leaves as they are."""
    for name, source in task.inputs("parameters").items():
        constant = source.get("runtimeValue", {}).get("constant")
        if not isinstance(constant, str) or "{{$." not in constant:
            continue
        if constant in TIME_PLACEHOLDERS:
            yield Refusal(str(task), f"{name}: {constant} stays as it is, or empty", before("2.17.0"))
        elif WORKSPACE_PLACEHOLDER in constant:
            yield Refusal(str(task), f"{name}: {WORKSPACE_PLACEHOLDER} stays as it is", before("2.15.0"))
        elif any(placeholder in constant for placeholder in PLACEHOLDERS - {constant}):
            yield Refusal(str(task), f"{name}: a placeholder within a longer text stays as it is")
        elif "{{$.inputs." in constant and not task.executor:
            yield Refusal(str(task), f"{name}: a text put together for a nested pipeline stays a placeholder")


def _loop(task: Task) -> Iterator[Refusal]:
    if "artifactIterator" in task.spec:
        yield Refusal(str(task), "a loop over artifacts: the driver has none")
    if "parameterIterator" not in task.spec:
        return
    declared = inputs_of(task.component)
    target = declared.get(task.item, {}).get("parameterType", "STRING")
    for item in _known_items(task) or []:
        if not _fits(type_of(item), target):
            yield Refusal(str(task), f"{task.item}: expects {target}, gets {type_of(item)}")
    items = task.spec["parameterIterator"]["items"].get("inputParameter", "")
    kind = declared.get(items, {}).get("parameterType", "LIST")
    if kind not in {"LIST", "STRING"}:  # of a text, the driver reads the JSON
        yield Refusal(str(task), f"{items}: a loop over {kind}, which is no list")


def _known_items(task: Task) -> list[Any] | None:
    """Return a loop's items where the pipeline says them, as a constant or as its parameter's default."""
    items = task.spec["parameterIterator"]["items"]
    if "raw" in items:
        return json.loads(items["raw"])
    source = task.inputs("parameters").get(items["inputParameter"], {})
    if "runtimeValue" in source:
        known = source["runtimeValue"]["constant"]
    else:
        known = inputs_of(task.parent).get(source.get("componentInputParameter", ""), {}).get("defaultValue")
    return known if isinstance(known, list) else None


def _collected(graph: Graph) -> Iterator[Refusal]:
    for loop, taker in graph.collected():
        shown = loop.spec.get("taskInfo", {}).get("name", "")
        if shown != loop.name:
            yield Refusal(str(loop), f"called {shown}, and {taker} looks for it by its key", before("2.16.1"))
        if "parameterIterator" in loop.spec and may_be_empty(graph, loop):
            yield Refusal(str(loop), f"may be empty, and {taker} collects from it")


def may_be_empty(graph: Graph, loop: Task) -> bool:
    """Whether the pipeline itself says that a loop can have no items: as constant, as default, or in a step's source.

    What a step returns by way of a library cannot be seen.
    """
    known = _known_items(loop)
    if known is not None:
        return not known
    source = loop.inputs("parameters").get(loop.spec["parameterIterator"]["items"].get("inputParameter", ""), {})
    producer = graph.task(loop.dag, loop.parent, source.get("taskOutputParameter", {}).get("producerTask", ""))
    return producer is not None and _returns_empty(graph.executors.get(producer.executor, {}))


def _returns_empty(executor: Spec) -> bool:
    """Whether a lightweight component's function has a `return []`."""
    for text in executor.get("container", {}).get("command", []):
        try:
            program = ast.parse(text)
        except SyntaxError:  # the shell's part of the command
            continue
        for node in ast.walk(program):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.List) and not node.value.elts:
                return True
    return False


def _deadlines(platform: Spec) -> dict[str, float]:
    executors = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return {
        name: float(settings["activeDeadlineSeconds"])
        for name, settings in executors.items()
        if "activeDeadlineSeconds" in settings
    }


def _retries(task: Task, deadline_s: float | None) -> Iterator[Refusal]:
    """Argo retries, and lets an attempt run, within maxDuration of the first one's start only."""
    policy = task.spec.get("retryPolicy", {})
    if not policy.get("maxRetryCount"):
        return
    factor = float(policy.get("backoffFactor", 0))
    if factor != int(factor):
        yield Refusal(str(task), f"backoffFactor: Argo takes whole numbers, got {factor}")
        return
    strategy = RetryStrategy.of_task(task.spec)
    window_s = strategy.max_duration_s or 0.0
    needed_s = strategy.window_needed_s(deadline_s or 0.0)
    if window_s < needed_s or window_s == 0:
        yield Refusal(
            str(task),
            f"retried within {window_s:.0f} s of its first start, and {strategy.limit + 1} attempts may take "
            f"{needed_s:.0f} s",
        )


def _sizes(graph: Graph) -> Iterator[Refusal]:
    for task in graph.tasks():
        constants = [source["runtimeValue"].get("constant") for source in task.inputs("parameters").values()
                     if "runtimeValue" in source]  # fmt: skip
        size = sum(len(json.dumps(constant, ensure_ascii=False).encode()) for constant in constants)
        if size >= ARGUMENT_LIMIT_BYTES:
            yield Refusal(str(task), f"its constants take {size} bytes, an argument {ARGUMENT_LIMIT_BYTES - 1} at most")
    for name, executor in graph.executors.items():
        container = executor.get("container", {})
        for argument in [*container.get("command", []), *container.get("args", [])]:
            size = len(argument.encode()) if isinstance(argument, str) else 0
            if size >= ARGUMENT_LIMIT_BYTES:
                yield Refusal(name, f"an argument of {size} bytes, of {ARGUMENT_LIMIT_BYTES - 1} at most")
