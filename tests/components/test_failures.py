"""How a step's failure is told, seen as a pod's log shows it: each line's beginning, and the last of them first."""

import json
from pathlib import Path

import pytest
from kfp import compiler, dsl

from driftline.components.errors import reason_first
from tests.support.kfp_local import run_locally
from tests.support.pod import run_pod

SEEN = 75
"""Characters of a line that Kubeflow's UI shows."""

LONG = "gs://lake/embeddings/of/a/long/name/date=2026-11-30/hour=12/part-0.parquet"


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def failing(kind: str, message: str):
    import logging

    from driftline.components import errors
    from driftline.components.steps import LOGGER, logged_step

    with logged_step("sample", 1, 4) as clock:
        clock.log("progress", note="x")
        LOGGER.warning("a warning of the step")
        logging.getLogger("elsewhere").warning("a warning of a library")
        if kind:
            raise getattr(errors, kind, None)(message) from KeyError("a cause")
    logging.getLogger("elsewhere").warning("after the step")


@pytest.mark.parametrize(
    ("kind", "message", "seen"),
    [
        ("UsageError", "test_level: expected a number between 0 and 1, both excluded, got 5.0", "test_level: expected"),
        (
            "DataError",
            f"{LONG}: expected the column text, found id, body; name it with text_column",
            "expected the column text, found id, body; name it with text_column",
        ),
        ("StorageError", f"{LONG}: permission denied\nsee the log", "permission denied see the log"),
        ("DataError", f"{LONG}: the text is\udce9 damaged", "the text is\\udce9 damaged"),
    ],
)
def test_a_pods_log_ends_with_the_reason(tmp_path: Path, kind: str, message: str, seen: str) -> None:
    pod = run_pod(failing, tmp_path, kind=kind, message=message)
    assert pod.status != 0
    *_, failure, last = pod.log
    assert last[:SEEN].startswith(seen)
    assert failure.startswith('{"error": "' + seen[: SEEN - len('{"error": "')])
    record = json.loads(failure)
    assert (record["driftline"], record["step"], record["task"], record["kind"]) == ("failed", "sample", 1, kind)
    assert record["error"] == reason_first(message)
    assert "Traceback" not in "\n".join(pod.log)
    assert "driftline.components" not in "\n".join(pod.log)


def test_what_a_step_says_stands_alone_in_its_line(tmp_path: Path) -> None:
    pod = run_pod(failing, tmp_path, kind="", message="")
    assert pod.status == 0
    assert [record["driftline"] for record in pod.records] == ["start", "progress", "done"]
    # What anybody else logs is dressed as KFP does.
    for words in ("a warning of the step", "a warning of a library", "after the step"):
        (line,) = (line for line in pod.log if line.endswith(words))
        assert line.startswith("[KFP Executor")


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    pod = run_pod(failing, tmp_path, kind="NoSuchError", message="")
    assert pod.status != 0
    assert pod.log[-1] == "TypeError: 'NoneType' object is not callable"
    assert "Traceback (most recent call last):" in pod.log
    assert not [line for line in pod.log if line.startswith('{"error"')]


def test_in_kfps_local_runner_too(tmp_path: Path) -> None:
    compiled = str(tmp_path / "failing.yaml")
    compiler.Compiler().compile(failing, compiled)
    code = f"made = components.load_component_from_file({compiled!r})"
    run = run_locally(code, tmp_path, kind="DataError", message=f"{LONG}: the row 3 is odd; mend it")
    assert not run.succeeded
    lines = [line.strip() for line in run.log.split("\n")]
    failure = next(place for place, line in enumerate(lines) if line.startswith('{"error": "the row 3 is odd; mend it'))
    assert lines[failure + 1] == f"the row 3 is odd; mend it ({LONG})"
    assert json.loads(lines[failure])["message"] == f"{LONG}: the row 3 is odd; mend it"
