"""Both stores, for the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty_proxy import FaultyProxy, faulty_proxy


@pytest.fixture(params=["local", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, local or gs://, that is not there yet."""
    if request.param == "local":
        return str(tmp_path / "data")
    return request.getfixturevalue("gcs_bucket")


@pytest.fixture
def proxy(gcs_endpoint: str) -> Iterator[FaultyProxy]:
    """A proxy in front of the emulator, harmless until told otherwise."""
    with faulty_proxy(gcs_endpoint) as proxy:
        yield proxy
