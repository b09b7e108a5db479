"""Argo's rules, and the small Argo that follows them, with containers that are functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.backend.argo_rules import (
    Phase,
    UnsupportedError,
    admits,
    dag_phase,
    dependencies,
    holds,
    retry_strategy,
    seconds,
    substitute,
)
from tests.backend.workflow import Container, Finished, Node, run_workflow
from tests.support.argo_retries import RetryStrategy

S, F, E, K, O = Phase.SUCCEEDED, Phase.FAILED, Phase.ERROR, Phase.SKIPPED, Phase.OMITTED  # noqa: E741


@pytest.mark.parametrize(
    ("depends", "admitted"),
    [
        ("a", (S, K)),
        ("a.Succeeded", (S,)),
        ("a.Failed", (F,)),
        ("a.Skipped", (K,)),
        ("a.Omitted", (O,)),
        ("a.Errored || a.Failed", (E, F)),
        ("!a.Failed", (S, E, K, O)),
        ("!(a.Failed || a.Errored)", (S, K, O)),
        ("a.Succeeded || a.Skipped || a.Failed || a.Errored", (S, K, F, E)),
        ("a.Daemoned", ()),
    ],
)
def test_a_task_runs_by_what_became_of_the_one_before(depends: str, admitted: tuple[Phase, ...]) -> None:
    assert tuple(phase for phase in (S, K, F, E, O) if admits(depends, {"a": phase})) == tuple(
        phase for phase in (S, K, F, E, O) if phase in admitted
    )


@pytest.mark.parametrize(
    ("depends", "expected"),
    [("a && b", False), ("a || b", True), ("c || a && b", True), ("(c || a) && b", False), ("!b && a-1.Failed", True)],
)
def test_and_binds_tighter_than_or(depends: str, expected: bool) -> None:
    assert admits(depends, {"a": S, "b": F, "c": S, "a-1": F}) is expected


def test_dependencies_are_the_tasks_named() -> None:
    assert dependencies("fit.Succeeded && (for-loop-1 || !plan.Failed)") == {"fit", "for-loop-1", "plan"}


@pytest.mark.parametrize("depends", ["a.AnySucceeded", "a &&", "a b", "(a", "a)", "a.succeeded", "a & b"])
def test_what_is_not_known_is_not_guessed(depends: str) -> None:
    with pytest.raises(UnsupportedError, match="depends"):
        admits(depends, {"a": S, "b": S})


@pytest.mark.parametrize(
    ("when", "expected"), [("false != true", True), ("true != true", False), ("nil != false", True), ("a == a", True)]
)
def test_when_compares_words(when: str, expected: bool) -> None:
    assert holds(when) is expected


def test_when_refuses_more() -> None:
    with pytest.raises(UnsupportedError, match="when"):
        holds("a == a && b == b")


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ({"a": S, "b": S, "c": S}, S),
        ({"a": S, "b": K, "c": K}, S),
        ({"a": F, "b": O, "c": O}, F),  # what was omitted inherits
        ({"a": F, "b": S, "c": S}, S),  # what ran in spite of a failure makes it good
        ({"a": S, "b": E, "c": O}, E),
    ],
)
def test_a_dag_ends_as_its_leaves_do(phases: Mapping[str, Phase], expected: Phase) -> None:
    assert dag_phase({"a": (), "b": ("a",), "c": ("b",)}, phases) is expected


def test_one_failed_leaf_is_enough() -> None:
    assert dag_phase({"a": (), "b": ("a",), "c": ("a",)}, {"a": S, "b": S, "c": F}) is F


def test_values_are_put_in_as_they_are() -> None:
    scope = {"inputs.parameters.x": "{{inputs.parameters.y}}", "inputs.parameters.y": "no"}
    assert substitute('{{inputs.parameters.x}} {{$}} {{$.inputs["a"]}}', scope) == (
        '{{inputs.parameters.y}} {{$}} {{$.inputs["a"]}}'
    )
    with pytest.raises(KeyError, match="z"):
        substitute("{{ inputs.parameters.z }}", scope)
    with pytest.raises(UnsupportedError, match="expression"):
        substitute("{{=sprig.now()}}", scope)


@pytest.mark.parametrize(("text", "expected"), [("30", 30), ("90000s", 90_000), ("25h", 90_000), ("1h0m0.5s", 3600.5)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_a_retry_strategy_is_read_with_its_values() -> None:
    backoff = {"duration": "{{d}}", "factor": "2", "maxDuration": "1h"}
    template = {"retryStrategy": {"limit": "{{l}}", "backoff": backoff}}
    assert retry_strategy(template, {"l": "3", "d": "30"}) == RetryStrategy(3, 30.0, 2, 3600.0)
    assert retry_strategy({"retryStrategy": {"limit": 1}}, {}) == RetryStrategy(1, 0.0, 0, None)
    with pytest.raises(UnsupportedError, match="expression"):
        retry_strategy({"retryStrategy": {"limit": 1, "expression": "true"}}, {})


Program = Callable[[list[str]], Mapping[str, str] | int]


class Fake:
    """Runs the first word of a command as a function: it returns its outputs by option, or a status."""

    def __init__(self, **programs: Program) -> None:
        self._programs = programs
        self._lock = threading.Lock()
        self.ran: list[list[str]] = []
        self.retries: list[str] = []

    def run(self, container: Container, folder: Path) -> Finished:
        assert not list(folder.iterdir())
        name, *arguments = container.command
        with self._lock:
            self.ran.append(list(container.command))
            self.retries.append(container.environment.get("RETRY", ""))
            result = self._programs[name](arguments)
        if isinstance(result, int):
            return Finished(result, f"E0101 00:00:00.0    1 {name}.go:1] {name} said {result}")
        for option, value in result.items():
            Path(arguments[arguments.index(f"--{option}") + 1]).write_text(value)
        return Finished(0, "")


def dag(name: str, *tasks: Mapping[str, Any], inputs: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": name, "inputs": {"parameters": [{"name": one} for one in inputs]}, "dag": {"tasks": list(tasks)}}


def task(name: str, template: str, depends: str = "", **more: Any) -> dict[str, Any]:
    arguments = [{"name": key, "value": value} for key, value in more.pop("arguments", {}).items()]
    return {"name": name, "template": template, "depends": depends, "arguments": {"parameters": arguments}, **more}


def driver(name: str, *outputs: str, default: str | None = None) -> dict[str, Any]:
    options = [word for one in outputs for word in (f"--{one}", f"{{{{outputs.parameters.{one}.path}}}}")]
    source: dict[str, Any] = {"path": "/tmp/outputs"} | ({} if default is None else {"default": default})
    return {
        "name": name,
        "container": {"command": [name], "args": options},
        "outputs": {"parameters": [{"name": one, "valueFrom": source} for one in outputs]},
    }


EXECUTOR = {
    "name": "work",
    "inputs": {"parameters": [{"name": "patch"}]},
    "container": {"command": ["replaced"], "env": [{"name": "RETRY", "value": "{{retries}}"}]},
    "podSpecPatch": "{{inputs.parameters.patch}}",
    "retryStrategy": {"limit": "2", "backoff": {"duration": "30", "factor": "2", "maxDuration": "90000"}},
}
PATCH = '{"containers": [{"command": ["work"], "args": ["$(KFP_POD_NAME)"]}]}'


def run(folder: Path, pods: Fake, *templates: Mapping[str, Any], **options: Any) -> Node:
    workflow = {"metadata": {"generateName": "toy-"}, "spec": {"entrypoint": "main", "templates": list(templates)}}
    return run_workflow(workflow, pods, folder / "pods", **options)


def phases(node: Node) -> dict[str, Phase]:
    return {one.path.rpartition("/")[2]: one.phase for one in node.walk()}


def test_outputs_reach_the_tasks_behind(tmp_path: Path) -> None:
    pods = Fake(ask=lambda _: {"patch": PATCH}, work=lambda _: {})
    then = task("work", "work", "ask.Succeeded", arguments={"patch": "{{tasks.ask.outputs.parameters.patch}}"})
    assert run(tmp_path, pods, dag("main", task("ask", "ask"), then), driver("ask", "patch"), EXECUTOR).phase is S
    assert pods.ran[-1] == ["work", "$(KFP_POD_NAME)"]


@pytest.mark.parametrize(("fails", "phase", "attempts"), [(0, S, 1), (2, S, 3), (3, F, 3)])
def test_a_failed_task_is_tried_again_up_to_the_limit(tmp_path: Path, fails: int, phase: Phase, attempts: int) -> None:
    pods = Fake(work=lambda _: 7 if len(pods.ran) <= fails else {})
    node = run(tmp_path, pods, dag("main", task("work", "work", arguments={"patch": PATCH})), EXECUTOR)
    (work,) = node.children
    assert (node.phase, len(work.attempts)) == (phase, attempts)
    assert pods.retries == ["0", "1", "2"][:attempts]
    pairs = zip(work.attempts[:-1], work.attempts[1:], strict=True)
    pauses = [after.started_s - before.finished_s for before, after in pairs]
    assert [round(pause / 30) for pause in pauses] == [1, 2][: attempts - 1]
    assert work.message.endswith("No more retries left") is (phase is F)


def test_what_fails_leaves_what_depends_on_it_out(tmp_path: Path) -> None:
    tasks = task("ask", "ask"), task("b", "main2", "ask.Succeeded"), task("c", "main2", "ask.Failed")
    pods = Fake(ask=lambda _: 1, other=lambda _: {})
    node = run(tmp_path, pods, dag("main", *tasks), dag("main2", task("d", "other")), driver("ask"), driver("other"))
    assert phases(node) == {"main": F, "ask": F, "b": O, "c": S, "d": S}
    assert "ask said 1" in node.story()


def test_a_false_when_skips(tmp_path: Path) -> None:
    tasks = (
        task("ask", "ask"),
        task("b", "other", "ask.Succeeded", when="{{tasks.ask.outputs.parameters.open}} != false"),
        task("c", "other", "b"),
        task("d", "other", "b.Succeeded"),
    )
    pods = Fake(ask=lambda _: {"open": "false"}, other=lambda _: {})
    node = run(tmp_path, pods, dag("main", *tasks), driver("ask", "open"), driver("other"))
    assert phases(node) == {"main": S, "ask": S, "b": K, "c": S, "d": O}


def loop(number: str) -> tuple[Mapping[str, Any], ...]:
    tasks = (
        task("ask", "ask"),
        task(
            "loop",
            "one",
            "ask.Succeeded",
            withSequence={"count": "{{tasks.ask.outputs.parameters.number}}"},
            arguments={"index": "{{item}}"},
        ),
        task("after", "after", "loop.Succeeded"),
    )
    one = driver("one") | {"inputs": {"parameters": [{"name": "index"}]}}
    one["container"] = {"command": ["one"], "args": ["{{inputs.parameters.index}}"]}
    return dag("main", *tasks), driver("ask", "number"), one, driver("after")


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_runs_every_iteration(tmp_path: Path, reverse: bool) -> None:
    pods = Fake(ask=lambda _: {"number": "3"}, one=lambda _: {}, after=lambda _: {})
    node = run(tmp_path, pods, *loop("3"), reverse=reverse)
    assert node.phase is S
    assert sorted(words[1] for words in pods.ran if words[0] == "one") == ["0", "1", "2"]
    assert pods.ran[-1] == ["after"]


def test_one_failed_iteration_fails_the_loop_after_the_others(tmp_path: Path) -> None:
    pods = Fake(ask=lambda _: {"number": "3"}, one=lambda words: int(words == ["1"]), after=lambda _: {})
    node = run(tmp_path, pods, *loop("3"))
    assert (phases(node)["loop"], phases(node)["after"], node.phase) == (F, O, F)
    assert len([words for words in pods.ran if words[0] == "one"]) == 3


def test_a_loop_over_nothing_is_skipped(tmp_path: Path) -> None:
    node = run(tmp_path, Fake(ask=lambda _: {"number": "0"}), *loop("0"))
    assert phases(node) == {"main": S, "ask": S, "loop": K, "after": O}


def test_a_value_that_is_missing_is_an_error(tmp_path: Path) -> None:
    then = task("b", "other", "ask", arguments={"x": "{{tasks.ask.outputs.parameters.nothing}}"})
    node = run(tmp_path, Fake(ask=lambda _: {}), dag("main", task("ask", "ask"), then), driver("ask"))
    assert phases(node) == {"main": E, "ask": S, "b": E}


def test_an_output_that_was_not_written_is_an_error_unless_it_has_a_default(tmp_path: Path) -> None:
    silent = Fake(ask=lambda _: {})
    assert run(tmp_path / "a", silent, dag("main", task("ask", "ask")), driver("ask", "x")).phase is E
    assert run(tmp_path / "b", silent, dag("main", task("ask", "ask")), driver("ask", "x", default="d")).phase is S


def test_what_this_argo_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="withParam"):
        run(tmp_path, Fake(), dag("main", task("a", "b", withParam="[1]")))
