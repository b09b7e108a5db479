"""Where a run's report goes: never over that of another run, and over its own when the step is tried again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.components.errors import StorageError
from driftline.components.mmd.step import Reported
from driftline.components.storage.objects.json_history import read_history
from driftline.components.storage.objects.store import join, list_files, read_bytes, read_json, write_bytes
from tests.support.datasets import write_embeddings
from tests.support.steps import report, run_to_report, with_run

FILES = ("report.html", "result.json", "witness.parquet")
RACERS, RACING_PROCESSES = 6, 3  # a process loads JAX first


@pytest.fixture(params=["local", "gs"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = request.getfixturevalue("gcs_bucket") if request.param == "gs" else str(tmp_path)
    return join(folder, "out")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of a run that only its last step is missing of, to be copied."""
    folder = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(4)
    for name in "xy":
        write_embeddings(str(folder / name), rng.normal(size=(40, 3)).astype(np.float32), prefix=name)
    run_to_report(folder / "a", str(folder / "x"), str(folder / "y"), str(folder / "out"), pca_components=2)
    return folder / "a"


@pytest.fixture
def ready(template: Path, tmp_path: Path, out: str) -> Callable[[int], Path]:
    """Make the artifacts of run number so-and-so into `out`, of which only the last step is missing."""

    def make(number: int) -> Path:
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        for path in template.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        history = join(out, "history")
        with_run(folder, id=f"{number:032x}", job=f"job-{number}", base=out, folder=out, history=history)
        return folder

    return make


def files(out: str) -> dict[str, bytes]:
    return {info.uri.removeprefix(out).lstrip("/"): read_bytes(info.uri) for info in list_files(out)}


def place_of(reported: Reported) -> str:
    return reported.report_uri.rpartition("/")[0]


def test_the_second_run_takes_a_folder_of_its_own(ready: Callable[[int], Path], out: str):
    first = report(ready(1))
    before = {name: content for name, content in files(out).items() if "/" not in name}
    assert sorted(before) == sorted(FILES)
    second = report(ready(2))
    assert place_of(first) == out
    assert re.fullmatch(rf"{re.escape(out)}/\d{{8}}T\d{{6}}Z-00000000", place_of(second))
    after = files(out)
    assert {name: after[name] for name in before} == before
    own = place_of(second).removeprefix(out + "/")
    assert {name for name in after if name.startswith(own)} == {f"{own}/{name}" for name in FILES}
    for told, number in ((first, 1), (second, 2)):
        result = read_json(join(place_of(told), "result.json"))
        assert (result["run"], result["job"]) == (f"{number:032x}", f"job-{number}")
        assert result["report_uri"] == told.report_uri
    records = read_history(join(out, "history"))
    assert {record["report_uri"] for record in records} == {told.report_uri for told in (first, second)}


def check_race(places: list[str], out: str) -> None:
    """Check that one run got the folder, that each has its report, and that none is another's."""
    assert len(set(places)) == len(places)
    assert places.count(out) == 1
    assert all(place == out or place.rpartition("/")[0] == out for place in places)
    for number, place in enumerate(places):
        assert read_json(join(place, "result.json"))["run"] == f"{number << 96:032x}"
        found = files(place)
        assert {name for name in found if "/" not in name} == set(FILES)
    assert len(read_history(join(out, "history"))) == len(places)


def test_of_runs_at_once_exactly_one_gets_the_folder_itself(ready: Callable[[int], Path], out: str):
    # The first eight characters tell runs of one second apart.
    folders = [ready(number << 96) for number in range(RACERS)]
    with ThreadPoolExecutor(RACERS) as pool:
        check_race([place_of(told) for told in pool.map(report, folders)], out)


REPORT = """
import sys
from pathlib import Path
from tests.support.steps import report
print("ready", flush=True)
sys.stdin.readline()
print(report(Path(sys.argv[1])).report_uri, flush=True)
"""


@pytest.mark.slow
def test_of_processes_at_once_exactly_one_gets_the_folder_itself(ready: Callable[[int], Path], out: str):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", REPORT, str(ready(number << 96))],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(RACING_PROCESSES)
        ]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * RACING_PROCESSES
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        check_race([process.communicate()[0].strip().rpartition("/")[0] for process in processes], out)


def test_a_step_that_is_tried_again_writes_over_its_own_report(ready: Callable[[int], Path], out: str):
    for number in (1, 2):
        folder = ready(number)
        told, before = report(folder), files(out)
        assert report(folder) == told
        assert files(out) == before
    assert len(read_history(join(out, "history"))) == 2


def test_a_step_that_died_after_it_took_the_folder_goes_on_there(
    ready: Callable[[int], Path], out: str, monkeypatch: pytest.MonkeyPatch
):
    folder = ready(1)
    with monkeypatch.context() as patch:
        patch.setattr("driftline.components.mmd.step.render_report", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            report(folder)
    assert sorted(name for name in files(out) if not name.startswith("history")) == ["result.json"]
    assert place_of(report(folder)) == out
    assert {name for name in files(out) if "/" not in name} == set(FILES)
    assert len(read_history(join(out, "history"))) == 1


@pytest.mark.parametrize(
    "content",
    [b'{"format": "driftline.drift-result", "version": 2, "drift": false}', b"{torn", b"[1]", b"", b'{"run": null}'],
    ids=["of-before", "torn", "other", "empty", "null"],
)
def test_a_result_that_is_not_this_run_s_is_left_alone(ready: Callable[[int], Path], out: str, content: bytes):
    write_bytes(join(out, "result.json"), content)
    write_bytes(join(out, "report.html"), b"an old report")
    told = report(ready(1))
    assert place_of(told) != out
    found = files(out)
    assert (found["result.json"], found["report.html"]) == (content, b"an old report")
    assert read_json(join(place_of(told), "result.json"))["run"] == f"{1:032x}"


def test_a_history_that_cannot_be_written_leaves_the_folder_free(
    ready: Callable[[int], Path], out: str, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any, **__: Any) -> None:
        raise StorageError("the history: broke")

    with monkeypatch.context() as patch:
        patch.setattr("driftline.components.mmd.step.append_history", broken)
        with pytest.raises(StorageError, match="the history: broke"):
            report(ready(1))
    assert files(out) == {}
    assert place_of(report(ready(2))) == out


def test_every_run_s_record_names_its_report(ready: Callable[[int], Path], out: str):
    told = [report(ready(number << 96)) for number in range(3)]
    records = {record["run"]: record for record in read_history(join(out, "history"))}
    for number, one in enumerate(told):
        record = records[f"{number << 96:032x}"]
        assert (record["report_uri"], record["status"]) == (one.report_uri, "compared")
        assert record["job"] == f"job-{number << 96}"
