from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from driftline.components.errors import UsageError
from driftline.components.mmd import two_sample_test
from driftline.components.projection.pca import PCA, gather
from driftline.components.storage.objects.store import read_json
from driftline.pipelines.catalogue import PIPELINES
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.profile import Profile
from tests.support.datasets import write_embeddings, write_texts
from tests.support.ir_lint import documents, problems

GOLDEN = Path(__file__).parents[2] / "pipelines" / "yaml"

# A golden file is loaded and run as a user's own script would: in a process of its own, with KFP's local runner.
RUN = """
import json, sys
from kfp import components, local
path, root, arguments = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root + "/a", workspace_root=root + "/w")
components.load_component_from_file(path)(**json.loads(arguments))
"""


def run_golden(name: str, arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, str(GOLDEN / f"driftline-{name}.yaml"), str(root), arguments]
    # KFP's tasks leave files in the temporary folder.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "TMPDIR": str(root)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)


def test_every_input_is_described():
    """Inputs of pipelines and of steps; KFP gives outputs no description of their own."""
    for name in PIPELINES:
        spec, _ = documents(compile_pipeline(name, Profile()))
        inputs = dict(spec["root"]["inputDefinitions"]["parameters"])
        for component in spec["components"].values():
            if "executorLabel" in component:
                for definitions in component["inputDefinitions"].values():
                    inputs.update(definitions)
        assert len(inputs) > 10
        assert [key for key, value in inputs.items() if not value.get("description")] == []


def test_images_and_gpus_are_the_profiles():
    images = {name: f"registry.example/{name}@sha256:{'0' * 64}" for name in ("embed", "kernels")}
    spec, platform = documents(compile_pipeline("drift", Profile(images=images, gpu=frozenset({"kernels"}))))
    executors = spec["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {images["kernels"]}
    with_gpu = {name for name, executor in executors.items() if "accelerator" in executor["container"]["resources"]}
    assert with_gpu == {"exec-kernel-sums"}
    accelerator = executors["exec-kernel-sums"]["container"]["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-kernel-sums"]
    assert settings["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_the_models_volume_is_mounted_where_a_model_is_read():
    compiled = compile_pipeline("backfill", Profile(model_claim="models"))
    assert list(problems(compiled)) == []
    spec, platform = documents(compiled)
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in ("exec-plan-backfill", "exec-embed", "exec-finish-backfill"):
        [mount] = settings[name]["pvcMount"]
        assert (mount["pvcNameParameter"]["runtimeValue"]["constant"], mount["mountPath"]) == (
            "models",
            Profile(model_claim="models").model_cache,
        )
    assert "/var/cache/driftline/models" in str(spec["root"])
    without = compile_pipeline("backfill", Profile())
    assert "pvcMount" not in without
    assert "/var/cache/driftline" not in without


def test_unknown_pipeline():
    with pytest.raises(UsageError, match="pipeline: unknown 'rift'; choose one of: backfill, drift"):
        compile_pipeline("rift", Profile())


@pytest.mark.slow
def test_golden_drift_pipeline_runs_here_and_gives_the_librarys_numbers(tmp_path):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 40)).astype(np.float32), rng.normal(0.15, 1.0, size=(260, 40)).astype(np.float32)
    reference = write_embeddings(str(tmp_path / "x"), x, rows_per_shard=70, texts=[f"text {i}" for i in range(300)])
    current = write_embeddings(str(tmp_path / "y"), y, rows_per_shard=1000)
    done = run_golden(
        "drift",
        f'{{"reference": "{reference}", "current": "{current}", "output_folder": "{tmp_path}/out", '
        '"pca_components": 8, "test_permutations": 99, "kernel_tasks": 3, "seed": 5}',
        tmp_path,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    result = read_json(str(tmp_path / "out" / "result.json"))
    pooled = np.concatenate([x, y])
    z = PCA.fit(gather([pooled]), 8).project(pooled).astype(np.float32)
    expected = two_sample_test(z[:300], z[300:], permutations=99, seed=5)
    assert result["statistic"] == pytest.approx(expected.statistic, rel=1e-4)
    assert result["p_value"] == expected.p_value
    assert result["kernels"][result["leading_kernel"]]["gamma"] == pytest.approx(expected.gamma, rel=1e-9)
    assert len(read_json(str(next((tmp_path / "out" / "history").iterdir())))) > 5
    assert "<script" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out" / "work").rglob("*.parquet"))


@pytest.mark.slow
def test_golden_backfill_pipeline_runs_here(tmp_path, model_folder):
    texts = [f"text number {i} about {'rain' if i % 2 else 'sun'}" for i in range(50)]
    write_texts(tmp_path / "texts" / "a.jsonl", texts[:30], "a")
    write_texts(tmp_path / "texts" / "b.jsonl", texts[30:], "b")
    done = run_golden(
        "backfill",
        f'{{"text_files": ["{tmp_path}/texts"], "model": "{model_folder}", "output_folder": "{tmp_path}/out", '
        '"embed_tasks": 2}',
        tmp_path,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    manifest = read_json(str(tmp_path / "out" / "manifest.json"))
    assert [shard["rows"] for shard in manifest["shards"]] == [50]
