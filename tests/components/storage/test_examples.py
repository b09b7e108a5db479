"""The examples of the package's docstring."""

from __future__ import annotations

import doctest

from driftline.components import storage


def test_the_examples_show_what_happens() -> None:
    found = doctest.testmod(storage)
    assert found.attempted > 0
    assert found.failed == 0
