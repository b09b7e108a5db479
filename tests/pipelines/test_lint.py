"""The lint of compiled pipelines: each of its rules fails where it should, and nowhere else."""

# KFP reads the annotations of the toys below itself: no `from __future__ import annotations` here.

import copy
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, List, NamedTuple, Optional  # noqa: UP035 - as KFP's users write them
from unittest.mock import ANY

import pytest
import yaml
from kfp import dsl, kubernetes
from kfp.compiler import Compiler

from tests.support.compiled_ir import documents
from tests.support.ir_lint import problems
from tests.support.kfp_refusals import RELEASES, before, refusals

TOY = {"base_image": "python:3.11", "install_kfp_package": False}
SIX_HOURS_S = 6 * 3600

Pipeline = Callable[..., Any]
Documents = tuple[dict[str, Any], dict[str, Any]]


@dsl.component(**TOY)
def shares() -> List[dict]:  # noqa: UP006
    return [{"task": 0}, {"task": 1}]


@dsl.component(**TOY)
def bare_shares() -> list:
    return [{"task": 0}]


@dsl.component(**TOY)
def perhaps_no_shares() -> List[dict]:  # noqa: UP006
    import os

    if "TASKS" not in os.environ:
        return []
    return [{"task": 0}]


@dsl.component(**TOY)
def texts() -> List[str]:  # noqa: UP006
    return ["a", "b"]


@dsl.component(**TOY)
def count() -> int:
    return 7


@dsl.component(**TOY)
def take(share: dict) -> str:
    return str(share)


@dsl.component(**TOY)
def take_counted(share: dict, counted: int) -> str:
    return f"{share} {counted}"


@dsl.component(**TOY)
def page(share: dict, out: dsl.Output[dsl.Artifact]):
    Path(out.path).write_text(str(share))


@dsl.component(**TOY)
def bind(pages: dsl.Input[List[dsl.Artifact]]):  # noqa: UP006
    print(len(pages))  # noqa: T201


@dsl.component(**TOY)
def join(parts: List[str]) -> str:  # noqa: UP006
    return ",".join(parts)


@dsl.component(**TOY)
def say(text: str) -> str:
    return text


@dsl.component(**TOY)
def say_number(number: float) -> float:
    return number


@dsl.component(**TOY)
def say_integer(integer: int) -> int:
    return integer


@dsl.component(**TOY)
def say_perhaps(text: Optional[str] = None):  # noqa: UP045
    print(text)  # noqa: T201


@dsl.component(**TOY)
def named_n(n: int) -> int:
    return n


@dsl.component(**TOY)
def named_yes(yes: bool) -> bool:
    return yes


@dsl.component(**TOY)
def verdict() -> NamedTuple("Verdict", [("drift", bool), ("p_value", float)]):
    return (True, 0.01)


def written(pipeline: Any, folder: Path) -> str:
    path = folder / "pipeline.yaml"
    Compiler().compile(pipeline, str(path))
    return path.read_text(encoding="utf-8")


def compiled(pipeline: Pipeline, folder: Path) -> str:
    return written(dsl.pipeline(name=pipeline.__name__.replace("_", "-"))(pipeline), folder)


# ---- what a backend refuses: each toy with the releases that do, and the lint's words ------------------------------


def list_without_item_type():
    with dsl.ParallelFor(bare_shares().output) as share:
        take(share=share)


def parameter_without_item_type(given: list = [{"task": 0}]):  # noqa: B006
    with dsl.ParallelFor(given) as share:
        take(share=share)


@dsl.pipeline(name="inner-loop")
def inner_loop(given: list):
    with dsl.ParallelFor(given) as share:
        take(share=share)


def list_without_item_type_in_a_nested_pipeline():
    inner_loop(given=shares().output)


def named_loop_collected_by_parameters():
    with dsl.ParallelFor(shares().output, name="kernel") as share:
        taken = take(share=share)
    join(parts=dsl.Collected(taken.output))


def named_loop_collected_by_artifacts():
    with dsl.ParallelFor(shares().output, name="kernel") as share:
        written = page(share=share)
    bind(pages=dsl.Collected(written.outputs["out"]))


