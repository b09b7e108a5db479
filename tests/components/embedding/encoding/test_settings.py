from __future__ import annotations

import pytest

from driftline.components.embedding.encoding.settings import EncoderSettings


@pytest.mark.parametrize(
    ("settings", "revision"),
    [
        (EncoderSettings(), "sha256:0123456789abcdef"),
        (EncoderSettings(prompt="query", dimension=64), "sha256:0123456789abcdef;prompt=query;dimension=64"),
        (
            EncoderSettings("document", "bfloat16", 64, 128, "mean", 8),
            "sha256:0123456789abcdef;prompt=document;precision=bfloat16;dimension=64;max_tokens=128;segments=mean;"
            "overlap=8",
        ),
    ],
)
def test_settings_that_are_not_the_defaults_are_in_the_revision(settings: EncoderSettings, revision: str):
    # Datasets and topics carry these texts: what is written here must not change.
    assert settings.vector_revision("sha256:0123456789abcdef") == revision
