"""Pipelines of a few lines, whose last step checks what arrived."""

# KFP fills a component's outputs in, and takes a bare `list`: neither is in its types.
# pyright: reportCallIssue=false, reportMissingTypeArgument=false

import tempfile
from pathlib import Path
from typing import Any, List, NamedTuple  # noqa: UP035 - KFP reads these

from kfp import dsl
from kfp.compiler import Compiler

from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.profile import Profile

_TOY = {"base_image": "python:3.11", "install_kfp_package": False}


def compiled(pipeline: Any) -> str:
    """Return a pipeline's YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(pipeline, str(path))
        return path.read_text(encoding="utf-8")


@dsl.component(**_TOY)
def plan_bare() -> list:
    return [{"task": 0}, {"task": 1}]


@dsl.component(**_TOY)
def plan_dicts(number: int = 2) -> List[dict]:  # noqa: UP006
    return [{"task": task} for task in range(number)]


@dsl.component(**_TOY)
def note(item: dict, folder: str):
    from pathlib import Path

    Path(folder, str(int(item["task"]))).touch()


@dsl.component(**_TOY)
def judge(drift: bool) -> NamedTuple("Verdict", [("drift", bool), ("p_value", float)]):
    from collections import namedtuple

    return namedtuple("Verdict", ["drift", "p_value"])(drift, 0.01)


@dsl.component(**_TOY)
def write(text: str, path: str):
    from pathlib import Path

    Path(path).write_text(text)


@dsl.component(**_TOY)
def tell(p_value: float, mmd2: float, threshold: float, report_uri: str, verdict: str, path: str):
    import json
    from pathlib import Path

    told = {"p_value": p_value, "mmd2": mmd2, "threshold": threshold, "report_uri": report_uri, "verdict": verdict}
    Path(path).write_text(json.dumps(told))


@dsl.component(**_TOY)
def write_variables(names: list, path: str):
    import json
    import os
    from pathlib import Path

    Path(path).write_text(json.dumps({name: os.environ[name] for name in names}))


@dsl.component(**_TOY)
def fail_first(times: int, folder: str) -> str:
    """Fail so many times, then succeed."""
    import tempfile
    from pathlib import Path

    before = len(list(Path(folder).iterdir()))
    Path(tempfile.mkdtemp(dir=folder))
    if before < times:
        raise SystemExit(3)
    return "done"


@dsl.component(**_TOY)
def want_number(n: int):
    assert n == 3, n


@dsl.component(**_TOY)
def make(text: str, out: dsl.Output[dsl.Artifact]):
    from pathlib import Path

    Path(out.path).write_text(text)
    out.metadata["length"] = len(text)


@dsl.component(**_TOY)
def read(made: dsl.Input[dsl.Artifact], path: str):
    from pathlib import Path

    Path(path).write_text(f"{Path(made.path).read_text()} {made.metadata['length']}")


@dsl.pipeline(name="bare-list")
def bare_list(folder: str):
    planned = plan_bare()
    with dsl.ParallelFor(planned.output) as item:
        note(item=item, folder=folder)


@dsl.pipeline(name="dict-list")
def dict_list(folder: str, number: int = 2):
    planned = plan_dicts(number=number)
    with dsl.ParallelFor(planned.output) as item:
        note(item=item, folder=folder)


@dsl.pipeline(name="gate")
def gate(drift: bool, path: str):
    judged = judge(drift=drift)
    with dsl.If(judged.outputs["drift"] == True):  # noqa: E712 - KFP's condition
        write(text="drift", path=path)
    with dsl.Else():
        write(text="quiet", path=path)


@dsl.pipeline(name="flaky")
def flaky(times: int, folder: str, path: str):
    tried = fail_first(times=times, folder=folder).set_retry(
        2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="25h"
    )
    write(text=tried.output, path=path)


@dsl.pipeline(name="flaky-briefly")
def flaky_briefly(times: int, folder: str, path: str):
    tried = fail_first(times=times, folder=folder).set_retry(
        2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="20s"
    )
    write(text=tried.output, path=path)


@dsl.pipeline(name="named-n")
def named_n():
    want_number(n=3)


@dsl.pipeline(name="artifact")
def artifact(path: str, text: str = "as it was"):
    made = make(text=text)
    read(made=made.outputs["out"], path=path)


_drift = drift_pipeline(Profile())


@dsl.pipeline(name="gated")
def gated(
    reference: str,
    current: str,
    output_folder: str,
    pca_components: int,
    test_permutations: int,
    kernel_tasks: int,
    said: str,
):
    """Write the verdict of a drift run down, if there is drift."""
    found = _drift(
        reference=reference,
        current=current,
        output_folder=output_folder,
        pca_components=pca_components,
        test_permutations=test_permutations,
        kernel_tasks=kernel_tasks,
    )
    with dsl.If(found.outputs["drift"] == True):  # noqa: E712 - KFP's condition
        tell(
            p_value=found.outputs["p_value"],
            mmd2=found.outputs["mmd2"],
            threshold=found.outputs["threshold"],
            report_uri=found.outputs["report_uri"],
            verdict=found.outputs["verdict"],
            path=said,
        )


def placed(profile: Profile) -> Any:
    """Return a pipeline whose one task is placed by a profile."""

    @dsl.pipeline(name="placed")
    def placed(names: list, path: str):
        profile.place(write_variables(names=names, path=path))

    return placed
