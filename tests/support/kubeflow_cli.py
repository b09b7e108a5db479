"""`driftline submit`, `schedule` and `runs`, run in this process as a user types them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from driftline.components.command_line.ending import run_command
from driftline.components.command_line.group import LazyGroup
from driftline.pipelines.cli import COMMANDS
from tests.support.kubeflow_double import KubeflowDouble

PIPELINE = """\
pipelineInfo:
  name: driftline-drift
  description: Tell whether a window still looks like the reference.
root:
  dag: {tasks: {}}
  inputDefinitions:
    parameters:
      current: {parameterType: STRING, description: What to compare.}
      reference: {parameterType: STRING}
      output_folder: {parameterType: STRING}
      output_history: {parameterType: STRING, defaultValue: "", isOptional: true}
      test_level: {parameterType: NUMBER_DOUBLE, defaultValue: 0.05, isOptional: true}
      kernel_tasks: {parameterType: NUMBER_INTEGER, defaultValue: 8.0, isOptional: true}
      fail_on_drift: {parameterType: BOOLEAN, defaultValue: false, isOptional: true}
      text_files: {parameterType: LIST, defaultValue: [], isOptional: true}
      extra: {parameterType: STRUCT, defaultValue: {}, isOptional: true}
      test_method: {parameterType: STRING, defaultValue: auto, isOptional: true, literals: [auto, exact]}
---
platforms:
  kubernetes:
    deploymentSpec:
      executors:
        exec-sample: {nodeSelector: {labels: {pool: gpu}}}
"""
NEEDED = ("-p", "reference=gs://lake/ref", "-p", "current=gs://lake/cur")
VARIABLES = (
    "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH", "KUBERNETES_SERVICE_HOST", "DRIFTLINE_KFP_TOKEN",
    "DRIFTLINE_KFP_TOKEN_FILE", "DRIFTLINE_KFP_COOKIES", "DRIFTLINE_KFP_COOKIES_FILE", "DRIFTLINE_KFP_IAP_CLIENT_ID",
    "DRIFTLINE_KFP_NAMESPACE",
)  # fmt: skip


@click.group(cls=LazyGroup, lazy={name: COMMANDS[name] for name in ("submit", "schedule", "runs")})
def cli() -> None:
    pass


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line that says what is wrong."""
        (line,) = self.err.splitlines()
        return line.removeprefix("driftline: ")


class User:
    """Types commands, beside a compiled pipeline, drift.yaml.

    Attributes:
        kubeflow: the server that they reach.
        url: its address.
        file: the pipeline's.
        out: a folder of this machine for what runs write.
    """

    def __init__(self, kubeflow: KubeflowDouble, url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kubeflow = kubeflow
        self.url = url
        self.file = folder / "drift.yaml"
        self.file.write_text(PIPELINE, encoding="utf-8")
        self.out = folder / "out"
        self._capsys = capsys

    @property
    def parameters(self) -> tuple[str, ...]:
        """What drift.yaml must be given, as typed."""
        return (*NEEDED, "-p", f"output_folder={self.out}")

    def types(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(cli, "driftline", list(arguments))
        printed = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, printed.out, printed.err)
