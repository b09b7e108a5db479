from __future__ import annotations

import io
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftline.components.errors import DataError, StorageError
from driftline.components.kernel import step, tasks
from driftline.components.kernel.tasks import KernelPlan, TaskSums, finished_sums, read_task_sums, write_task_sums
from driftline.components.kernel.tiles.feature_sums import FeatureSums
from driftline.components.kernel.tiles.sums import PartialSums
from driftline.components.storage.objects.values import read_value
from tests.components.kernel.test_step import plan, write_projected

METHODS = ["exact", "features"]


class Killed(Exception):  # noqa: N818  it stands for an end, not for an error
    """The task ended here."""


def planned(folder: Path, method: str) -> str:
    z = np.random.default_rng(1).normal(size=(3000, 4))
    return plan(folder, write_projected(folder, z, 1700), test_method=method, kernel="search")[0]


def found(spec: str) -> bytes:
    sums = finished_sums(read_value(spec, KernelPlan), 0).sums
    arrays = (sums.labelled, sums.total) if isinstance(sums, FeatureSums) else (sums.rows, sums.within)
    return b"".join(array.tobytes() for array in arrays)


def summed(spec: str) -> bytes:
    step.sums(plan=spec, share={"task": 0.0, "tasks": 1.0})
    return found(spec)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "z" / "sums").glob("*.npz"))


@pytest.mark.parametrize("method", METHODS)
def test_a_task_goes_on_where_it_was_to_the_same_bits(tmp_path, monkeypatch, method):
    spec = planned(tmp_path, method)
    whole = summed(spec)
    [file] = files(tmp_path)
    file.unlink()
    monkeypatch.setattr(tasks, "INTERVAL_S", 0.0)
    attempts: list[list[int]] = [[]]

    def progress(_, done, of, unit):
        attempts[-1].append(done)
        if len(attempts[-1]) == 4:
            raise Killed

    monkeypatch.setattr(step.StepClock, "progress", progress)
    for _ in range(100):
        try:
            again = summed(spec)
            break
        except Killed:
            attempts.append([])
    assert again == whole
    counted = [done for attempt in attempts for done in attempt]
    # What a kill costs is what was done since the last checkpoint, here one piece of work.
    assert counted == sorted(counted)
    assert len(attempts) > 2
    assert len(counted) - len(set(counted)) == len(attempts) - 1


@pytest.mark.parametrize("method", METHODS)
def test_a_finished_task_is_not_done_again(tmp_path, monkeypatch, method):
    spec = planned(tmp_path, method)
    monkeypatch.setattr(tasks, "INTERVAL_S", 0.0)
    whole = summed(spec)

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr("driftline.components.kernel.tiles.cpu.CpuTiles.sums", fail)
    monkeypatch.setattr("driftline.components.kernel.tiles.feature_sums._bin_sums", fail)
    assert summed(spec) == whole


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"not an archive"])
def test_a_damaged_checkpoint_is_as_good_as_none(tmp_path, monkeypatch, caplog, content):
    spec = planned(tmp_path, "exact")
    monkeypatch.setattr(tasks, "INTERVAL_S", 0.0)
    whole = summed(spec)
    [file] = files(tmp_path)
    file.write_bytes(content)
    assert summed(spec) == whole
    assert any("cannot be read" in message and "begins anew" in message for message in caplog.messages)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"not an archive", "cut", "other"])
def test_whoever_adds_up_names_damaged_sums(tmp_path, content):
    spec = planned(tmp_path, "exact")
    summed(spec)
    [file] = files(tmp_path)
    if content == "cut":
        content = file.read_bytes()[:-100]
    if content == "other":
        np.savez(file, other=np.zeros(3))
        content = file.read_bytes()
    file.write_bytes(content)
    message = rf"\A{re.escape(str(file))}: the sums of kernel task 1 of 1 are damaged \([^\n]+\); start the run again\Z"
    with pytest.raises(DataError, match=message):
        found(spec)


def test_whoever_adds_up_names_missing_sums(tmp_path):
    spec = planned(tmp_path, "exact")
    place = Path(read_value(spec, KernelPlan).sums_place(0))
    with pytest.raises(
        DataError, match=rf"\A{re.escape(str(place))}: the sums of kernel task 1 of 1 are missing; [^\n]+\Z"
    ):
        found(spec)


def test_sums_that_cannot_be_read_are_storage_s_error(tmp_path):
    spec = planned(tmp_path, "exact")
    summed(spec)
    [file] = files(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(StorageError, match=re.escape(str(file))):
        found(spec)


def test_sums_of_an_accelerator_name_what_computed_them_and_those_of_a_cpu_do_not():
    part = PartialSums(np.zeros(1, np.int32), np.zeros((1, 1, 128, 2)), np.zeros((1, 3)), 1)
    for by, names in (("llvm", set()), ("pallas, xla", {"computed_by"})):
        file = io.BytesIO()
        write_task_sums(file, TaskSums(replace(part, computed_by=by), 1.0))
        file.seek(0)
        with np.load(file) as arrays:
            assert set(arrays) == {"seconds", "blocks", "rows", "within", "tiles"} | names
        file.seek(0)
        assert read_task_sums(file).sums.computed_by == by


def test_another_plan_has_checkpoints_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "INTERVAL_S", 0.0)
    projected = write_projected(tmp_path, np.random.default_rng(1).normal(size=(600, 2)), 300)
    different = {summed(plan(tmp_path, projected, seed=seed)[0]) for seed in (1, 2)}
    assert len(different) == len(files(tmp_path)) == 2


TASK = """
import sys
from driftline.components.errors import DataError, StorageError
from driftline.components.kernel import step, tasks
tasks.INTERVAL_S = 0.0
step.sums(plan=sys.argv[1], share={"task": 0.0, "tasks": 1.0})
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, method):
    spec = planned(tmp_path, method)
    whole = summed(spec)
    files(tmp_path)[0].unlink()
    rng, killed = random.Random(5), 0
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", TASK, spec], stderr=subprocess.DEVNULL)
        if killed < 5:
            before = len(files(tmp_path))
            while not files(tmp_path) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.3) if before else 0.0)
            process.send_signal(signal.SIGKILL)
            killed += 1
        if process.wait() == 0:
            break
    assert process.returncode == 0
    assert found(spec) == whole
