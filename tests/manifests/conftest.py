"""The base, built once."""

from __future__ import annotations

import copy

import pytest

from tests.manifests.objects import BASE, Object, build


@pytest.fixture(scope="session")
def built_base() -> list[Object]:
    return build(BASE)


@pytest.fixture
def base(built_base: list[Object]) -> list[Object]:
    """The base's objects; a test may change them."""
    return copy.deepcopy(built_base)
