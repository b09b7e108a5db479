"""A component run as its container runs it: the command of its YAML, with KFP's executor in it, in a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler


@dataclass(frozen=True)
class Pod:
    """A container that ended.

    Attributes:
        status: its exit status.
        log: the lines of its log, both streams together.
    """

    status: int
    log: list[str]

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the step said in JSON."""
        return [json.loads(line) for line in self.log if line.startswith(('{"driftline"', '{"error"'))]


def run_pod(
    component: Any,
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    **parameters: Any,
) -> Pod:
    """Run a component.

    Args:
        component: as declared; of parameters alone.
        folder: for its files.
        environment: variables of the container.
        parameters: its input parameters.
    """
    compiled = folder / "component.yaml"
    compiler.Compiler().compile(component, str(compiled))
    spec = yaml.safe_load(compiled.read_text(encoding="utf-8"))
    (executor,) = spec["deploymentSpec"]["executors"].values()
    given = {
        "inputs": {"parameterValues": parameters},
        "outputs": {"outputFile": str(folder / "output_metadata.json")},
    }
    container = executor["container"]
    done = subprocess.run(
        [*container["command"], *(json.dumps(given) if one == "{{$}}" else one for one in container["args"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONSAFEPATH": "1",
            "TMPDIR": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **(environment or {}),
        },
    )
    return Pod(done.returncode, done.stdout.rstrip("\n").split("\n"))
