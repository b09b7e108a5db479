"""Pipelines run as a user's own script runs them: in a process of its own, with KFP's local runner."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCRIPT = """
import json, sys
from kfp import components, dsl, local
root, arguments = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root + "/a", workspace_root=root + "/w")
{code}
task = made(**json.loads(arguments))
with open(root + "/outputs.json", "w") as file:
    json.dump(task.outputs, file, default=vars)
"""
_COLOURS = re.compile(r"\x1b\[\d+m")


@dataclass(frozen=True)
class LocalRun:
    """A run that ended.

    Attributes:
        succeeded: whether it did.
        log: everything that the runner and the tasks printed.
        outputs: the pipeline's outputs, artifacts as their attributes; empty where the run failed.
    """

    succeeded: bool
    log: str
    outputs: Mapping[str, Any]

    def ran(self, task: str) -> int:
        """How many tasks of this name ran to a good end."""
        return self.log.count(f"Task '{task}' finished with status SUCCESS")


def run_locally(code: str, root: Path, **arguments: Any) -> LocalRun:
    """Run a pipeline.

    Args:
        code: makes the pipeline and calls it `made`; `components`, `dsl` and `local` of kfp are there.
        root: folder for the run's own files, which need not exist.
        arguments: the pipeline's parameters.
    """
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _SCRIPT.format(code=code), str(root), json.dumps(arguments)]
    # KFP's tasks leave files in the temporary folder.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "TMPDIR": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)
    outputs = root / "outputs.json"
    return LocalRun(
        done.returncode == 0,
        _COLOURS.sub("", done.stdout + done.stderr),
        json.loads(outputs.read_text()) if outputs.exists() else {},
    )
