from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.brokers import noida_broker


@pytest.fixture(scope="session")
def bootstrap() -> Generator[str]:
    with noida_broker() as address:
        yield address
