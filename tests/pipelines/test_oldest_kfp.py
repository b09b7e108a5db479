"""With the oldest supported KFP SDK everything compiles, to the same YAML but for the line that names the SDK.

DRIFTLINE_OLDEST_KFP_PYTHON names the Python of an environment with kfp, kfp-kubernetes, google-crc32c and pydantic, and
without Driftline itself; `.ci/run` makes one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import driftline.pipelines
from driftline.pipelines.catalogue import COMPONENTS, PIPELINES

VARIABLE = "DRIFTLINE_OLDEST_KFP_PYTHON"
EXAMPLES = {"gated_drift": "gated_drift", "nightly": "nightly", "kernel_sums_alone": "kernel_sums_alone"}

COMPILE = """
import importlib, importlib.metadata, json, pathlib, sys
from kfp.compiler import Compiler
from driftline.pipelines.catalogue import COMPONENTS, PIPELINES
from driftline.pipelines.compiled import compile_component, compile_objects, compile_pipeline
from driftline.pipelines.profile import Profile
folder, examples = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
profile = Profile(gpu={"embed", "kernels"}, model_claim="models")
texts = {"pipeline " + name: compile_pipeline(name, profile) for name in PIPELINES}
texts |= {"objects " + name: compile_objects(name, profile, version_name="v") for name in PIPELINES}
texts |= {"component " + name: compile_component(name, profile) for name in COMPONENTS}
for module, name in examples.items():
    make = getattr(importlib.import_module("driftline.pipelines.examples." + module), name)
    Compiler().compile(make(profile), str(folder / "example.yaml"))
    texts["example " + name] = (folder / "example.yaml").read_text()
print(json.dumps({"kfp": importlib.metadata.version("kfp"), "texts": texts}))
"""


def compiled_by(python: str, folder: Path) -> tuple[str, dict[str, str]]:
    """Compile everything in a process of some Python, and return its kfp's version and the YAML by name."""
    package = Path(next(iter(driftline.pipelines.__path__))).parents[1]  # the folder that holds `driftline`
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
    command = [python, "-c", COMPILE, str(folder), json.dumps(EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["kfp"], answer["texts"]


def without_sdk(text: str) -> list[object]:
    """Return the documents of a compiled pipeline, without the version of the SDK that compiled it."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(one) for key, one in value.items() if key != "sdkVersion"}
        return [strip(one) for one in value] if isinstance(value, list) else value

    return [strip(one) for one in yaml.safe_load_all(text)]


@pytest.mark.slow
def test_the_oldest_sdk_compiles_everything_to_the_same(tmp_path):
    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"needs {VARIABLE}, the Python of an environment with the oldest supported kfp")
    oldest, old = compiled_by(python, tmp_path)
    _, new = compiled_by(sys.executable, tmp_path)
    assert oldest.startswith("2.14.")
    assert len(old) == 2 * len(PIPELINES) + len(COMPONENTS) + len(EXAMPLES)
    assert old.keys() == new.keys()
    assert {name: without_sdk(text) for name, text in old.items()} == {
        name: without_sdk(text) for name, text in new.items()
    }
    assert all(f"kfp-{oldest}" in text for text in old.values())
