"""The backend of the environment's release, for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backend import pods, services
from tests.backend.release import Backend, Release


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Kubeflow Pipelines' own compiler, driver and launcher with their services."""
    try:
        release = Release.of_environment()
        if lack := pods.missing():
            raise services.MissingPartError(lack)
        folder = tmp_path_factory.mktemp("backend")
        with services.running(folder) as started:
            yield Backend(release, started, folder, tmp_path_factory.getbasetemp())
    except services.MissingPartError as missing:
        pytest.skip(str(missing))
