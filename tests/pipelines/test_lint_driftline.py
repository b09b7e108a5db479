"""What Driftline itself compiles keeps to the lint, and its components' programs start in a step."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import yaml
from kfp.compiler import Compiler

from driftline.components import images
from driftline.pipelines import examples
from driftline.pipelines.catalogue import COMPONENTS, PIPELINES
from driftline.pipelines.compiled import compile_component, compile_pipeline
from driftline.pipelines.profile import Profile
from tests.support.compiled_ir import documents
from tests.support.ir_lint import problems

EVERY_OPTION: dict[str, dict[str, Any]] = {
    "as they come": {},
    "no GPU": {"gpu": frozenset()},
    "GPUs for both": {"gpu": frozenset({"embed", "kernels"})},
    "GPUs of another make": {"gpu": frozenset({"embed", "kernels"}), "gpu_resource": "amd.com/gpu", "gpus": 2},
    "models' volume": {"model_claim": "models"},
    "images by digest": {"images": {name: f"registry.example/{name}@sha256:{'0' * 64}" for name in images.DEFAULTS}},
    "long, and retried often": {"timeout": timedelta(days=2), "retries": 10},
}

# Every example's pipeline is a function by the name of its module.
EXAMPLES: dict[str, Callable[[Profile], Any]] = {
    name: getattr(module, name)
    for _, name, _ in pkgutil.iter_modules(examples.__path__)
    for module in [importlib.import_module(f"{examples.__name__}.{name}")]
    if hasattr(module, name)
}


@pytest.mark.parametrize("option", EVERY_OPTION)
@pytest.mark.parametrize("name", PIPELINES)
def test_the_pipelines_have_no_problem_with_any_option(name, option):
    assert list(problems(compile_pipeline(name, Profile(**EVERY_OPTION[option])))) == []


@pytest.mark.parametrize("step", ["fail-on-drift", "report"])
def test_what_fails_on_purpose_alone_is_not_tried_again(step):
    spec, platform = documents(compile_pipeline("drift", Profile()))
    dags = [spec["root"]["dag"], *(one["dag"] for one in spec["components"].values() if "dag" in one)]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items()}
    if tasks[step].pop("retryPolicy", None) is None:
        tasks[step]["retryPolicy"] = tasks["report"]["retryPolicy"]
    [problem] = problems(yaml.safe_dump_all([spec, platform]))
    assert problem.endswith(
        "fail-on-drift: retried, and fails on purpose" if step == "fail-on-drift" else "report: not retried"
    )


def test_the_examples_are_found():
    assert EXAMPLES.keys() >= {"gated_drift", "kernel_sums_alone", "nightly"}


@pytest.mark.parametrize("gpu", [frozenset(), frozenset({"embed", "kernels"})], ids=["no GPU", "GPUs"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_have_no_problem(name, gpu, tmp_path):
    path = tmp_path / "pipeline.yaml"
    Compiler().compile(EXAMPLES[name](Profile(gpu=gpu)), str(path))
    assert list(problems(path.read_text(encoding="utf-8"))) == []


# What a step's container does first: its program is a module of its own, with a kfp that has been cut down.
START = "import sys; exec(compile(sys.stdin.read(), 'ephemeral', 'exec'), {'__name__': 'ephemeral'})"


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_components_programs_start_as_they_do_in_a_step(name):
    spec, _ = documents(compile_component(name, Profile()))
    [container] = [executor["container"] for executor in spec["deploymentSpec"]["executors"].values()]
    program = container["command"][-1]
    assert program.lstrip().startswith("import kfp")
    done = subprocess.run(
        [sys.executable, "-c", START],
        input=program,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONSAFEPATH": "1", "_KFP_RUNTIME": "true"},
    )
    assert done.returncode == 0, done.stderr
