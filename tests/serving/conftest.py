from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.brokers import noida_broker


@pytest.fixture(scope="session")
def bootstrap() -> Generator[str]:
    """The address of a broker that all tests of a process share; their topics and groups have names of their own."""
    with noida_broker() as address:
        yield address
