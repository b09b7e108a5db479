"""The examples of the documentation, run."""

from __future__ import annotations

import doctest

import pytest

from driftline.components import mmd
from driftline.components.mmd import two_sample


@pytest.mark.parametrize("module", [mmd, two_sample], ids=["package", "two_sample"])
def test_examples_of_the_docstrings(module):
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=4 if module is two_sample else 9)


def test_every_public_name_loads_and_others_do_not():
    assert [name for name in mmd.__all__ if not callable(getattr(mmd, name))] == []
    with pytest.raises(AttributeError, match="has no attribute 'two_samples_test'"):
        mmd.two_samples_test  # noqa: B018
