"""The pods' commands, run here as the manifests say: they start, are probed, work, and end when they are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manifests import trials
from tests.manifests.objects import Object
from tests.manifests.trials import TEXTS, running, status, trial
from tests.support import brokers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with trials.readme_broker() as address:
        yield address


def test_the_server(base: list[Object], broker: str, model_folder: Path) -> None:
    one = trial(base, "serve", BOOTSTRAP_SERVERS=broker, MODEL=f"embed={model_folder}")
    with running(one) as process:
        assert status(one.probes["liveness"]) == 200
        trials.send_events(one, base, TEXTS)
        seen = trials.embedded(broker, TEXTS)
    assert process.returncode == 0
    trials.assert_vectors_of(model_folder, seen)


def test_the_stream_worker(base: list[Object], broker: str, model_folder: Path) -> None:
    texts = {f"streamed-{key}": text for key, text in TEXTS.items()}
    one = trial(base, "stream", BOOTSTRAP_SERVERS=broker, MODEL=str(model_folder))
    with running(one) as process:
        assert status(one.probes["liveness"]) == 200
        trials.send_texts(broker, texts)
        seen = trials.embedded(broker, texts)
    assert process.returncode == 0
    trials.assert_vectors_of(model_folder, seen)


def test_the_archive(base: list[Object], broker: str, tmp_path: Path) -> None:
    texts = {f"archived-{key}": text for key, text in TEXTS.items()}
    out, index = tmp_path / "archive", tmp_path / "index"
    one = trial(base, "archive", BOOTSTRAP_SERVERS=broker, OUT=str(out), MAX_DELAY_S="0.1")
    one.arguments.append(f"--index-dir={index}")
    with running(one) as process:
        assert status(one.probes["liveness"]) == 200
        trials.send_embeddings(broker, texts)
        brokers.eventually(lambda: trials.archived(out).items() >= texts.items())
    assert process.returncode == 0
    assert [*index.iterdir()]


def test_the_monitor(base: list[Object], broker: str, tmp_path: Path) -> None:
    places = {"REFERENCE": trials.write_reference(tmp_path / "reference"), "STATE": str(tmp_path / "state")}
    one = trial(base, "monitor", BOOTSTRAP_SERVERS=broker, **trials.QUICK_MONITOR, **places)
    with running(one) as process:
        assert status(one.probes["liveness"]) == 200
        assert status(one.probes["liveness"].replace("/livez", "/metrics")) == 200
    assert process.returncode == 0
