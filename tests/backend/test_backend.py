"""That the backend runs what runs on a cluster, and refuses what is refused there: pipelines of a few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftline.pipelines.profile import Profile
from driftline.pipelines.profile.cluster import SecretValue
from tests.backend import toys
from tests.backend.argo_rules import Phase
from tests.backend.release import Backend, RefusedError

pytestmark = pytest.mark.slow


def test_a_bare_list_of_dicts_is_refused_at_the_first_item(backend: Backend, tmp_path: Path) -> None:
    run = backend.run(toys.compiled(toys.bare_list), {"folder": str(tmp_path)})
    assert run.phase is Phase.FAILED
    assert len(run.tasks("plan-bare")) == 1
    assert run.tasks("note") == []
    assert 'input parameter "item" type mismatch: expect STRUCT, got string' in run.story()


def test_a_list_of_dicts_reaches_every_task(backend: Backend, tmp_path: Path) -> None:
    run = backend.succeed(toys.compiled(toys.dict_list), {"folder": str(tmp_path), "number": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert [node.phase for node in run.tasks("note")] == [Phase.SUCCEEDED] * 3


def test_a_loop_over_nothing_is_skipped(backend: Backend, tmp_path: Path) -> None:
    run = backend.succeed(toys.compiled(toys.dict_list), {"folder": str(tmp_path), "number": 0})
    assert [node.name for node in run.all(Phase.SKIPPED)] == ["iteration-iterations"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("drift", "text"), [(True, "drift"), (False, "quiet")])
def test_a_gate_opens_one_way(backend: Backend, tmp_path: Path, drift: bool, text: str) -> None:
    run = backend.succeed(toys.compiled(toys.gate), {"drift": drift, "path": str(tmp_path / "said")})
    assert (tmp_path / "said").read_text() == text
    assert len(list(run.all(Phase.SKIPPED))) == 1


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_task_that_fails_is_tried_again(backend: Backend, tmp_path: Path, times: int) -> None:
    tries, said = tmp_path / "tries", tmp_path / "said"
    tries.mkdir()
    run = backend.succeed(toys.compiled(toys.flaky), {"times": times, "folder": str(tries), "path": str(said)})
    (node,) = run.tasks("fail-first")
    assert [attempt.phase for attempt in node.attempts] == [Phase.FAILED] * times + [Phase.SUCCEEDED]
    assert said.read_text() == "done"


def test_retries_end_with_the_limit(backend: Backend, tmp_path: Path) -> None:
    tries, said = tmp_path / "tries", tmp_path / "said"
    tries.mkdir()
    run = backend.run(toys.compiled(toys.flaky), {"times": 3, "folder": str(tries), "path": str(said)})
    assert run.phase is Phase.FAILED
    (node,) = run.tasks("fail-first")
    assert len(node.attempts) == len(list(tries.iterdir())) == 3
    assert "No more retries left" in node.message
    assert {node.name for node in run.all(Phase.OMITTED)} == {"write-driver", "write"}
    assert not said.exists()


def test_retries_end_with_their_window(backend: Backend, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    tries.mkdir()
    run = backend.run(
        toys.compiled(toys.flaky_briefly), {"times": 1, "folder": str(tries), "path": str(tmp_path / "said")}
    )
    assert run.phase is Phase.FAILED
    (node,) = run.tasks("fail-first")
    assert "Backoff would exceed max duration limit" in node.message
    assert len(node.attempts) == 1


def test_a_parameter_may_be_called_n(backend: Backend) -> None:
    backend.succeed(toys.compiled(toys.named_n), {})


def test_an_artifact_goes_through_the_store_and_no_pod_s_files(backend: Backend, tmp_path: Path) -> None:
    backend.succeed(toys.compiled(toys.artifact), {"path": str(tmp_path / "said")})
    assert (tmp_path / "said").read_text() == "as it was 9"
    assert not Path("/minio").exists()


def test_a_profile_s_variables_secrets_and_volumes_reach_the_pod(backend: Backend, tmp_path: Path) -> None:
    profile = Profile(
        environment={"SHOWN": "for all to see"},
        secrets={"HIDDEN": SecretValue(name="store", key="password")},
        volumes={"claimed": "/volumes/data"},
    )
    backend.succeed(
        toys.compiled(toys.placed(profile)),
        {"names": ["SHOWN", "HIDDEN"], "path": "/volumes/data/said.json"},
        claims={"claimed": tmp_path},
        secrets={"store": {"password": "xyz"}},
    )
    assert json.loads((tmp_path / "said.json").read_text()) == {"SHOWN": "for all to see", "HIDDEN": "xyz"}
    assert not Path("/volumes").exists()


def test_a_run_needs_its_parameters(backend: Backend) -> None:
    with pytest.raises(RefusedError, match="parameter path is not optional"):
        backend.run(toys.compiled(toys.artifact), {})


def test_a_run_takes_no_others(backend: Backend) -> None:
    with pytest.raises(RefusedError, match="not required by pipeline: levle"):
        backend.run(toys.compiled(toys.artifact), {"path": "x", "levle": 1})