@dsl.pipeline(name="inner-named-loop")
def inner_named_loop() -> List[str]:  # noqa: UP006
    with dsl.ParallelFor(shares().output, name="kernel") as share:
        taken = take(share=share)
    return dsl.Collected(taken.output)


def named_loop_returned_from_a_nested_pipeline():
    join(parts=inner_named_loop().output)


def loop_over_a_step_that_may_return_nothing():
    with dsl.ParallelFor(perhaps_no_shares().output) as share:
        taken = take(share=share)
    join(parts=dsl.Collected(taken.output))


def loop_over_an_empty_default(given: List[dict] = []):  # noqa: B006, UP006
    with dsl.ParallelFor(given) as share:
        taken = take(share=share)
    join(parts=dsl.Collected(taken.output))


def parameter_that_yaml_reads_as_false():
    named_n(n=3)


def time_of_schedule():
    say(text=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER)


def time_of_creation():
    say(text=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)


def placeholder_within_a_text():
    say(text=f"run {dsl.PIPELINE_JOB_ID_PLACEHOLDER}")


@dsl.pipeline(name="inner-say")
def inner_say(text: str):
    say(text=text)


def text_put_together_for_a_nested_pipeline(out: str):
    inner_say(text=f"{out}/a")


def static_loop_inside_a_condition():
    found = verdict()
    with dsl.If(found.outputs["drift"] == True), dsl.ParallelFor([{"num": 1}, {"num": 2}]) as item:  # noqa: E712
        say_integer(integer=item.num)
    with dsl.Else():
        say(text="quiet")


def null_inside_a_condition(text: Optional[str] = None):  # noqa: UP045
    with dsl.If(verdict().outputs["drift"] == True):  # noqa: E712
        say_perhaps(text=text)


def retried_within_ten_minutes():
    kubernetes.set_timeout(say(text="a").set_retry(3, "30s", 2.0, "600s"), SIX_HOURS_S)


def retried_within_the_sdks_hour():
    kubernetes.set_timeout(say(text="a").set_retry(3, "30s", 2.0), SIX_HOURS_S)


def retried_by_half_a_factor():
    say(text="a").set_retry(3, "30s", 1.5, "25h")


def constant_of_128_kib():
    say(text="x" * 131_072)


