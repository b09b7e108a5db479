"""Encoding by halves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import DataError
from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.stream.encoding import encode_each
from tests.serving.stream.workers import FakeEncoder, vector_of


@given(st.sets(st.integers(0, 30)), st.integers(0, 31))
def test_the_texts_that_fail_are_found_and_the_others_have_their_vectors(failing: set[int], count: int) -> None:
    texts = [f"text {number}" for number in range(count)]
    encoder = FakeEncoder(fails=frozenset(f"text {number}" for number in failing), error=DataError)
    found = encode_each(encoder, texts)
    assert len(found) == count
    for number, (text, result) in enumerate(zip(texts, found, strict=True)):
        if isinstance(result, PoisonError):
            assert number in failing
            assert result.reason == "model"
        else:
            assert number not in failing
            np.testing.assert_array_equal(result, vector_of(text))


def test_one_bad_text_costs_a_logarithm_of_calls() -> None:
    encoder = FakeEncoder(fails=frozenset({"text 700"}))
    encode_each(encoder, [f"text {number}" for number in range(1024)])
    assert len(encoder.batches) <= 2 + 2 * 10 + 1


def test_a_model_that_breaks_is_not_the_texts_fault() -> None:
    class Breaking(FakeEncoder):
        def encode(self, texts: Sequence[str]):
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(UnavailableError, match=r"it fails on every text .CUDA error"):
        encode_each(Breaking(), ["a", "b"])


def test_a_bug_is_not_taken_for_a_text_that_fails() -> None:
    class Odd(FakeEncoder):
        def encode(self, texts: Sequence[str]):
            raise AttributeError("no such thing")

    with pytest.raises(AttributeError):
        encode_each(Odd(), ["a"])
