"""The components as a collection: each folder's README, metadata and compiled YAML are what its declarations say."""

# KFP reads the annotations of the components below itself: no `from __future__ import annotations` here.

import importlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from google.protobuf import json_format
from kfp import dsl
from kfp.compiler import Compiler
from kfp.components import load_component_from_file
from kfp.dsl.types.type_utils import InconsistentTypeException
from kfp.pipeline_spec import pipeline_spec_pb2

from driftline.components import images
from driftline.components.declaration import Component
from driftline.components.embedding.component import embed, finish_backfill, plan_backfill
from driftline.components.kernel.component import kernel_sums, plan
from driftline.components.mmd.component import mmd_test, report
from driftline.components.notification.component import fail_on_drift, notify
from driftline.components.projection.component import fit, project
from driftline.components.projection.pca import PCA, gather
from driftline.components.projection.projected import Projection
from driftline.components.sampling.component import sample
from driftline.components.storage.objects.values import read_value
from driftline.pipelines.catalogue import COMPONENTS, PIPELINES
from driftline.pipelines.compiled import compile_component, compile_pipeline
from driftline.pipelines.profile import Profile
from tests.support.component_readmes import BEGIN, END, by_folder, tables, written
from tests.support.datasets import write_embeddings
from tests.support.ir_lint import documents, problems
from tests.support.kfp_local import run_locally
from tests.support.kfp_refusals import RELEASES
from tests.support.readme_code import blocks, pipelines, run_blocks

