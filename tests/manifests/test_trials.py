"""The pods' commands, run here as the manifests say: they start, are probed, work, and end when they are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.manifests.objects import Object
from tests.manifests.trials import archived, embedded, running, send_embeddings, send_texts, status, trial
from tests.support import brokers
from tests.support.datasets import write_embeddings

TEXTS = {"a": "An honest film, and a long one.", "b": "A dog that talks.", "c": "Rain."}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """A broker with the topics that the README names."""
    with brokers.noida_broker() as address:
        names = ("texts", "requests", "embeddings", "alerts", "texts.dead-letters", "requests.dead-letters")
        brokers.create_topics(address, {f"driftline.{name}": 2 for name in names})
        yield address


def test_the_stream_worker(base: list[Object], broker: str, model_folder: Path) -> None:
    one = trial(base, "stream", BOOTSTRAP_SERVERS=broker, MODEL=str(model_folder))
    with running(one) as process:
        assert status(one.probes["liveness"]) == 200
        send_texts(broker, TEXTS)
        assert {one.text for one in embedded(broker, TEXTS).values()} == {*TEXTS.values()}
    assert process.returncode == 0


def test_the_archive(base: list[Object], broker: str, tmp_path: Path) -> None:
    out, index = tmp_path / "archive", tmp_path / "index"
    one = trial(base, "archive", BOOTSTRAP_SERVERS=broker, OUT=str(out), MAX_DELAY="0.1")
    one.arguments.append(f"--index-dir={index}")
    with running(one) as process:
        assert status(one.probes["liveness"]) == 200
        send_embeddings(broker, TEXTS)
        brokers.eventually(lambda: archived(out).items() >= TEXTS.items())
    assert process.returncode == 0
    assert [*index.iterdir()]


def test_the_monitor(base: list[Object], broker: str, tmp_path: Path) -> None:
    reference = write_embeddings(str(tmp_path / "reference"), np.random.default_rng(0).normal(size=(1200, 32)))
    places = {"BOOTSTRAP_SERVERS": broker, "REFERENCE": reference, "STATE": str(tmp_path / "state")}
    one = trial(base, "monitor", ERT="1000", FEATURES="16", **places)
    with running(one) as process:
        assert status(one.probes["liveness"]) == 200
        assert status(one.probes["liveness"].replace("/livez", "/metrics")) == 200
    assert process.returncode == 0
