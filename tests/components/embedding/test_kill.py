"""Backfills that are killed outright, again and again, end as if nothing had happened."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from driftline.components.storage.objects.store import join
from tests.components.embedding.backfills import contents
from tests.components.embedding.driven import DrivenBackfill, Driver
from tests.components.embedding.tiny_models import SCRIPTS
from tests.support.datasets import write_texts

LOGGER = logging.getLogger(__name__)
KILLS = 12


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts of many lengths, every tenth one there twice."""
    numbers = [number - 9 if number % 10 == 9 else number for number in range(700)]
    lines = [f"{SCRIPTS[number % 7]} {number} " * (1 + number % 5) for number in numbers]
    return write_texts(tmp_path / "texts.jsonl", lines)


def killed_until_done(backfill: DrivenBackfill, kills: int, seed: int) -> list[str]:
    """Run a backfill whose first attempts are killed at random moments; return a line for each attempt.

    A third of them are killed before any chunk, while texts are scanned or the model is loaded; the others a random
    while after a random number of chunks.
    """
    moments = random.Random(seed)
    lines: list[str] = []
    for number in range(1, kills + 1):
        chunks = 0 if number % 3 == 0 else moments.randint(1, 5)
        after = moments.uniform(0.0, 0.05 if chunks else 0.5)
        before = backfill.begun().total()
        # Where the kill may fall while the model is loaded, the process loads it by itself.
        loads = {} if chunks == 0 else {"model": str(backfill.model)}
        answer = backfill.start(kill_after_chunks=chunks, kill_after_s=after, **loads)
        assert answer["state"] == "killed", f"done before kill {number}: make the backfill longer"
        begun = backfill.begun()
        lines.append(
            f"kill {number}, {after:.3f} s after {f'chunk {chunks} began' if chunks else 'the start'}: "
            f"{begun.total() - before} chunks begun, {len(begun)} different ones so far"
        )
    before = backfill.begun().total()
    answer = backfill.start()
    assert (answer["state"], answer["code"]) == ("ended", 0), backfill.driver.errors
    lines.append(f"left alone: {backfill.begun().total() - before} chunks begun")
    return lines


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same_and_embeds_at_most_a_chunk_a_kill_twice(
    tmp_path: Path, texts: Path, full: Path, driver: Driver
):
    settings = {"output_rows_per_shard": 300, "chunk_texts": 10, "chunk_s": 0.03}
    whole = DrivenBackfill(driver, tmp_path / "whole", [str(texts)], full, str(tmp_path / "whole-out"), settings)
    assert whole.start()["code"] == 0, driver.errors
    chunks = len(whole.begun())
    assert whole.begun().total() == chunks == 63

    killed = DrivenBackfill(driver, tmp_path / "killed", [str(texts)], full, str(tmp_path / "killed-out"), settings)
    for line in killed_until_done(killed, KILLS, seed=7):
        LOGGER.info(line)
    begun = killed.begun()
    assert begun.keys() == whole.begun().keys()
    twice = begun.total() - chunks
    LOGGER.info("%d chunks, %d of them begun twice after %d kills", chunks, twice, KILLS)
    assert twice <= KILLS
    assert contents(killed.out) == contents(whole.out)


@pytest.mark.slow
def test_killed_at_random_moments_on_gs_it_ends_the_same(
    tmp_path: Path, texts: Path, full: Path, driver: Driver, gcs_bucket: str
):
    settings = {"output_rows_per_shard": 300, "chunk_texts": 20, "chunk_s": 0.05}
    whole = DrivenBackfill(driver, tmp_path / "whole", [str(texts)], full, str(tmp_path / "out"), settings)
    assert whole.start()["code"] == 0, driver.errors
    remote = join(gcs_bucket, "out")
    killed = DrivenBackfill(driver, tmp_path / "killed", [str(texts)], full, remote, settings)
    for line in killed_until_done(killed, 5, seed=11):
        LOGGER.info(line)
    assert killed.begun().total() - len(whole.begun()) <= 5
    assert contents(remote) == contents(whole.out)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "every"), [("local", 1), ("gs", 3)])
def test_killed_at_every_write_it_ends_the_same(
    tmp_path: Path, full: Path, driver: Driver, place: str, every: int, request: pytest.FixtureRequest
):
    texts = write_texts(tmp_path / "texts.jsonl", [f"{SCRIPTS[number % 7]} {number}" for number in range(12)])
    settings = {"output_rows_per_shard": 8, "chunk_texts": 4, "output_dtype": "float16"}
    base = request.getfixturevalue("gcs_bucket") if place == "gs" else str(tmp_path)
    loaded = {"model": str(full)}  # its loading writes nothing
    whole = DrivenBackfill(driver, tmp_path / "whole", [str(texts)], full, str(tmp_path / "whole-out"), settings)
    assert whole.start()["code"] == 0, driver.errors
    operation = 1 - every
    while True:
        operation += every
        out = join(base, f"out-{operation}")
        killed = DrivenBackfill(driver, tmp_path / f"{operation}", [str(texts)], full, out, settings)
        if killed.start(die_at=operation, **loaded)["state"] == "ended":
            break
        assert killed.start(**loaded)["code"] == 0, driver.errors
        assert contents(out) == contents(whole.out), operation
        assert killed.begun().total() <= len(whole.begun()) + 1, operation
    assert operation > 20