@pytest.mark.parametrize(
    ("pipeline", "releases", "words"),
    [
        (list_without_item_type, RELEASES, "share: expects STRUCT, gets STRING"),
        (parameter_without_item_type, RELEASES, "share: expects STRUCT, gets STRING"),
        (list_without_item_type_in_a_nested_pipeline, RELEASES, "share: expects STRUCT, gets STRING"),
        (named_loop_collected_by_parameters, before("2.16.1"), "called kernel, and root/join looks for it by its key"),
        (named_loop_collected_by_artifacts, before("2.16.1"), "called kernel, and root/bind looks for it by its key"),
        (named_loop_returned_from_a_nested_pipeline, before("2.16.1"), "output Output looks for it by its key"),
        (loop_over_a_step_that_may_return_nothing, RELEASES, "may be empty, and root/join collects from it"),
        (loop_over_an_empty_default, RELEASES, "may be empty, and root/join collects from it"),
        (parameter_that_yaml_reads_as_false, RELEASES, "the name n stands unquoted"),
        (time_of_schedule, before("2.17.0"), "schedule_time_utc}} stays as it is, or empty"),
        (time_of_creation, before("2.17.0"), "create_time_utc}} stays as it is, or empty"),
        (placeholder_within_a_text, RELEASES, "a placeholder within a longer text stays as it is"),
        (text_put_together_for_a_nested_pipeline, RELEASES, "put together for a nested pipeline"),
        (static_loop_inside_a_condition, RELEASES, "the parent DAG has no input loop-item-param-"),
        (null_inside_a_condition, RELEASES, "may be null, and is not optional"),
        (retried_within_ten_minutes, RELEASES, "within 600 s of its first start, and 4 attempts may take 86610 s"),
        (retried_within_the_sdks_hour, RELEASES, "within 3600 s of its first start"),
        (retried_by_half_a_factor, RELEASES, "backoffFactor: Argo takes whole numbers, got 1.5"),
        (constant_of_128_kib, RELEASES, "an argument 131071 at most"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_refused_pipeline_is_flagged(pipeline, releases, words, tmp_path):
    found = list(refusals(compiled(pipeline, tmp_path)))
    assert [refusal for refusal in found if words in str(refusal)], list(map(str, found))
    assert {refusal.releases for refusal in found} == {releases}, list(map(str, found))


# ---- their neighbours, which every release runs ---------------------------------------------------------------------


def list_of_dicts():
    with dsl.ParallelFor(shares().output) as share:
        take(share=share)


def list_without_item_type_as_text():
    with dsl.ParallelFor(bare_shares().output) as share:
        say(text=share)


def named_loop_not_collected():
    with dsl.ParallelFor(shares().output, name="kernel") as share:
        take(share=share)


def named_task_in_a_collected_loop():
    with dsl.ParallelFor(shares().output) as share:
        taken = take(share=share).set_display_name("shown otherwise")
    join(parts=dsl.Collected(taken.output))


def loop_over_what_may_be_empty_not_collected(given: List[dict] = []):  # noqa: B006, UP006
    with dsl.ParallelFor(given) as share:
        take(share=share)


def static_loop_over_fields():
    with dsl.ParallelFor([{"num": 1}, {"num": 2}]) as item:
        say_integer(integer=item.num)


def quoted_name():
    named_yes(yes=True)


def placeholder_alone(out: str):
    say(text=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    say(text=f"{out}/a")


def optional_into_optional(text: Optional[str] = None):  # noqa: UP045
    say_perhaps(text=text)


def branches_on_a_verdict():
    found = verdict()
    with dsl.If(found.outputs["drift"] == True):  # noqa: E712
        one = say(text="drift")
    with dsl.Elif(found.outputs["p_value"] < 0.05):
        two = say(text="nearly")
    with dsl.Else():
        three = say(text="quiet")
    say(text=dsl.OneOf(one.output, two.output, three.output))


def body_with_an_upstream_parameter():
    counted = count()
    with dsl.ParallelFor(shares().output) as share:
        take_counted(share=share, counted=counted.output)


def retried_within_25_hours():
    kubernetes.set_timeout(say(text="a").set_retry(3, "30s", 2.0, "25h"), SIX_HOURS_S)


def constant_just_below_128_kib():
    say(text="x" * (131_071 - 2))  # and two quotes


@pytest.mark.parametrize(
    "pipeline",
    [
        list_of_dicts,
        list_without_item_type_as_text,
        named_loop_not_collected,
        named_task_in_a_collected_loop,
        loop_over_what_may_be_empty_not_collected,
        static_loop_over_fields,
        quoted_name,
        placeholder_alone,
        optional_into_optional,
        branches_on_a_verdict,
        body_with_an_upstream_parameter,
        retried_within_25_hours,
        constant_just_below_128_kib,
    ],
    ids=lambda pipeline: pipeline.__name__,
)
def test_what_all_releases_run_is_not_flagged(pipeline, tmp_path):
    assert list(map(str, refusals(compiled(pipeline, tmp_path)))) == []


# ---- what the SDK does not write, and a hand or another tool may ----------------------------------------------------


def placed(task: dsl.PipelineTask) -> dsl.PipelineTask:
    task.set_cpu_request("1").set_memory_request("1Gi").set_caching_options(False).set_retry(3, "30s", 2.0, "25h")
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    kubernetes.set_timeout(task, SIX_HOURS_S)
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    kubernetes.use_secret_as_env(task, "hub", {"token": "HF_TOKEN"})
    kubernetes.mount_pvc(task, "models", "/models")
    return task


class Inner(NamedTuple):
    drift: bool


@dsl.pipeline(name="inner-verdict")
def inner_verdict(level: float = 0.05) -> Inner:
    placed(say_number(number=level))
    return Inner(placed(verdict()).outputs["drift"])


def everything(given: List[dict] = [{"task": 0}], number: float = 0.5):  # noqa: B006, UP006
    with dsl.ParallelFor(given, parallelism=2) as share:
        placed(take(share=share))
    planned = placed(shares())
    with dsl.ParallelFor(planned.output, parallelism=2) as share:
        placed(page(share=share))
    with dsl.ParallelFor([{"num": 1}], parallelism=2) as item:
        placed(say_integer(integer=item.num))
    placed(say_number(number=number)).after(planned)
    with dsl.If(inner_verdict().outputs["drift"] == True):  # noqa: E712
        placed(say(text="drift"))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Documents:
    return documents(compiled(everything, tmp_path_factory.mktemp("lint")))


def find(spec: Any, **where: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a document that has these entries."""
    if isinstance(spec, dict):
        if where == {key: value for key, value in spec.items() if key in where}:
            yield spec
        for value in spec.values():
            yield from find(value, **where)
    elif isinstance(spec, list):
        for value in spec:
            yield from find(value, **where)


def root_task(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return spec["root"]["dag"]["tasks"][name]


def executor(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][name]["container"]


def settings(platform: dict[str, Any], name: str) -> dict[str, Any]:
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]


def edited(good: Documents, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> str:
    spec, platform = copy.deepcopy(good)
    edit(spec, platform)
    assert (spec, platform) != good, "the edit changed nothing"
    return yaml.safe_dump_all([spec, platform])


def test_the_good_pipeline_has_no_problem(good):
    assert list(problems(edited(good, lambda spec, _: spec["pipelineInfo"].update(description="x")))) == []


REFUSED_EDITS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "no such component": (
        lambda spec, _: root_task(spec, "shares")["componentRef"].update(name="comp-none"),
        "root/shares: there is no such component",
    ),
    "no such task": (
        lambda spec, _: next(find(spec, producerTask="shares")).update(producerTask="none"),
        "there is no task none beside it",
    ),
    "no such output": (
        lambda spec, _: next(find(spec, outputParameterKey="Output", producerTask="shares")).update(
            outputParameterKey="none"
        ),
        "shares has no output none",
    ),
    "no such input of the parent": (
        lambda spec, _: next(find(spec, componentInputParameter="number")).update(componentInputParameter="none"),
        "the parent DAG has no input none",
    ),
    "no value": (
        lambda spec, _: root_task(spec, "say-number")["inputs"]["parameters"].pop("number"),
        "root/say-number: number: neither a value nor a default",
    ),
    "waits for nobody": (
        lambda spec, _: root_task(spec, "say-number").update(dependentTasks=["none"]),
        "waits for none, and there is no such task beside it",
    ),
    "condition on what is not there": (
        lambda spec, _: next(find(spec, condition=ANY)).update(condition="inputs.parameter_values['none'] == true"),
        "its condition looks at none, which it does not get",
    ),
    "workspace": (
        lambda spec, _: next(find(spec, constant="drift")).update(constant="{{$.workspace_path}}/model"),
        "workspace_path}} stays as it is (KFP 2.14.4)",
    ),
    "constant of another type": (
        lambda spec, _: (
            root_task(spec, "say-number")["inputs"]["parameters"]["number"].update(
                {"runtimeValue": {"constant": "0.5"}}
            )
            or root_task(spec, "say-number")["inputs"]["parameters"]["number"].pop("componentInputParameter")
        ),
        "number: expects NUMBER_DOUBLE, gets STRING",
    ),
    "text for a flag": (
        lambda spec, _: spec["components"]["comp-verdict"]["outputDefinitions"]["parameters"]["drift"].update(
            parameterType="STRING"
        ),
        "expects BOOLEAN, gets STRING",
    ),
    "nested default of another type": (
        lambda spec, _: spec["components"]["comp-inner-verdict"]["inputDefinitions"]["parameters"]["level"].update(
            defaultValue="low"
        ),
        "comp-inner-verdict: level: expects NUMBER_DOUBLE, its default is STRING",
    ),
    "output of a nested pipeline that nobody makes": (
        lambda spec, _: next(find(spec, producerSubtask="verdict")).update(producerSubtask="none"),
        "comp-inner-verdict: output drift: none has no output drift",
    ),
    "item of another type": (
        lambda spec, _: spec["root"]["inputDefinitions"]["parameters"]["given"].update(defaultValue=["a"]),
        "expects STRUCT, gets STRING",
    ),
    "constant item of another type": (
        lambda spec, _: next(find(spec, raw='[{"num": 1}]')).update(raw="[[1]]"),
        "expects STRUCT, gets LIST",
    ),
    "loop over no list": (
        lambda spec, _: [
            declared.update(parameterType="STRUCT")
            for declared in find([spec["root"], spec["components"]["comp-for-loop-1"]], parameterType="LIST")
        ],
        "a loop over STRUCT, which is no list",
    ),
    "loop over artifacts": (
        lambda spec, _: root_task(spec, "for-loop-1").update(artifactIterator={"itemInput": "a"}),
        "a loop over artifacts: the driver has none",
    ),
    "no window at all": (
        lambda spec, _: root_task(spec, "shares")["retryPolicy"].pop("backoffMaxDuration"),
        "retried within 0 s of its first start",
    ),
    "a deadline longer than the window": (
        lambda _, platform: settings(platform, "exec-shares").update(activeDeadlineSeconds=8 * 3600),
        "retried within 90000 s of its first start, and 4 attempts may take 115410 s",
    ),
    "field of no release": (
        lambda spec, _: root_task(spec, "shares").update(retries=3),
        'has no field named "retries"',
    ),
    "choice of words": (
        lambda spec, _: spec["components"]["comp-say"]["inputDefinitions"]["parameters"]["text"].update(
            literals=["drift", "quiet"]
        ),
        "comp-say, text: literals is unknown (KFP 2.14.4, 2.15.0)",
    ),
    "another schema": (lambda spec, _: spec.update(schemaVersion="2.0.0"), "schemaVersion: expected 2.1.0, got 2.0.0"),
    "time to live of 2.17": (
        lambda _, platform: platform["platforms"]["kubernetes"].update(pipelineConfig={"resourceTtlOnSuccess": 60}),
        "resourceTtlOnSuccess is unknown (KFP 2.14.4, 2.15.0, 2.16.1)",
    ),
    "program of 128 KiB": (
        lambda spec, _: executor(spec, "exec-shares")["command"].append("x" * 131_072),
        "exec-shares: an argument of 131072 bytes, of 131071 at most",
    ),
}


@pytest.mark.parametrize("name", REFUSED_EDITS)
def test_a_refused_edit_is_flagged(name, good):
    edit, words = REFUSED_EDITS[name]
    text = edited(good, edit)
    found = list(map(str, refusals(text)))
    assert [refusal for refusal in found if words in refusal], found
    assert set(found) <= set(problems(text))


ACCEPTED_EDITS: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "text takes a number": lambda spec, _: spec["components"]["comp-say-number"]["inputDefinitions"]["parameters"][
        "number"
    ].update(parameterType="STRING"),
    "text takes a dict": lambda spec, _: spec["components"]["comp-take"]["inputDefinitions"]["parameters"][
        "share"
    ].update(parameterType="STRING"),
    "numbers are one kind": lambda spec, _: spec["components"]["comp-say-number"]["inputDefinitions"]["parameters"][
        "number"
    ].update(parameterType="NUMBER_INTEGER"),
    "a window of just enough": lambda spec, _: root_task(spec, "shares")["retryPolicy"].update(
        backoffMaxDuration="86610s"
    ),
    "no attempt after the first": lambda spec, _: root_task(spec, "shares").update(retryPolicy={}),
}


@pytest.mark.parametrize("name", ACCEPTED_EDITS)
def test_what_the_driver_takes_is_not_flagged(name, good):
    assert list(map(str, refusals(edited(good, ACCEPTED_EDITS[name])))) == []


HOUSE_EDITS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "image by a moving tag": (
        lambda spec, _: executor(spec, "exec-shares").update(image="registry.example:5000/a:latest"),
        "exec-shares: image registry.example:5000/a:latest is not pinned",
    ),
    "image without a tag": (
        lambda spec, _: executor(spec, "exec-shares").update(image="registry.example:5000/a"),
        "exec-shares: image registry.example:5000/a is not pinned",
    ),
    "loop without a limit": (
        lambda spec, _: root_task(spec, "for-loop-1").pop("iteratorPolicy"),
        "root/for-loop-1: a loop without a limit of its parallelism",
    ),
    "loop by another name": (
        lambda spec, _: root_task(spec, "for-loop-1")["taskInfo"].update(name="kernel"),
        "root/for-loop-1: a loop by another name than its key",
    ),
    "null parameter": (
        lambda spec, _: spec["root"]["inputDefinitions"]["parameters"].update(
            note={"isOptional": True, "parameterType": "STRING"}
        ),
        "root: note may be null",
    ),
    "name of a boolean, quoted": (
        lambda spec, _: spec["root"]["inputDefinitions"]["parameters"].update(
            {"On": {"defaultValue": "", "isOptional": True, "parameterType": "STRING"}}
        ),
        "the name On is a boolean in YAML 1.1",
    ),
    "name of a boolean in a list": (
        lambda spec, _: spec["root"]["inputDefinitions"]["parameters"]["given"].update(defaultValue=[{"Yes": 1}]),
        "the name Yes is a boolean in YAML 1.1",
    ),
    "no request": (
        lambda spec, _: executor(spec, "exec-shares")["resources"].pop("resourceMemoryRequest"),
        "exec-shares: no request of CPU or memory",
    ),
    "no time-out": (
        lambda _, platform: settings(platform, "exec-shares").pop("activeDeadlineSeconds"),
        "exec-shares: no time-out",
    ),
    "not retried": (lambda spec, _: root_task(spec, "shares").pop("retryPolicy"), "root/shares: not retried"),
    "cached": (
        lambda spec, _: root_task(spec, "shares").update(cachingOptions={"enableCache": True}),
        "root/shares: cached by the names of datasets",
    ),
    "GPU without a toleration": (
        lambda _, platform: settings(platform, "exec-shares").pop("tolerations"),
        "exec-shares: a GPU without tolerations",
    ),
    "node selector": (
        lambda _, platform: settings(platform, "exec-shares").update(
            nodeSelector={"labels": {"nvidia.com/gpu.present": "true"}}
        ),
        "exec-shares: only nodes with nvidia.com/gpu.present=true, which no profile asks for",
    ),
    "node selector by a parameter": (
        lambda _, platform: settings(platform, "exec-shares").update(
            nodeSelector={"nodeSelectorJson": {"componentInputParameter": "nodes"}}
        ),
        "exec-shares: nodes chosen by a parameter",
    ),
    "part of a volume": (
        lambda _, platform: settings(platform, "exec-shares")["pvcMount"][0].update(subPath="models"),
        "exec-shares: pvcMount.subPath is left out by KFP 2.14.4, 2.15.0",
    ),
    "secret that may be missing": (
        lambda _, platform: settings(platform, "exec-shares")["secretAsEnv"][0].update(optional=True),
        "exec-shares: secretAsEnv.optional is left out by KFP 2.14.4",
    ),
    "user of the container": (
        lambda _, platform: settings(platform, "exec-shares").update(securityContext={"runAsUser": "10001"}),
        "exec-shares: securityContext is left out by KFP 2.14.4, 2.15.0",
    ),
    "output of a nested pipeline by another type": (
        lambda spec, _: spec["components"]["comp-inner-verdict"]["outputDefinitions"]["parameters"]["drift"].update(
            parameterType="LIST"
        ),
        "comp-inner-verdict: output drift is LIST, and gets BOOLEAN",
    ),
    "float for a whole number": (
        lambda spec, _: spec["components"]["comp-say-number"]["inputDefinitions"]["parameters"]["number"].update(
            parameterType="NUMBER_INTEGER"
        ),
        "root/say-number: number is NUMBER_INTEGER, and gets NUMBER_DOUBLE",
    ),
    "part of a whole number": (
        lambda spec, _: next(find(spec, componentRef={"name": "comp-say-integer"}))["inputs"]["parameters"].update(
            integer={"runtimeValue": {"constant": 8.5}}
        ),
        "integer is a whole number, and gets 8.5",
    ),
}


@pytest.mark.parametrize("name", HOUSE_EDITS)
def test_what_the_house_forbids_is_flagged_and_no_backend_refuses_it(name, good):
    edit, words = HOUSE_EDITS[name]
    text = edited(good, edit)
    found = list(problems(text))
    assert [problem for problem in found if words in problem], found
    assert list(map(str, refusals(text))) == []


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        (named_task_in_a_collected_loop, "root/join: collects from for-loop-1, so that its input grows"),
        (body_with_an_upstream_parameter, "the loop's body takes pipelinechannel--count-Output"),
        (optional_into_optional, "root: text may be null"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_toy_that_the_house_forbids_is_flagged(pipeline, words, tmp_path):
    found = list(problems(compiled(pipeline, tmp_path)))
    assert [problem for problem in found if words in problem], found


def test_a_selector_that_the_profile_asks_for_is_allowed(good):
    labels = {"cloud.example/accelerator": "t4"}
    text = edited(good, lambda _, platform: settings(platform, "exec-shares").update(nodeSelector={"labels": labels}))
    assert list(problems(text, selectors=labels.items())) == []
    assert list(problems(text, selectors=[("cloud.example/accelerator", "a100")])) != []


def test_a_component_alone_needs_no_place(tmp_path):
    text = written(take, tmp_path)
    assert list(problems(text, placed=False)) == []
    assert [problem.rpartition(": ")[2] for problem in problems(text)] == [
        "no request of CPU or memory",
        "no time-out",
        "cached by the names of datasets, not their content",
        "not retried",
    ]


# ---- against what the releases themselves did -----------------------------------------------------------------------

RECORDED = Path(__file__).parents[3] / "shared" / "engines" / "kfp"

# Here a step of the toy ends in failure, which is no matter of the pipeline: `fails` exits with status 2, as it is
# written to.
STEP_FAILS = frozenset({"ignore_upstream_failure"})

# The API server keeps a parameter called n. The program with which the constructs were compiled reads YAML 1.1, as
# kubectl does, and the lint flags such names for all.
NOT_RECORDED = {"exit_handler_after_failure": False, "parameter_called_y_default": True}


@pytest.fixture(scope="module")
def constructs(tmp_path_factory) -> dict[str, str]:
    """The recorded constructs, compiled by the kfp at hand."""
    program = RECORDED / "constructs.py"
    if not program.is_file():
        pytest.skip(f"needs the recorded constructs: there is no {program}")
    folder = tmp_path_factory.mktemp("constructs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [str(program), str(folder)])
        patch.setenv("KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT", "true")  # as it sets itself: undone afterwards
        runpy.run_path(str(program), run_name="__main__")
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}


def test_the_lint_flags_what_a_release_refused_and_nothing_else(constructs):
    header, *rows = (line.split("\t") for line in (RECORDED / "constructs.tsv").read_text().splitlines())
    assert tuple(header[1:5]) == RELEASES
    assert len(rows) == 47
    for name, *verdicts in rows:
        refused = {release for release, verdict in zip(RELEASES, verdicts, strict=False) if verdict == "fails"}
        tried = {release for release, verdict in zip(RELEASES, verdicts, strict=False) if verdict != "-"}
        flagged = {release for refusal in refusals(constructs[name]) for release in refusal.releases}
        assert flagged & tried == (set() if name in STEP_FAILS else refused), name
        assert bool(flagged) == bool(refused) or name in STEP_FAILS, name
    assert constructs.keys() == {row[0] for row in rows} | NOT_RECORDED.keys()
    assert {name: bool(list(refusals(constructs[name]))) for name in NOT_RECORDED} == NOT_RECORDED
