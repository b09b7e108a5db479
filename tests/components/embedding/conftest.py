from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.components.embedding.backfills import TEXTS, Backfill
from tests.components.embedding.tiny_models import save_model, save_transformer
from tests.support.datasets import write_texts


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
