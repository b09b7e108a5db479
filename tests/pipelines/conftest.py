"""A user who reaches Kubeflow's double by typing commands."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from driftline.pipelines import cluster_runs
from tests.support.kubeflow_cli import VARIABLES, User
from tests.support.kubeflow_double import KubeflowDouble, serving_kubeflow


@pytest.fixture
def kubeflow() -> KubeflowDouble:
    return KubeflowDouble()


@pytest.fixture
def user(
    kubeflow: KubeflowDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Generator[User]:
    """A user in a folder of his own, whose environment names the server; waiting takes little."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster_runs, "POLL_S", 0.001)
    with serving_kubeflow(kubeflow) as url:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", url)
        yield User(kubeflow, url, tmp_path, capsys)
