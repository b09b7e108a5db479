"""Both stores, for the same tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["local", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, local or gs://, that is not there yet."""
    if request.param == "local":
        return str(tmp_path / "data")
    return request.getfixturevalue("gcs_bucket")
