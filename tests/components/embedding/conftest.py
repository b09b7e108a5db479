from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from driftline.components.embedding.encoding.encoder import cpu_threads
from tests.components.embedding.backfills import TEXTS, Backfill
from tests.components.embedding.driven import Driver, task_driver
from tests.components.embedding.tiny_models import save_model, save_transformer
from tests.support.datasets import write_texts


@pytest.fixture(scope="package", autouse=True)
def _one_thread_for_torch() -> Iterator[None]:
    """Let models run in one thread where no encoder has threads of its own: see `_one_thread_for_blas`."""
    threads = cpu_threads()  # remembered: encoders keep a thread for each core
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, to be read only; `full` has every kind of module and prompts."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "mean", pooling="mean")
    save_model(folder / "cls", pooling="cls")
    save_model(folder / "max", pooling="max")
    save_model(folder / "full", dense=8, normalize=True, prompts={"query": "query: ", "document": "document film "})
    save_model(folder / "default", prompts={"query": "query: ", "document": ""}, default_prompt="query")
    save_transformer(folder / "plain")
    return folder


@pytest.fixture
def full(models: Path) -> Path:
    """A model with a dense layer, normalisation and prompts, to be read only."""
    return models / "full"


@pytest.fixture
def copy(full: Path, tmp_path: Path) -> Path:
    """A copy of `full`, for a test to damage."""
    return Path(shutil.copytree(full, tmp_path / "copy"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file of the backfills' eleven texts."""
    return write_texts(tmp_path / "texts.jsonl", TEXTS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a dataset goes."""
    return tmp_path / "out"


@pytest.fixture
def work(tmp_path: Path) -> Backfill:
    """A backfill to run."""
    return Backfill(tmp_path / "work")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory, gcs_endpoint: str) -> Iterator[Driver]:
    """The program that runs tasks in processes of their own; it knows of the Google Cloud Storage emulator."""
    with task_driver(tmp_path_factory.mktemp("driver")) as driver:
        yield driver
