"""The examples of the documentation, run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from driftline.components import embedding


def test_examples_of_the_docstrings(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").symlink_to(models / "full")
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(embedding) == doctest.TestResults(failed=0, attempted=6)


def test_every_public_name_loads_and_others_do_not():
    assert [name for name in embedding.__all__ if not callable(getattr(embedding, name))] == []
    with pytest.raises(AttributeError, match="has no attribute 'encode'"):
        embedding.encode  # noqa: B018
