"""Archivers that are killed outright, again and again, leave what the topic says."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from driftline.components.storage.objects.store import join
from tests.serving.archive.archived import archived, busy_log, expected, files_of, named_files, offsets_of

LOGGER = logging.getLogger(__name__)
DRIVER = Path(__file__).with_name("archive_driver.py")

Ask = Callable[..., int]


@contextmanager
def driver(folder: Path, seed: int, events: int, partitions: int) -> Iterator[Ask]:
    """Run the program; yields a function that has it archive a topic, and returns how that ended."""
    errors = folder / "errors.txt"
    temporary = folder / "tmp"  # of processes that are killed, who leave it behind
    temporary.mkdir(exist_ok=True)
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": str(DRIVER.parents[3]), "TMPDIR": str(temporary)},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(out: str, index: Path, settings: dict[str, Any] | None = None, **request: Any) -> int:
            topic = {"seed": seed, "events": events, "partitions": partitions, "settings": settings or {}}
            line = json.dumps({**topic, "out": out, "index": str(index), **request})
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            code = json.loads(answer) if answer else 1
            assert code in (0, -signal.SIGKILL), errors.read_text()
            return code

        try:
            yield ask
        finally:
            process.stdin.close()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("place", "every"), [("local", 3), ("gs", 10)])
def test_killed_at_every_change_of_the_store(tmp_path: Path, place: str, every: int, request: pytest.FixtureRequest):
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path)
    log = busy_log(3, 11)
    with driver(tmp_path, 3, 11, 1) as ask:
        operation = 1 - every
        while True:
            operation += every
            out, index = join(base, f"archive-{operation}"), tmp_path / f"index-{operation}"
            if ask(out, index, {"compact_files": 2}, die_at=operation) == 0:
                break
            # A process that comes back, and one that comes on another machine, without an index of ids.
            index = index if operation % 2 else tmp_path / "elsewhere" / str(operation)
            assert ask(out, index, {"compact_files": 2}) == 0
            assert archived(out) == expected(log), operation
            assert set(named_files(out)) <= set(files_of(out)), operation
    LOGGER.info("%d changes of the store", operation - 1)
    assert operation > 50


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path):
    moments = random.Random(5)
    out, index = str(tmp_path / "archive"), tmp_path / "index"
    log = busy_log(11, 800, 2)
    rows = {(number, record.at.offset) for number in log.records for record in log.records[number]}
    with driver(tmp_path, 11, 800, 2) as ask:
        for _ in range(30):
            changes, delay_s = moments.randrange(1, 30), moments.uniform(0.0, 0.01)
            assert ask(out, index, {"compact_files": 3}, die_at=changes, delay_s=delay_s) != 0, (
                "done before the last kill"
            )
            # What is there now may lag behind the topic, but it can be read, and all of it is in the topic.
            assert offsets_of(out) <= rows
        assert offsets_of(out), "nothing was archived before the last kill"
        assert ask(out, index, {"compact_files": 3}) == 0
    assert archived(out) == expected(log)
    assert named_files(out) == files_of(out)
