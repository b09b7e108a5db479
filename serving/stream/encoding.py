"""Texts of a micro-batch to vectors; a text that the model fails on is distinguished from a model that fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DriftlineError, one_line
from driftline.serving.batching.halving import PROBE_TEXT, HalvedBatches
from driftline.serving.errors import PoisonError, UnavailableError

# What models and tokenizers raise over a text that they cannot take.
_MODEL_ERRORS: Final = (DriftlineError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError)

_SHOWN: Final = 60


class TextEncoder(Protocol):
    """The part that a worker needs of :class:`driftline.components.embedding.encoding.encoder.Encoder`."""

    max_tokens: int

    def encode(self, texts: Sequence[str]) -> Any:
        """Return something whose ``vectors`` are the texts', (texts, d) float32."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder and what its vectors are of.

    Attributes:
        encoder: texts to vectors.
        name: of the model, as in embeddings datasets.
        revision: of the model's content and of the settings that decide its vectors, as in embeddings datasets.
    """

    encoder: TextEncoder
    name: str
    revision: str


def encode_each(encoder: TextEncoder, texts: Sequence[str]) -> list[NDArray[np.float32] | PoisonError]:
    """Return each text's vector, or why it has none.

    Where the model fails on a batch, the texts that it fails on are searched for by halves: log₂(texts) further calls
    for each.

    Raises:
        UnavailableError: the model fails on every text: it is the model, or its device, that is broken.
    """
    results: dict[int, NDArray[np.float32] | PoisonError] = {}
    rows, halves = [*range(len(texts))], HalvedBatches[int]()
    while rows:
        vectors, failure = _tried(encoder, [texts[row] for row in rows])
        if failure is None:
            results.update(zip(rows, vectors, strict=True))
        else:
            whole = len(rows) == len(texts)
            row = halves.split(rows)
            if whole or row is not None:  # a device may break at any time, and then no text is to blame
                _check(encoder, failure)
            if row is not None:
                results[row] = _poison(texts[row], failure)
        rows = halves.take()
    return [results[row] for row in range(len(texts))]


def _poison(text: str, failure: BaseException) -> PoisonError:
    reason = one_line(failure)
    return PoisonError("model", f"text {text[:_SHOWN]!r}: the model fails on it ({reason}); leave it out")


def _tried(encoder: TextEncoder, texts: Sequence[str]) -> tuple[Sequence[NDArray[np.float32]], BaseException | None]:
    """Return the texts' vectors, or none and what the model raised."""
    try:
        vectors = encoder.encode(texts).vectors
    except _MODEL_ERRORS as error:
        return (), error
    return list(vectors), None


def _check(encoder: TextEncoder, failure: BaseException) -> None:
    _, broken = _tried(encoder, [PROBE_TEXT])
    if broken is not None:
        reason = one_line(broken)
        raise UnavailableError(
            f"model: it fails on every text ({reason}); see to the device and the model, then start the worker again"
        ) from failure