ROOT = Path(__file__).parents[2]
YAML = ROOT / "pipelines" / "yaml"
FOLDERS = sorted(path.parent for path in (ROOT / "components").glob("*/component.py"))
READMES = [*(folder / "README.md" for folder in FOLDERS), ROOT / "components" / "README.md"]
READMES += [ROOT / "pipelines" / "examples" / "README.md"]
NO_ROWS = {"reference": "x", "current": "y", "output_folder": "z"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def declared(folder: Path) -> dict[str, Component]:
    """Return the components that a folder's component.py declares, by KFP's names."""
    module = importlib.import_module(f"driftline.components.{folder.name}.component")
    return {value.name: value for value in vars(module).values() if isinstance(value, Component)}


def test_every_declared_component_is_in_the_catalogue():
    assert sorted(by_folder()) == FOLDERS
    for folder, listed in by_folder().items():
        assert {one.name: one for one in listed} == declared(folder)


# READMEs


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_a_readmes_tables_are_the_declarations(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    generated = tables(by_folder()[folder])
    assert written(readme, generated) == readme, "run `make golden` and review its diff"
    for component in declared(folder).values():
        assert f"### {component.python_func.__name__}\n" in readme
        spec = component.component_spec
        for name in [*spec.inputs, *(spec.outputs or {})]:
            rows = [line for line in generated.splitlines() if line.startswith(f"| `{name}` |")]
            assert rows, name
            assert all(line.split(" | ")[-1].strip(" |") for line in rows), f"{name} is not described"


def test_a_stale_table_is_found_and_what_is_written_by_hand_stays():
    generated = tables([sample])
    stale = f"# By hand\n\n{BEGIN}\n\n{generated.replace('32', '16')}\n{END}\nMore.\n"
    assert written(stale, generated) != stale
    assert written(stale, generated) == f"# By hand\n\n{BEGIN}\n\n{generated}\n{END}\nMore.\n"
    with pytest.raises(ValueError, match="expected the marks"):
        written("# By hand alone\n", generated)


@pytest.mark.parametrize("readme", READMES, ids=named)
def test_a_readmes_examples_compile(readme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them writes a file
    assert blocks(readme)
    found = pipelines(run_blocks(readme, tmp_path))
    if readme.parent in FOLDERS:
        assert found, "no example"
    for name, pipeline in found.items():
        path = tmp_path / f"{name}.yaml"
        Compiler().compile(pipeline, str(path))
        assert list(problems(path.read_text(encoding="utf-8"), placed=False)) == [], name


def test_every_folder_and_every_link_of_the_readmes_is_there():
    overview = (ROOT / "components" / "README.md").read_text(encoding="utf-8")
    for folder in FOLDERS:
        assert f"]({folder.name}/README.md)" in overview
        metadata = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        for link in [*metadata["links"].values(), *(one["compiled"] for one in metadata["components"])]:
            assert (folder / link).is_file(), link
        for component in declared(folder):
            assert f"(../../pipelines/yaml/{component}.yaml)" in (folder / "README.md").read_text(encoding="utf-8")


# metadata.yaml


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_the_metadata_names_the_folders_components(folder):
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    listed = {one["name"]: (one["image"], one["compiled"]) for one in metadata["components"]}
    assert listed == {
        name: (component.image, f"../../pipelines/yaml/{name}.yaml") for name, component in declared(folder).items()
    }
    assert metadata["stability"] == "beta"
    assert len(metadata["tags"]) == len(set(metadata["tags"])) >= 3
    assert metadata["lastVerified"].tzinfo is not None


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_the_supported_versions_are_those_of_the_package_and_of_the_lint(folder):
    [pipelines_] = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))["dependencies"]["kubeflow"]
    assert pipelines_["name"] == "Pipelines"
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for library in ("kfp", "kfp-kubernetes"):
        assert f"{library}{pipelines_['version']}" in extra["pipelines"]
    assert pipelines_["backends"] == [release.rpartition(".")[0] for release in RELEASES]
    overview = (ROOT / "components" / "README.md").read_text(encoding="utf-8")
    assert f"Kubeflow Pipelines {pipelines_['backends'][0]} to {pipelines_['backends'][-1]}" in overview


# Compiled YAML


def test_there_is_a_file_for_every_pipeline_and_component_and_no_other():
    expected = {f"driftline-{name}.{kind}" for name in PIPELINES for kind in ("yaml", "md")}
    expected |= {f"{name}.yaml" for name in COMPONENTS}
    assert {path.name for path in YAML.iterdir()} == expected


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipelines_file_is_what_is_compiled(name):
    golden = (YAML / f"driftline-{name}.yaml").read_text(encoding="utf-8")
    assert documents(compile_pipeline(name, Profile())) == documents(golden), "run `make golden` and review its diff"


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_components_file_is_what_is_compiled_and_what_every_release_takes(name):
    golden = (YAML / f"{name}.yaml").read_text(encoding="utf-8")
    spec, platform = documents(golden)
    assert documents(compile_component(name, Profile())) == (spec, platform), "run `make golden` and review its diff"
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    assert list(problems(golden, placed=False)) == []
    [executor] = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"] == images.DEFAULTS[COMPONENTS[name].image]


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_loaded_from_its_file_has_the_inputs_and_defaults_of_the_declaration(name):
    loaded, ours = load_component_from_file(str(YAML / f"{name}.yaml")).component_spec, COMPONENTS[name].component_spec
    assert {key: (one.type, one.default) for key, one in loaded.inputs.items()} == {
        key: (one.type, one.default) for key, one in ours.inputs.items()
    }
    assert (loaded.outputs or {}).keys() == (ours.outputs or {}).keys()


@pytest.mark.slow
def test_components_from_files_run_here_and_give_the_librarys_numbers(tmp_path):
    rng = np.random.default_rng(11)
    x, y = (rng.normal(size=(rows, 40)).astype(np.float32) for rows in (90, 70))
    reference, current = write_embeddings(str(tmp_path / "x"), x), write_embeddings(str(tmp_path / "y"), y)
    code = f"""
sample, fit = (components.load_component_from_file("{YAML}/" + name + ".yaml") for name in ("sample", "fit"))

@dsl.pipeline(name="from-files")
def made(reference: str, current: str, out: str) -> dsl.Artifact:
    pooled = sample(reference=reference, current=current, output_folder=out, pca_components=4).outputs["pooled_sample"]
    return fit(pooled_sample=pooled).outputs["pca_projection"]
"""
    run = run_locally(code, tmp_path / "run", reference=reference, current=current, out=str(tmp_path / "out"))
    assert run.succeeded, run.log[-3000:]
    fitted = read_value(run.outputs["Output"]["uri"], Projection)
    expected = PCA.fit(gather([np.concatenate([x, y])]), 4)
    np.testing.assert_allclose(fitted.pca.components[:4], expected.components, atol=1e-6)


# Wirings


@dsl.component(base_image="python:3.11-slim")
def note(text: str, number: float, choice: bool):
    pass


def wired(name: str) -> None:
    """Wire one component as it must not be; named by what is wrong."""
    sampled = sample(**NO_ROWS)
    pooled = sampled.outputs["pooled_sample"]
    fitted = fit(pooled_sample=pooled).outputs["pca_projection"]
    projected = project(pooled_sample=pooled, pca_projection=fitted).outputs["projected_sample"]
    planned = plan(projected_sample=projected)
    kernel_plan = planned.outputs["kernel_plan"]
    tested = mmd_test(kernel_plan=kernel_plan)
    backfill = plan_backfill(text_files=["x"], model="m", output_folder="o")
    outcome, witness = (tested.outputs[name] for name in ("test_outcome", "test_witness"))
    told = report(test_outcome=outcome, test_witness=witness).outputs
    notify(report_uri=told["report_uri"])
    found = tested.outputs
    wrong = {
        "nothing": lambda: note(text=found["verdict"], number=found["p_value"], choice=found["drift"]),
        "a plan for projected vectors": lambda: plan(projected_sample=kernel_plan),
        "projected vectors for a plan": lambda: mmd_test(kernel_plan=projected),
        "a sample for a projection": lambda: project(pooled_sample=pooled, pca_projection=pooled),
        "a projection for a sample": lambda: fit(pooled_sample=fitted),
        "an outcome for a witness": lambda: report(test_outcome=outcome, test_witness=outcome),
        "a result for its report's place": lambda: fail_on_drift(report_uri=told["drift_result"]),
        "a backfill's plan for the kernels'": lambda: kernel_sums(
            share={}, kernel_plan=backfill.outputs["backfill_plan"]
        ),
        "the kernels' plan for a backfill's": lambda: embed(share={}, backfill_plan=kernel_plan),
        "a result for a plan": lambda: finish_backfill(backfill_plan=told["drift_result"]),
        "an artifact for a number": lambda: sample(**NO_ROWS, pca_components=kernel_plan),
        "a text for a number": lambda: note(text="", number=told["report_uri"], choice=True),
        "a p-value for a verdict": lambda: note(text="", number=0.5, choice=found["p_value"]),
    }  # fmt: skip
    wrong[name]()


WRONG = [
    "a plan for projected vectors",
    "projected vectors for a plan",
    "a sample for a projection",
    "a projection for a sample",
    "an outcome for a witness",
    "a result for its report's place",
    "a backfill's plan for the kernels'",
    "the kernels' plan for a backfill's",
    "a result for a plan",
    "an artifact for a number",
    "a text for a number",
    "a p-value for a verdict",
]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_wiring_fails_when_the_pipeline_is_made(name):
    with pytest.raises(InconsistentTypeException, match="Incompatible argument"):

        @dsl.pipeline(name="wrong")
        def pipeline():
            wired(name)


def test_the_right_wiring_does_not():
    @dsl.pipeline(name="right")
    def pipeline():
        wired("nothing")

    assert len(pipeline.pipeline_spec.root.dag.tasks) == 9
