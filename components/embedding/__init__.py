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

from typing import TYPE_CHECKING

from driftline.components.public_names import on_demand

if TYPE_CHECKING:
    from driftline.components.embedding.encoding.encoder import Encoder
    from driftline.components.embedding.encoding.opening import OpenedEncoder, open_encoder
    from driftline.components.embedding.encoding.settings import EncoderSettings, Tuning
    from driftline.components.embedding.encoding.text import Encoding

__all__ = ["Encoder", "EncoderSettings", "Encoding", "OpenedEncoder", "Tuning", "open_encoder"]

# An encoder needs PyTorch, its settings do not.
_HOMES = {
    "Encoder": "encoding.encoder",
    "EncoderSettings": "encoding.settings",
    "Encoding": "encoding.text",
    "OpenedEncoder": "encoding.opening",
    "Tuning": "encoding.settings",
    "open_encoder": "encoding.opening",
}
__getattr__ = on_demand(__name__, _HOMES)
