"""A model made ready: how its texts become sequences, and how these go through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from driftline.components.embedding.encoding.forward import Forward
from driftline.components.embedding.encoding.packed import first_position
from driftline.components.embedding.encoding.probe import choose_way
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.embedding.encoding.tokens import TextTokenizer, Tokens
from driftline.components.errors import DataError, UsageError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_CHARACTERS_A_TOKEN: Final = 4


class ForwardPass(Protocol):
    """Runs sequences through a model."""

    packed: bool

    def __call__(self, sequences: Sequence[Any]) -> Tensor:
        """Return the vectors of some sequences, (sequences, full dimension), in order, on the model's device."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """What an encoder needs of a model.

    Attributes:
        tokenize: turns texts into sequences.
        forward: turns sequences into vectors.
        max_tokens: tokens of a sequence at most; 0 where the model knows no limit.
    """

    tokenize: Callable[[Sequence[str]], Tokens]
    forward: ForwardPass
    max_tokens: int


def open_engine(
    model: SentenceTransformer, name: str, settings: EncoderSettings, dtype: torch.dtype, *, compiled: bool
) -> Engine:
    """Make a loaded model ready, in its precision.

    Transformers that take plain text go token by token, see :class:`TextTokenizer` and :class:`Forward`; any other
    model through sentence-transformers' own preprocessing.

    Args:
        model: in float32, in evaluation mode, on its device.
        name: what the user called it, for messages.
        settings: what decides the vectors.
        dtype: the precision.
        compiled: whether to translate it by `torch.compile`.

    Raises:
        UsageError: the model cannot do what the settings ask for.
        DataError: its vectors in this precision are wrong.
    """
    prompt = model.prompts.get(settings.prompt or model.default_prompt_name or "") or ""
    first: Any = model[0]
    fast = isinstance(first, Transformer) and hasattr(first.tokenizer, "backend_tokenizer")
    if not fast or "message" in first.modality_config:
        return _whole_texts(model, name, settings, prompt, dtype, compiled=compiled)
    limit = _max_tokens(first, name, settings)
    first.max_seq_length = limit
    tokenizer = TextTokenizer(
        first.tokenizer,
        max_tokens=limit,
        prompt=prompt,
        segments=bool(settings.segments),
        overlap=settings.overlap,
    )
    forward = Forward(model, tokenizer.prompt_tokens or None)
    choose_way(model, name, forward, tokenizer, prompt, dtype, compiled=compiled)
    return Engine(tokenizer, forward, limit)


def _max_tokens(first: Any, name: str, settings: EncoderSettings) -> int:
    """Return the tokens of a sequence at most: those of the model, or fewer."""
    positions = getattr(first.config, "max_position_embeddings", None)
    known = [first.max_seq_length, None if positions is None else positions - first_position(first.auto_model)]
    limits = [int(value) for value in known if value is not None and value > 0]
    if not limits:
        raise DataError(f"model {name}: it does not say how long its texts may be; set max_seq_length in its files")
    return min([*limits, settings.max_tokens] if settings.max_tokens else limits)


def _whole_texts(
    model: SentenceTransformer,
    name: str,
    settings: EncoderSettings,
    prompt: str,
    dtype: torch.dtype,
    *,
    compiled: bool,
) -> Engine:
    asked = {
        "segments": bool(settings.segments),
        "max-tokens": bool(settings.max_tokens),
        "compile": compiled,
        "precision": dtype == torch.bfloat16,
    }
    for what, wanted in asked.items():
        if wanted:
            raise UsageError(f"{what}: model {name} is no plain text transformer, for which alone this is there")
    if dtype == torch.float16:
        model.half()
    limit = model.max_seq_length
    return Engine(_whole, _WholeTextForward(model, prompt or None), limit if isinstance(limit, int) else 0)


def _whole(texts: Sequence[str]) -> Tokens:
    """Take each text as one sequence; its tokens are not known, and taken for a quarter of its characters."""
    lengths = np.fromiter((len(text) // _CHARACTERS_A_TOKEN + 1 for text in texts), np.int64, len(texts))
    return Tokens(list(texts), np.arange(len(texts)), lengths, 0)


class _WholeTextForward:
    """Runs texts through a model by way of sentence-transformers' own preprocessing."""

    def __init__(self, model: SentenceTransformer, prompt: str | None) -> None:
        self._model = model
        self._prompt = prompt
        self.packed = False

    def __call__(self, sequences: Sequence[str]) -> Tensor:
        with torch.inference_mode():
            features = self._model.preprocess(list(sequences), prompt=self._prompt)
            sent = {
                key: value.to(self._model.device) if isinstance(value, Tensor) else value
                for key, value in features.items()
            }
            return cast("Any", self._model)(sent)["sentence_embedding"]
