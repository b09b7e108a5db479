"""Models as a command line names them."""

from __future__ import annotations

import pytest

from driftline.components.errors import UsageError
from driftline.serving.models.spec import ModelSpec


@pytest.mark.parametrize(
    ("text", "name", "uri"),
    [
        ("minilm=gs://bucket/models/all-MiniLM-L6-v2", "minilm", "gs://bucket/models/all-MiniLM-L6-v2"),
        ("gs://bucket/models/all-MiniLM-L6-v2/", "all-MiniLM-L6-v2", "gs://bucket/models/all-MiniLM-L6-v2/"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        (" /mnt/models ", "models", "/mnt/models"),
        ("/data/run=7/e5", "e5", "/data/run=7/e5"),
        ("e5=/data/run=7", "e5", "/data/run=7"),
        ("gs://bucket/run=7", None, None),
        ("a=", None, None),
        ("=b", None, None),
        ("", None, None),
        ("/", None, None),
        ("..", None, None),
        ("two words=/m", None, None),
        ("ünï=/m", None, None),
        ("x" * 129 + "=/m", None, None),
    ],
)
def test_a_model_has_a_name_and_a_place(text: str, name: str | None, uri: str | None):
    if name is None:
        with pytest.raises(UsageError, match=r"^model[: ].*NAME=URI"):
            ModelSpec.parse(text)
    else:
        assert ModelSpec.parse(text) == ModelSpec(name, uri or "")
