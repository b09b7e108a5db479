"""The example pipelines on the backend: what they tell, and whom."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest

from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.pipelines import examples
from driftline.pipelines.profile import Profile
from driftline.pipelines.runs import run_embed
from tests.backend import toys
from tests.backend.release import Backend
from tests.components.embedding.tiny_models import save_model
from tests.support.datasets import write_embeddings, write_texts
from tests.support.http_server import TestServer, serving

pytestmark = pytest.mark.slow

TASKS: Final = 2
NIGHT: Final = "2026-11-30T00:00:01Z"  # its yesterday has texts, and so has the day before


def example(name: str) -> Callable[[Profile], Callable[..., Any]]:
    """Return an example's pipeline function, which is called as its module is."""
    return getattr(importlib.import_module(f"{examples.__name__}.{name}"), name)


def compiled(name: str) -> str:
    return toys.compiled(example(name)(Profile()))


class Hook(NamedTuple):
    """A webhook, and what it was sent."""

    url: str
    said: list[str]


@pytest.fixture
def hook() -> Iterator[Hook]:
    said: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep quiet."""

    with serving(TestServer(Handler)) as url:
        yield Hook(url, said)


class Lake(NamedTuple):
    """A model, texts by day, and the embeddings of all days but the last."""

    model: Path
    texts: Path
    embeddings: Path


@pytest.fixture(scope="module")
def lake(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    folder = tmp_path_factory.mktemp("lake")
    model = save_model(folder / "model", dense=40)  # drift keeps 32 components
    days = {"2026-11-28": "the film has a plot", "2026-11-29": "document query document"}
    for day, text in days.items():
        write_texts(folder / "texts" / f"date={day}" / "a.jsonl", [f"{text} {number}" for number in range(40)], day)
    archived = folder / "embeddings" / "date=2026-11-28"
    run_embed([str(folder / "texts" / "date=2026-11-28")], str(model), str(archived), BackfillSettings())
    return Lake(model, folder / "texts", folder / "embeddings")


def test_every_example_has_a_test_here() -> None:
    found = {module.name for module in pkgutil.iter_modules(examples.__path__)}
    assert found == {"gated_drift", "kernel_sums_alone", "nightly", "small_steps"}


def test_own_texts_that_drifted_are_told_of(backend: Backend, lake: Lake, hook: Hook, tmp_path: Path) -> None:
    run = backend.succeed(
        compiled("gated_drift"),
        {
            "text_files": [str(lake.texts / "date=2026-11-29")],
            "model": str(lake.model),
            "embeddings": str(tmp_path / "embeddings"),
            "reference": str(lake.embeddings / "date=2026-11-28"),
            "output_folder": str(tmp_path / "out"),
            "tasks": TASKS,
            "webhook": f"{hook.url}/secret",
        },
    )
    assert hook.said == [f"These texts no longer look like the reference; see {tmp_path / 'out' / 'report.html'}"], (
        run.story()
    )


def nightly(lake: Lake, hook: Hook, folder: Path, as_of: str) -> dict[str, Any]:
    """Return the parameters of a night, with an archive of its own."""
    shutil.copytree(lake.embeddings, folder / "embeddings")
    return {
        "text_files": [str(lake.texts / "date=yesterday")],
        "model": str(lake.model),
        "night": str(folder / "embeddings" / "date=yesterday"),
        "week": str(folder / "embeddings" / "date=-8d..-2d"),
        "output_folder": str(folder / "reports" / "{date}"),
        "tasks": TASKS,
        "webhook": hook.url,
        "window_as_of": as_of,
    }


def test_a_night_that_drifted_is_archived_and_told_of(backend: Backend, lake: Lake, hook: Hook, tmp_path: Path) -> None:
    backend.succeed(compiled("nightly"), nightly(lake, hook, tmp_path, NIGHT))
    report = tmp_path / "reports" / "2026-11-30" / "report.html"
    assert hook.said == [f"Last night's texts do not look like those of the week before; see {report}"]
    assert (tmp_path / "embeddings" / "date=2026-11-29" / "manifest.json").exists()


def test_a_night_without_texts_is_green_and_told_of(backend: Backend, lake: Lake, hook: Hook, tmp_path: Path) -> None:
    backend.succeed(compiled("nightly"), nightly(lake, hook, tmp_path, "2026-12-01T00:00:01Z"))
    report = tmp_path / "reports" / "2026-12-01" / "report.html"
    assert hook.said == [f"Last night there was nothing to compare; see {report}"]
    assert not (tmp_path / "embeddings" / "date=2026-11-30").exists()


@pytest.mark.parametrize(("mean", "verdict"), [(0.0, "no drift found"), (1.5, "drift found")])
def test_kernel_sums_alone_decide(backend: Backend, tmp_path: Path, mean: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    sides = {
        name: write_embeddings(str(tmp_path / name), rng.normal(at, 1.0, size=(50, 40)).astype(np.float32))
        for name, at in (("reference", 0.0), ("current", mean))
    }
    run = backend.succeed(
        compiled("kernel_sums_alone"), {**sides, "output_folder": str(tmp_path / "out"), "kernel_tasks": TASKS}
    )
    assert [len(node.attempts) for node in run.tasks("kernel-sums")] == [1] * TASKS
    [decided] = run.tasks("mmd-test")
    outputs = run.outputs(decided)
    assert (outputs["verdict"], outputs["drift"]) == (verdict, verdict == "drift found")
