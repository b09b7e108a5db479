"""A release of Kubeflow Pipelines, and pipelines run on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.backend.argo_rules import Phase
from tests.backend.pods import NamespacePods
from tests.backend.services import MissingPartError, Services
from tests.backend.workflow import Node, run_workflow

VARIABLE: Final = "KFP_BIN"
PROGRAMS: Final = ("driver", "kfpc", "launcher-v2")
_OUTPUT: Final = re.compile(r"ExecutorOutput: (\{.*?^\})$", re.DOTALL | re.MULTILINE)  # in the launcher's log
COMPILE_TIMEOUT_S: Final = 60  # it takes less than one


@dataclass(frozen=True, slots=True)
class Run:
    """A run that ended.

    Attributes:
        id: what the backend calls it.
        node: the Workflow's entry point.
    """

    id: str
    node: Node

    @property
    def phase(self) -> Phase:
        """How the run ended."""
        return self.node.phase

    def tasks(self, name: str) -> list[Node]:
        """Return the containers of a task: in a loop one for each iteration, none where it did not run."""
        return [node for node in self.node.walk() if node.attempts and node.path.split("/")[-2:] == [name, "executor"]]

    def containers(self) -> list[Node]:
        """Return the nodes of all containers, the drivers' too, in the order of the Workflow."""
        return [node for node in self.node.walk() if node.attempts]

    def all(self, phase: Phase) -> Iterator[Node]:
        """Yield the nodes that ended so."""
        return (node for node in self.node.walk() if node.phase is phase)

    def outputs(self, task: Node) -> dict[str, Any]:
        """Return the output parameters of a task's container, as its executor wrote them for the launcher."""
        written = _OUTPUT.search(task.logs[-1])
        if written is None:
            raise AssertionError(f"{task.path}: no output in its log:\n{task.logs[-1]}")
        output: dict[str, Any] = json.loads(written[1])
        return output.get("parameterValues", {})

    def story(self) -> str:
        """Tell what happened."""
        return self.node.story()


@dataclass(frozen=True, slots=True)
class Release:
    """A release's own compiler, driver and launcher.

    Attributes:
        programs: the folder of `driver` and `launcher-v2`, as KFP builds them, and of `kfpc`: called with a pipeline
            file and a JSON file of parameters, it prints the Argo Workflow that this release's API server
            makes of them, its cache of tasks off.
    """

    programs: Path

    @classmethod
    def of_environment(cls) -> Release:
        """Return the release that the environment names.

        Raises:
            MissingPartError: it names none, or not all programs are there.
        """
        named = os.environ.get(VARIABLE, "")
        if not named:
            raise MissingPartError(f"{VARIABLE} names no folder with KFP's {', '.join(PROGRAMS)}")
        absent = [name for name in PROGRAMS if not os.access(Path(named) / name, os.X_OK)]
        if absent:
            raise MissingPartError(f"{VARIABLE}: no {', '.join(absent)} in {named}")
        return cls(Path(named).absolute())

    def workflow(self, pipeline: str, parameters: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Return the Workflow that the release makes of a pipeline's YAML and a run's parameters.

        Raises:
            RefusedError: it makes none.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / "pipeline.yaml", folder / "parameters.json"
        files[0].write_text(pipeline, encoding="utf-8")
        files[1].write_text(json.dumps(dict(parameters)), encoding="utf-8")
        done = subprocess.run(
            [str(self.programs / "kfpc"), *map(str, files)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMPILE_TIMEOUT_S,
        )
        if done.returncode:
            raise RefusedError(done.stderr.strip())
        return yaml.load(done.stdout, yaml.CSafeLoader)


class RefusedError(Exception):
    """The release's API server would not start such a run."""


@dataclass(slots=True)
class Backend:
    """Runs pipelines on a release, with services of this machine.

    Attributes:
        release: whose programs.
        services: that they talk to.
        folder: for the runs' files.
        shared: folder that all pods see: that of the tests' data.
    """

    release: Release
    services: Services
    folder: Path
    shared: Path
    _runs: int = field(default=0)

    def run(
        self,
        pipeline: str,
        parameters: Mapping[str, Any],
        *,
        claims: Mapping[str, Path] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        tools: Path | None = None,
        reverse: bool = False,
    ) -> Run:
        """Run a pipeline to its end, whichever that is.

        Args:
            pipeline: its YAML.
            parameters: the run's.
            claims: folders of the persistent volume claims that it mounts.
            secrets: values of the Secrets that its variables come from, by name and key.
            tools: folder of programs that come before all others on the pods' PATH; None for none.
            reverse: run loops from their last iteration to the first.

        Raises:
            RefusedError: the release makes no Workflow of it.
        """
        self._runs += 1
        folder = self.folder / f"run-{self._runs}"
        workflow = self.release.workflow(pipeline, parameters, folder)
        pods = NamespacePods(
            programs=self.release.programs,
            accounts=self.services.accounts,
            environment=self.services.environment,
            options=self.services.options,
            claims=claims or {},
            secrets=secrets or {},
            shared=(self.shared,),
            tools=tools,
        )
        node = run_workflow(workflow, pods, folder / "pods", reverse=reverse)
        return Run(workflow["metadata"]["labels"]["pipeline/runid"], node)

    def succeed(self, pipeline: str, parameters: Mapping[str, Any], **options: Any) -> Run:
        """Run a pipeline that must succeed; an AssertionError tells what happened instead."""
        run = self.run(pipeline, parameters, **options)
        if run.phase is not Phase.SUCCEEDED:
            raise AssertionError(f"the run {run.phase.lower()}:\n{run.story()}")
        return run
