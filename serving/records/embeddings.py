"""Values of the embeddings topic: what is known of one text, as JSON."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.serving.errors import PoisonError

VectorEncoding = Literal["numbers", "base64"]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedText:
    """One text's vector.

    Attributes:
        id: the text's id.
        model: name of the model.
        revision: identity of the model's content and of the settings that decide its vectors.
        vector: (d,) float32, finite.
        text: the text itself, where it is carried along.
    """

    id: str
    model: str
    revision: str
    vector: NDArray[np.float32]
    text: str | None = None


def write_embedding(embedded: EmbeddedText, encoding: VectorEncoding = "numbers") -> bytes:
    """Return the JSON of one text's vector.

    Args:
        embedded: what is known of the text.
        encoding: ``numbers``, a list of the shortest decimals that read back as the same float32, or ``base64``, of the
            little-endian float32 (a third of the size).
    """
    vector: object = np.ascontiguousarray(embedded.vector, np.float32)
    if encoding == "base64":
        vector = base64.b64encode(np.asarray(embedded.vector, "<f4").tobytes()).decode()
    value: dict[str, object] = {
        "id": embedded.id,
        "model": embedded.model,
        "revision": embedded.revision,
        "embedding": vector,
    }
    if embedded.text is not None:
        value["text"] = embedded.text
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def read_embedding(content: bytes) -> EmbeddedText:
    """Return what :func:`write_embedding` wrote, in either encoding.

    Raises:
        PoisonError: ``not-json``, ``not-an-embedding`` or ``vector``: it is no such value.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise PoisonError("not-json", f"embedding: is not JSON ({error}); is this the embeddings topic?") from error
    if not isinstance(value, dict):
        raise PoisonError("not-an-embedding", "embedding: is not a JSON object; is this the embeddings topic?")
    fields = cast("dict[str, Any]", value)
    for name in ("id", "model", "revision"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise PoisonError("not-an-embedding", f"embedding: {name!r} is not a string; is this the embeddings topic?")
    text = fields.get("text")
    if text is not None and not isinstance(text, str):
        raise PoisonError("not-an-embedding", f"embedding of {fields['id'][:60]!r}: 'text' is not a string")
    vector = _vector(fields["id"], fields.get("embedding"))
    return EmbeddedText(fields["id"], fields["model"], fields["revision"], vector, text)


def _vector(name: str, value: object) -> NDArray[np.float32]:
    refused = PoisonError(
        "vector", f"embedding of {name[:60]!r}: expected finite numbers, or base64 of little-endian float32"
    )
    try:
        if isinstance(value, str):
            vector = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
        elif isinstance(value, list) and {*map(type, cast("list[object]", value))} <= {int, float}:
            with np.errstate(over="ignore"):
                vector = np.asarray(value, np.float64).astype(np.float32)
        else:
            raise refused
    except (binascii.Error, ValueError, OverflowError) as error:
        raise refused from error
    if not vector.size or not np.isfinite(vector).all():
        raise refused
    return vector
