"""Embedding: the encoder (`encoding/`), and datasets of whole corpora, made in parts that survive a kill (`backfill/`).

A model is a folder, a gs:// prefix or a name on the Hugging Face hub:

>>> from driftline.components.embedding import EncoderSettings, open_encoder
>>> opened = open_encoder("model", EncoderSettings(max_tokens=32))
>>> encoding = opened.encoder.encode(["a film", "a plot", "a film " * 100])
>>> encoding.vectors.shape == (3, opened.encoder.dimension)
True
>>> encoding.truncated  # texts longer than 32 tokens
1

Vectors compare only where their revisions are equal:

>>> opened.revision == opened.model_revision + ";max_tokens=32"
True
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from driftline.components.embedding.encoding.encoder import Encoder
    from driftline.components.embedding.encoding.opening import OpenedEncoder, open_encoder
    from driftline.components.embedding.encoding.settings import EncoderSettings, Tuning
    from driftline.components.embedding.encoding.text import Encoding

__all__ = ["Encoder", "EncoderSettings", "Encoding", "OpenedEncoder", "Tuning", "open_encoder"]

_MODULES = {
    "Encoder": "encoder",
    "EncoderSettings": "settings",
    "Encoding": "text",
    "OpenedEncoder": "opening",
    "Tuning": "settings",
    "open_encoder": "opening",
}


def __getattr__(name: str) -> Any:
    """Load a public name's module at its first use: an encoder needs PyTorch, its settings do not."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.encoding.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
