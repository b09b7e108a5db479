"""A component's image is chosen when a task is made of it or YAML is written, not when it is imported."""

# KFP reads the annotations of the component below itself: no `from __future__ import annotations` here.

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.compiler import Compiler

from driftline.components import images
from driftline.components.declaration import component
from driftline.components.embedding.component import embed, finish_backfill, plan_backfill
from driftline.components.errors import UsageError
from driftline.components.sampling.component import sample
from driftline.pipelines.catalogue import COMPONENTS
from driftline.pipelines.compiled import compile_component, compile_pipeline
from driftline.pipelines.profile import Profile
from tests.support.ir_lint import documents

OURS = "registry.example/kernels:7"
DATASETS = {"reference": "x", "current": "y", "output_folder": "z"}


def images_of(compiled: str) -> dict[str, str]:
    """Return the images of a compiled pipeline or component by executor."""
    spec, _ = documents(compiled)
    return {name[5:]: one["container"]["image"] for name, one in spec["deploymentSpec"]["executors"].items()}


def compiled(made: Any, folder: Path) -> dict[str, str]:
    path = folder / "pipeline.yaml"
    Compiler().compile(made, str(path))
    return images_of(path.read_text(encoding="utf-8"))


def test_the_variable_counts_for_tasks_made_after_it(monkeypatch, tmp_path):
    @dsl.pipeline
    def before_and_after():
        monkeypatch.setenv(images.VARIABLE, f"kernels={OURS}")
        sample(**DATASETS)
        monkeypatch.setenv(images.VARIABLE, "kernels=registry.example/kernels:8")
        sample(**DATASETS)
        monkeypatch.delenv(images.VARIABLE)
        sample(**DATASETS)

    assert compiled(before_and_after, tmp_path) == {
        "sample": OURS,
        "sample-2": "registry.example/kernels:8",
        "sample-3": images.DEFAULTS["kernels"],
    }


def test_the_variable_counts_for_both_images_and_leaves_what_it_does_not_name(monkeypatch):
    monkeypatch.setenv(images.VARIABLE, " embed=host:5000/e@sha256:" + "1" * 64 + " , ")
    assert images.references() == {"embed": "host:5000/e@sha256:" + "1" * 64, "kernels": images.DEFAULTS["kernels"]}
    found = {name: images_of(compile_component(name, Profile()))[name] for name in COMPONENTS}
    assert found == {name: images.reference(one.image) for name, one in COMPONENTS.items()}
    assert len(set(found.values())) == 2


def test_a_component_compiled_by_itself_takes_the_image_of_now(monkeypatch, tmp_path):
    assert compiled(sample, tmp_path) == {"sample": images.DEFAULTS["kernels"]}
    monkeypatch.setenv(images.VARIABLE, f"kernels={OURS}")
    assert compiled(sample, tmp_path) == {"sample": OURS}


def test_a_tasks_own_image_and_a_profiles_count_before_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv(images.VARIABLE, f"kernels={OURS}")

    @dsl.pipeline
    def by_hand():
        sample(**DATASETS).set_container_image("registry.example/mine:1")
        Profile(images={"kernels": "registry.example/profile:1"}).place(sample(**DATASETS))
        Profile().place(sample(**DATASETS))

    assert list(compiled(by_hand, tmp_path).values()) == ["registry.example/mine:1", "registry.example/profile:1", OURS]
    drift = compile_pipeline("drift", Profile(images={"kernels": "registry.example/profile:1"}))
    assert set(images_of(drift).values()) == {"registry.example/profile:1"}


def test_one_task_s_image_is_no_other_s(tmp_path):
    @dsl.pipeline
    def two_of_them():
        planned = plan_backfill(text_files=["x"], model="m", output_folder="o").set_container_image(
            "registry.example/mine:1"
        )
        plan = planned.outputs["backfill_plan"]
        with dsl.ParallelFor(planned.outputs["Output"]) as share:
            embedded = embed(share=share, backfill_plan=plan)
        finish_backfill(backfill_plan=plan).after(embedded)

    default = images.DEFAULTS["embed"]
    assert compiled(two_of_them, tmp_path) == {
        "plan-backfill": "registry.example/mine:1",
        "embed": default,
        "finish-backfill": default,
    }


def test_a_component_of_ones_own_runs_in_an_image_of_driftlines_all_the_same(monkeypatch, tmp_path):
    @component(image="embed")
    def mine(number: int) -> int:
        return number + 1

    monkeypatch.setenv(images.VARIABLE, "embed=registry.example/e:2")

    @dsl.pipeline
    def with_mine():
        mine(number=1)

    assert compiled(with_mine, tmp_path) == {"mine": "registry.example/e:2"}
    assert mine.python_func(1) == 2


@pytest.mark.parametrize("value", ["kernels", "kernels=", "=x", "kernel=x", "kernels=x,embed", "a b=c"])
def test_a_wrong_variable_is_one_clear_line(value, monkeypatch):
    monkeypatch.setenv(images.VARIABLE, value)
    with pytest.raises(UsageError) as error:
        sample(**DATASETS)
    wrong = value.split(",")[-1]
    assert str(error.value) == (
        f"DRIFTLINE_IMAGES: expected NAME=REFERENCE with NAME one of embed, kernels, separated by commas, got {wrong!r}"
    )


def test_a_wrong_variable_does_not_matter_to_who_imports(tmp_path):
    """In a step's pod it may be set by whoever set it everywhere; a step makes no tasks."""
    code = "import driftline.pipelines.catalogue, driftline.components.images as i; print(i.DEFAULTS['embed'])"
    environment = {"DRIFTLINE_IMAGES": "nonsense", "PATH": "", "PYTHONSAFEPATH": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout.strip()) == (0, images.DEFAULTS["embed"]), done.stderr
