"""An archive of a topic in memory: what its readers see is what the topic says."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.components.storage.dataset import EmbeddingsDataset
from driftline.components.storage.store import join
from tests.serving.archive.archived import (
    archived,
    busy_log,
    driven,
    expected,
    files_of,
    named_files,
    settings_of,
)


@pytest.fixture(params=["local", "gs"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "archive")
    return join(request.getfixturevalue("gcs_bucket"), "archive")


@pytest.mark.parametrize("seed", range(4))
def test_the_archive_is_the_latest_state_of_each_id(out: str, tmp_path: Path, seed: int):
    log = busy_log(seed, 300, partitions=2)
    run = driven(log, settings_of(out), tmp_path / "index")
    run.turn(30)
    assert archived(out) == expected(log)
    assert len(run.letters.letters) > 5
    assert {reason for _, reason in run.letters.letters} == {"not-json"}
    assert run.source.committed == log.ends
    # Of each hour that is over there is one file for each partition, and nothing else is left.
    assert files_of(out) == named_files(out)
    over = [name for name in files_of(out) if "hour=13" not in name]
    assert len(over) == 6
    assert EmbeddingsDataset.open(out).rows == len(expected(log))
    run.archiver.close()
    assert run.source.closed
