from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
import yaml
from google.protobuf import json_format
from kfp.components import load_component_from_file
from kfp.pipeline_spec import pipeline_spec_pb2

from driftline.components import images
from driftline.components.storage.objects.store import read_bytes
from driftline.pipelines import cli
from driftline.pipelines.catalogue import COMPONENTS, PIPELINES
from driftline.pipelines.choices import CHOICES
from driftline.pipelines.compiled import compile_pipeline, explain, steps_of, steps_with_gpu, version_of
from driftline.pipelines.parameters import brief, declared
from driftline.pipelines.profile import STEPS, Profile
from tests.support.command import listing, refused
from tests.support.ir_lint import documents, problems, refusals

YAML = Path(__file__).parents[3] / "pipelines" / "yaml"
CRDS = Path(__file__).parents[4] / "shared" / "crds"
EMBED = f"host/embed@sha256:{'1' * 64}"
KERNELS = f"host/kernels@sha256:{'2' * 64}"


def compiled(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Compile, and return the files that the command says it wrote."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["compile", *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    return printed.out.splitlines()


def image_of(text: str) -> set[str]:
    return set(re.findall(r"image: (\S+)", text))


@pytest.mark.parametrize(("arguments", "name"), [([], "drift"), (["drift"], "drift"), (["backfill"], "backfill")])
def test_a_pipeline(tmp_path, capsys, arguments, name):
    out = tmp_path / "made" / "pipeline.yaml"
    assert compiled(capsys, *arguments, "--out", str(out)) == [str(out)]
    assert out.read_text(encoding="utf-8") == compile_pipeline(name, Profile())


def test_options_are_in_what_is_compiled(tmp_path, capsys):
    out = tmp_path / "pipeline.yaml"
    compiled(
        capsys, "backfill", "--out", str(out), "--image", f"embed={EMBED}", "--gpu", "embed", "--model-claim", "models",
        "--node-selector", "pool=gpu", "--node-selector", "cloud.google.com/gke-accelerator=nvidia-l4",
    )  # fmt: skip
    text = out.read_text(encoding="utf-8")
    labels = {"pool": "gpu", "cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert list(problems(text, selectors=labels.items())) == []
    assert image_of(text) == {EMBED}
    _, platform = documents(text)
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name: one["nodeSelector"]["labels"] for name, one in settings.items() if "nodeSelector" in one} == {
        "exec-embed": labels
    }
    assert {name for name, one in settings.items() if "pvcMount" in one} == settings.keys()


@pytest.mark.parametrize(("gpu", "pods"), [("kernels", {"kernel-sums"}), ("none", set())])
def test_gpus_of_a_fan_out(tmp_path, capsys, gpu, pods):
    compiled(capsys, "drift", "--out", str(tmp_path / "drift.yaml"), "--gpu", gpu)
    assert steps_with_gpu((tmp_path / "drift.yaml").read_text(encoding="utf-8")) == pods


def test_options_count_before_the_profile(tmp_path, capsys):
    profile = tmp_path / "cluster.yaml"
    profile.write_text(
        f"images: {{embed: {EMBED}, kernels: {KERNELS}}}\nmodel_claim: old\ngpu_node_selector: {{pool: old, zone: a}}\n"
        "labels: {team: search}\nsteps: {embed: {gpus: 4}}\n",
        encoding="utf-8",
    )
    out = tmp_path / "backfill.yaml"
    compiled(
        capsys, "backfill", "--out", str(out), "--profile", str(profile), "--image", "embed=host/embed:7",
        "--node-selector", "pool=new", "--model-claim", "new",
    )  # fmt: skip
    text = out.read_text(encoding="utf-8")
    assert image_of(text) == {"host/embed:7"}
    assert set(re.findall(r"constant: (old|new)$", text, re.MULTILINE)) == {"new"}
    embed = documents(text)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-embed"]
    assert embed["nodeSelector"]["labels"] == {"pool": "new", "zone": "a"}
    assert embed["podMetadata"]["labels"] == {"team": "search"}
    # One profile serves both pipelines, and a step's GPUs are of no matter where an option says none.
    compiled(capsys, "drift", "--out", str(out), "--profile", str(profile))
    compiled(capsys, "backfill", "--out", str(out), "--profile", str(profile), "--gpu", "none")
    assert "accelerator" not in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_compiles_loads_and_passes_the_lint(tmp_path, capsys, name):
    out = tmp_path / "component.yaml"
    reference = EMBED if STEPS[name].image == "embed" else KERNELS
    compiled(capsys, name, "--out", str(out), "--image", f"{STEPS[name].image}={reference}")
    text = out.read_text(encoding="utf-8")
    assert list(problems(text, placed=False)) == []
    assert image_of(text) == {reference}
    assert steps_of(text) == {name}
    [spec] = yaml.safe_load_all(text)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    loaded = load_component_from_file(str(out))
    assert loaded.name == name
    assert loaded.component_spec.inputs.keys() == COMPONENTS[name].component_spec.inputs.keys()
    # The component itself, which pipelines in this process use, keeps its own image.
    own: Any = COMPONENTS[name].component_spec.implementation
    assert own.container.image == images.DEFAULTS[STEPS[name].image]


def test_a_component_takes_its_image_from_a_profile(tmp_path, capsys):
    profile = tmp_path / "cluster.yaml"
    profile.write_text(f"images: {{kernels: {KERNELS}}}\n", encoding="utf-8")
    compiled(capsys, "fit", "--out", str(tmp_path / "fit.yaml"), "--profile", str(profile))
    assert image_of((tmp_path / "fit.yaml").read_text(encoding="utf-8")) == {KERNELS}


def test_everything_at_once(tmp_path, capsys):
    out = tmp_path / "all"
    written = compiled(
        capsys, "--all", "--out", str(out), "--image", f"embed={EMBED}", "--gpu", "kernels", "--gpu", "embed"
    )
    names = {f"driftline-{name}.{kind}" for name in PIPELINES for kind in ("yaml", "md")}
    names |= {f"{name}.yaml" for name in COMPONENTS}
    assert listing(out) == sorted(names)
    assert sorted(written) == sorted(str(out / name) for name in names)
    assert image_of((out / "embed.yaml").read_text(encoding="utf-8")) == {EMBED}
    for name in PIPELINES:
        text = (out / f"driftline-{name}.yaml").read_text(encoding="utf-8")
        # The UI names an uploaded pipeline after its file, up to the first dot.
        assert documents(text)[0]["pipelineInfo"]["name"] == f"driftline-{name}"
        assert list(problems(text)) == []
        assert len(steps_with_gpu(text)) == 1


# What parameters take.


def without_literals(document: Any) -> Any:
    """Return a document without the literals of its parameters."""
    if isinstance(document, dict):
        return {key: without_literals(value) for key, value in document.items() if key != "literals"}
    return [without_literals(one) for one in document] if isinstance(document, list) else document


@pytest.mark.parametrize("name", PIPELINES)
def test_choices_are_written_beside_what_is_compiled_anyway(tmp_path, capsys, name):
    out = tmp_path / "pipeline.yaml"
    profile = Profile(gpu=frozenset({"embed", "kernels"}))
    compiled(capsys, name, "--out", str(out), "--choices", "--gpu", "embed" if name == "backfill" else "kernels")
    text, plain = out.read_text(encoding="utf-8"), compile_pipeline(name, profile)
    parameters = documents(text)[0]["root"]["inputDefinitions"]["parameters"]
    assert {key: one["literals"] for key, one in parameters.items() if "literals" in one} == {
        **{key: list(words) for key, words in CHOICES[name].items()},
        **{key: [False, True] for key, one in parameters.items() if one["parameterType"] == "BOOLEAN"},
    }
    assert [without_literals(one) for one in documents(text)] == list(documents(plain))
    # Comments and order stay, too: lines are added, and none is changed.
    lines = iter(text.splitlines())
    assert all(line in lines for line in plain.splitlines())
    assert version_of(text) != version_of(plain)


def test_all_pipelines_offer_choices_and_components_none(tmp_path, capsys):
    compiled(capsys, "--all", "--out", str(tmp_path), "--choices")
    offering = {path.name for path in tmp_path.glob("*.yaml") if "literals" in path.read_text(encoding="utf-8")}
    assert offering == {f"driftline-{name}.yaml" for name in PIPELINES}


@pytest.mark.parametrize("name", PIPELINES)
def test_releases_before_2_16_refuse_choices(name):
    found = [str(one) for one in refusals(compile_pipeline(name, Profile(), choices=True))]
    assert len(found) > len(CHOICES[name])
    assert all(one.endswith("literals is unknown (KFP 2.14.4, 2.15.0)") for one in found)
    assert list(refusals(compile_pipeline(name, Profile()))) == []


@pytest.mark.parametrize("name", PIPELINES)
def test_the_page_of_a_pipeline_holds_what_to_paste_and_every_parameter(tmp_path, capsys, name):
    compiled(capsys, "--all", "--out", str(tmp_path))
    spec = documents((tmp_path / f"driftline-{name}.yaml").read_text(encoding="utf-8"))[0]
    page = (tmp_path / f"driftline-{name}.md").read_text(encoding="utf-8")
    # The box of Kubeflow's UI has one line, and what is in it travels in a URL.
    [pasted] = page.partition("```text\n")[2].partition("\n```")[0].splitlines()
    assert pasted.startswith(spec["pipelineInfo"]["description"])
    assert len(quote(pasted, safe="")) < 6000
    for parameter, one in spec["root"]["inputDefinitions"]["parameters"].items():
        assert f"`{parameter}` " in pasted
        assert f"\n| `{parameter}` | " in page
        assert one["description"].split()[0] in page
    for words in CHOICES[name].values():
        assert f"one of {', '.join(f'`{word}`' if word else 'nothing' for word in words)} |" in page


@pytest.mark.parametrize("name", PIPELINES)
def test_the_pages_of_the_repository_are_up_to_date(name):
    page = (YAML / f"driftline-{name}.md").read_text(encoding="utf-8")
    assert explain(name, compile_pipeline(name, Profile())) == page, "run `make golden` and review its diff"


PROFILE = "steps: {embed: {timeout: 7h}}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("drift --image embed=host/embed:1", "--image embed: no task of drift runs in it; expected kernels"),
        ("backfill --image kernels=host/k:1", "--image kernels: no task of backfill runs in it; expected embed"),
        ("sample --image embed=host/embed:1", "--image embed: no task of sample runs in it; expected kernels"),
        ("drift --model-claim models", "--model-claim: no task of drift reads a model; expected the pipeline backfill"),
        ("drift --gpu embed", "--gpu embed: drift has no such tasks; expected kernels, or none"),
        ("drift --gpu embed --gpu kernels", "--gpu embed: drift has no such tasks; expected kernels, or none"),
        ("backfill --gpu kernels", "--gpu kernels: backfill has no such tasks; expected embed, or none"),
        (
            "backfill --gpu none --gpu embed",
            "Invalid value for '--gpu': expected none alone or fan-outs, got none, embed; see driftline compile --help",
        ),
        (
            "drift --node-selector pool=gpu",
            "--node-selector: no task of drift asks for a GPU as it is compiled; expected --gpu kernels beside it, or "
            "node_selector in a profile for all tasks",
        ),
        (
            "backfill --node-selector pool=gpu --gpu none",
            "--node-selector: no task of backfill asks for a GPU as it is compiled; expected --gpu embed beside it, or "
            "node_selector in a profile for all tasks",
        ),
        (
            "kernel-sums --gpu kernels",
            "--gpu: expected a pipeline; kernel-sums is a component, placed by who makes a task of it",
        ),
        (
            "embed --node-selector pool=gpu",
            "--node-selector: expected a pipeline; embed is a component, placed by who makes a task of it",
        ),
        (
            "embed --model-claim models",
            "--model-claim: expected a pipeline; embed is a component, placed by who makes a task of it",
        ),
        (
            "embed --profile cluster.yaml",
            "--profile: expected images.embed in cluster.yaml: of a profile, a component takes its image only",
        ),
        ("drift --namespace ml", "--namespace: expected --format kubernetes beside it, as other files hold none"),
        ("drift --version-name a", "--version-name: expected --format kubernetes beside it, as other files hold none"),
        ("fit --format kubernetes", "--format kubernetes: expected a pipeline, backfill or drift, got fit"),
        ("--all --format kubernetes", "--format kubernetes: expected a pipeline, backfill or drift, got --all"),
        ("drift --all", "--all: expected no name beside it, got drift"),
        ("fit --choices", "--choices: expected a pipeline, backfill or drift; fit is a component, without a form"),
        (
            "drift --format kubernetes --namespace A",
            "Invalid value for '--namespace': expected a Kubernetes name of a-z, 0-9 and -, got 'A'; see driftline "
            "compile --help",
        ),
        (
            "drift --format kubernetes --version-name v_1",
            "Invalid value for '--version-name': expected a Kubernetes name of a-z, 0-9 and -, got 'v_1'; see "
            "driftline compile --help",
        ),
        (
            "drift --gpu kernels --node-selector pool",
            "Invalid value for '--node-selector': expected KEY=VALUE, got 'pool'; see driftline compile --help",
        ),
        (
            "drift --gpu kernels --node-selector a=1 --node-selector a=2",
            "Invalid value for '--node-selector': expected a once, got a=1 and a=2; see driftline compile --help",
        ),
        (
            "drift --image kernels=host/kernels",
            "options: images.kernels: expected an image with its digest, or with a version as its tag: what runs must "
            'not change unseen, got "host/kernels"',
        ),
        (
            "backfill --profile volumes.yaml --model-claim data",
            "volumes.yaml with the options: volumes.data: expected another claim than model_claim: a task can mount "
            "each once",
        ),
        ("drift --profile broken.yaml", "broken.yaml: retrys: unknown; did you mean retries?"),
    ],
)
def test_an_option_without_effect_or_sense_is_refused_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    files = {"cluster.yaml": PROFILE, "volumes.yaml": "volumes: {data: /data}\n", "broken.yaml": "retrys: 3\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, 2, "compile", *arguments.split(), "--out", "out") == message
    assert listing(tmp_path) == sorted(files)


def test_an_unknown_name_is_told_the_names(tmp_path, capsys):
    message = refused(capsys, 2, "compile", "kernel", "--out", str(tmp_path / "o.yaml"))
    assert message.startswith("pipeline: unknown 'kernel'; choose one of: backfill, drift; or of the components: ")
    assert all(name in message for name in COMPONENTS)


def test_a_profile_that_is_not_there(tmp_path, capsys):
    path = tmp_path / "cluster.yaml"
    message = refused(capsys, 1, "compile", "--out", str(tmp_path / "o.yaml"), "--profile", str(path))
    assert message.startswith(f"{path}: cannot read: there is no such file")


# Kubernetes objects.


def objects(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    compiled(capsys, *arguments, "--out", str(out), "--format", "kubernetes")
    pipeline, version = yaml.safe_load_all(read_bytes(str(out)))
    return pipeline, version


@pytest.mark.parametrize("name", PIPELINES)
def test_kubernetes_objects_hold_what_would_be_uploaded(tmp_path, capsys, name):
    pipeline, version = objects(capsys, tmp_path / "o.yaml", name, "--namespace", "ml")
    text = compile_pipeline(name, Profile())
    spec, platform = documents(text)
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert {one["apiVersion"] for one in (pipeline, version)} == {"pipelines.kubeflow.org/v2beta1"}
    assert pipeline["metadata"] == {"name": f"driftline-{name}", "namespace": "ml"}
    assert version["metadata"] == {"name": version_of(text), "namespace": "ml"}
    assert version["spec"]["pipelineName"] == f"driftline-{name}"
    assert (version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]) == (spec, platform)
    # The UI shows both descriptions on one card.
    assert pipeline["spec"]["description"] == spec["pipelineInfo"]["description"]
    assert version["spec"]["description"] == brief(declared(spec))
    assert re.fullmatch(rf"driftline-{name}-{re.escape(images.VERSION)}-[0-9a-f]{{12}}", version_of(text))


@pytest.mark.parametrize("name", PIPELINES)
def test_kubernetes_objects_keep_to_their_definitions(tmp_path, capsys, name):
    if not CRDS.is_dir():
        pytest.skip(f"the definitions of Pipeline and PipelineVersion are not here: no {CRDS}")
    for one in objects(capsys, tmp_path / "o.yaml", name, "--namespace", "ml", "--version-name", "v1.2"):
        schema = json.loads((CRDS / f"pipelines.kubeflow.org_v2beta1_{one['kind']}.json").read_text(encoding="utf-8"))
        jsonschema.validate(one, strict(schema))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**one, "spec": {**one["spec"], "unheardOf": 1}}, strict(schema))


