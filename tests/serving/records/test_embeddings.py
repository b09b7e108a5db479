from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import (
    EmbeddedText,
    VectorEncoding,
    read_embedding,
    write_embedding,
)

names = st.text(min_size=1, max_size=12)
vectors = hnp.arrays(np.float32, st.integers(1, 8), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(names, names, names, vectors, st.none() | st.text(), st.sampled_from(get_args(VectorEncoding)))
def test_what_is_written_is_read_back_to_the_bit(
    name: str, model: str, revision: str, vector: np.ndarray, text: str | None, encoding: VectorEncoding
) -> None:
    found = read_embedding(write_embedding(EmbeddedText(name, model, revision, vector, text), encoding))
    assert (found.id, found.model, found.revision, found.text) == (name, model, revision, text)
    assert found.vector.dtype == np.float32
    np.testing.assert_array_equal(found.vector, vector)


def test_the_values_are_plain_json() -> None:
    embedded = EmbeddedText("a", "m", "r", np.asarray([0.5, -1.0], np.float32), "words")
    expected = {"id": "a", "model": "m", "revision": "r", "embedding": [0.5, -1.0], "text": "words"}
    assert json.loads(write_embedding(embedded)) == expected
    encoded = json.loads(write_embedding(embedded, "base64"))["embedding"]
    assert base64.b64decode(encoded) == np.asarray([0.5, -1.0], "<f4").tobytes()


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_have_a_reason(content: bytes) -> None:
    with suppress(PoisonError):
        assert read_embedding(content).vector.size


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": ""}, "not-an-embedding"),
        ({"model": 7}, "not-an-embedding"),
        ({"revision": None}, "not-an-embedding"),
        ({"text": 7}, "not-an-embedding"),
        ({"embedding": []}, "vector"),
        ({"embedding": [True]}, "vector"),
        ({"embedding": ["1"]}, "vector"),
        ({"embedding": [1e39]}, "vector"),
        ({"embedding": "AAA"}, "vector"),
        ({"embedding": "AAAAAAA="}, "vector"),
        ({"embedding": base64.b64encode(np.asarray([np.nan], "<f4").tobytes()).decode()}, "vector"),
        ({"embedding": None}, "vector"),
    ],
)
def test_each_value_that_is_none_has_its_reason(changes: dict[str, object], reason: str) -> None:
    value = {"id": "a", "model": "m", "revision": "r", "embedding": [0.5], **changes}
    with pytest.raises(PoisonError) as caught:
        read_embedding(json.dumps(value).encode())
    assert caught.value.reason == reason
