from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from driftline.components.kernel import checkpoint, step
from driftline.components.kernel.feature_sums import FeatureSums
from driftline.components.kernel.tasks import read_task_sums
from tests.components.kernel.test_step import plan, write_projected

METHODS = ["exact", "features"]


class Killed(Exception):  # noqa: N818  it stands for an end, not for an error
    """The task ended here."""


def planned(folder: Path, method: str) -> str:
    z = np.random.default_rng(1).normal(size=(3000, 4))
    return plan(folder, write_projected(folder, z, 1700), method=method, kernel="search")[0]


def summed(spec: str, out: Path) -> bytes:
    step.sums(plan=spec, share={"task": 0.0}, out=str(out))
    with out.open("rb") as file:
        sums = read_task_sums(file).sums
    arrays = (sums.labelled, sums.total) if isinstance(sums, FeatureSums) else (sums.rows, sums.within)
    return b"".join(array.tobytes() for array in arrays)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "z" / "checkpoints").glob("*.npz"))


@pytest.mark.parametrize("method", METHODS)
def test_a_task_goes_on_where_it_was_to_the_same_bits(tmp_path, monkeypatch, method):
    spec = planned(tmp_path, method)
    whole = summed(spec, tmp_path / "whole.npz")
    assert not files(tmp_path)  # it took less than the interval
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    attempts: list[list[int]] = [[]]

    def progress(_, done, of, unit):
        attempts[-1].append(done)
        if len(attempts[-1]) == 4:
            raise Killed

    monkeypatch.setattr(step.StepClock, "progress", progress)
    for _ in range(100):
        try:
            again = summed(spec, tmp_path / "again.npz")
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
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    whole = summed(spec, tmp_path / "a.npz")

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr("driftline.components.kernel.tiler.Tiler.sums", fail)
    monkeypatch.setattr("driftline.components.kernel.feature_sums._bin_sums", fail)
    assert summed(spec, tmp_path / "b.npz") == whole


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"not an archive"])
def test_a_damaged_checkpoint_is_as_good_as_none(tmp_path, monkeypatch, caplog, content):
    spec = planned(tmp_path, "exact")
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    whole = summed(spec, tmp_path / "a.npz")
    [file] = files(tmp_path)
    file.write_bytes(content)
    assert summed(spec, tmp_path / "b.npz") == whole
    assert any("cannot be read" in message and "begins anew" in message for message in caplog.messages)


def test_another_plan_has_checkpoints_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    projected = write_projected(tmp_path, np.random.default_rng(1).normal(size=(600, 2)), 300)
    found = {summed(plan(tmp_path, projected, seed=seed)[0], tmp_path / "a.npz") for seed in (1, 2)}
    assert len(found) == len(files(tmp_path)) == 2


TASK = """
import sys
from driftline.components.kernel import checkpoint, step
checkpoint.INTERVAL_S = 0.0
step.sums(plan=sys.argv[1], share={"task": 0.0}, out=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, method):
    spec = planned(tmp_path, method)
    whole = summed(spec, tmp_path / "whole.npz")
    rng, out, killed = random.Random(5), tmp_path / "again.npz", 0
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", TASK, spec, str(out)], stderr=subprocess.DEVNULL)
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
    assert summed(spec, out) == whole