@pytest.mark.parametrize("name", PIPELINES)
def test_kubernetes_objects_offer_choices(tmp_path, capsys, name):
    pipeline, version = objects(capsys, tmp_path / "o.yaml", name, "--choices")
    text = compile_pipeline(name, Profile(), choices=True)
    spec, platform = documents(text)
    assert (version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]) == (spec, platform)
    assert version["metadata"]["name"] == version_of(text)
    assert "literals" not in str(pipeline)


def strict(schema: Any) -> Any:
    """Return a definition under which no other keys are valid; Kubernetes drops them without a word."""
    if isinstance(schema, dict):
        closed = {key: strict(value) for key, value in schema.items()}
        free = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
        return {**closed, "additionalProperties": False} if "properties" in schema and not free else closed
    return schema


def test_a_change_is_another_version():
    texts = [
        compile_pipeline("drift", profile)
        for profile in (Profile(), Profile(), Profile(retries=2), Profile(images={"kernels": "host/kernels:2"}))
    ]
    first, again, *others = map(version_of, texts)
    assert first == again
    assert len({first, *others}) == 3


def test_the_objects_leave_the_namespace_to_who_applies_them(tmp_path, capsys):
    for one in objects(capsys, tmp_path / "o.yaml", "drift"):
        assert "namespace" not in one["metadata"]


def test_help_comes_without_kfp_or_pydantic():
    """`driftline --help` answers at once: what takes seconds to import stands in the commands."""
    code = (
        "import sys, driftline.pipelines.cli; print([one for one in ('kfp', 'pydantic', 'yaml') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert importlib.util.find_spec("kfp")
