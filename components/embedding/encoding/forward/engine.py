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

from driftline.components.embedding.encoding.forward.forward import Forward, choose_mode
from driftline.components.embedding.encoding.forward.packed import first_position
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.embedding.encoding.text import Prompt, TextTokenizer, Tokens
from driftline.components.errors import DataError, UsageError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_CHARACTERS_A_TOKEN: Final = 4


class ForwardPass(Protocol):
    """Runs sequences through a model."""

    packed: bool

    def __call__(self, sequences: Sequence[Any], prompt: Prompt | None = None) -> Tensor:
        """Return the vectors of some sequences, (sequences, full dimension), in order, on the model's device.

        Args:
            sequences: tokens, or whole texts, all of one prompt where the pass must know it.
            prompt: as :class:`Prompted` says; None for the one that the encoder's settings name.
        """
        ...


@dataclass(frozen=True, slots=True)
class Prompted:
    """A model's texts with one of its prompts.

    Attributes:
        tokenize: turns texts into sequences.
        prompt: what the forward pass must know of the prompt; None where sequences of several prompts may go together.
    """

    tokenize: Callable[[Sequence[str]], Tokens]
    prompt: Prompt | None


@dataclass(frozen=True, slots=True)
class Engine:
    """A model, as an encoder uses it.

    Attributes:
        tokenize: turns texts into sequences, with the prompt that the settings name.
        prompted: the same for another prompt, given its text.
        forward: turns sequences into vectors.
        max_tokens: tokens of a sequence at most; 0 where the model knows no limit.
    """

    tokenize: Callable[[Sequence[str]], Tokens]
    prompted: Callable[[str], Prompted]
    forward: ForwardPass
    max_tokens: int


def open_engine(
    model: SentenceTransformer, name: str, settings: EncoderSettings, dtype: torch.dtype, *, torch_compile: bool
) -> Engine:
    """Make a loaded model ready, in its precision.

    Transformers that take plain text go token by token, see :class:`TextTokenizer` and :class:`Forward`; any other
    model through sentence-transformers' own preprocessing.

    Args:
        model: in float32, in evaluation mode, on its device.
        name: what the user called it, for messages.
        settings: what decides the vectors.
        dtype: the precision.
        torch_compile: whether to translate it by `torch.compile`.

    Raises:
        UsageError: the model cannot do what the settings ask for.
        DataError: its vectors in this precision are wrong.
    """
    prompt = model.prompts.get(settings.prompt or model.default_prompt_name or "") or ""
    first: Any = model[0]
    fast = isinstance(first, Transformer) and hasattr(first.tokenizer, "backend_tokenizer")
    if not fast or "message" in first.modality_config:
        return _whole_texts(model, name, settings, prompt, dtype, torch_compile=torch_compile)
    limit = _max_tokens(first, name, settings)
    first.max_seq_length = limit

    def tokenizer_of(prompt: str) -> TextTokenizer:
        return TextTokenizer(
            first.tokenizer,
            max_tokens=limit,
            prompt=prompt,
            segments=bool(settings.segments),
            overlap=settings.overlap,
        )

    def prompted(prompt: str) -> Prompted:
        other = tokenizer_of(prompt)
        return Prompted(other, Prompt(prompt, other.prompt_tokens) if leaves_prompt_out else None)

    tokenizer = tokenizer_of(prompt)
    leaves_prompt_out = any(getattr(module, "include_prompt", True) is False for module in model)
    forward = Forward(model, tokenizer.prompt_tokens or None)
    choose_mode(model, name, forward, tokenizer, prompt, dtype, torch_compile=torch_compile)
    return Engine(tokenizer, prompted, forward, limit)


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
    torch_compile: bool,
) -> Engine:
    asked = {
        "segments": bool(settings.segments),
        "max-tokens": bool(settings.max_tokens),
        "compile": torch_compile,
        "precision": dtype == torch.bfloat16,
    }
    for what, wanted in asked.items():
        if wanted:
            raise UsageError(f"{what}: model {name} is no plain text transformer, for which alone this is there")
    if dtype == torch.float16:
        model.half()
    limit = model.max_seq_length
    forward = _WholeTextForward(model, prompt or None)
    return Engine(
        _whole, lambda text: Prompted(_whole, Prompt(text, 0)), forward, limit if isinstance(limit, int) else 0
    )


def _whole(texts: Sequence[str]) -> Tokens:
    """Take each text as one sequence; its tokens are not known, and taken for a quarter of its characters."""
    lengths = np.fromiter((len(text) // _CHARACTERS_A_TOKEN + 1 for text in texts), np.int64, len(texts))
    return Tokens(list(texts), np.arange(len(texts)), lengths)


class _WholeTextForward:
    """Runs texts through a model by way of sentence-transformers' own preprocessing."""

    def __init__(self, model: SentenceTransformer, prompt: str | None) -> None:
        self._model = model
        self._prompt = prompt
        self.packed = False

    def __call__(self, sequences: Sequence[str], prompt: Prompt | None = None) -> Tensor:
        before = self._prompt if prompt is None else prompt.text or None
        with torch.inference_mode():
            features = self._model.preprocess(list(sequences), prompt=before)
            sent = {
                key: value.to(self._model.device) if isinstance(value, Tensor) else value
                for key, value in features.items()
            }
            return cast("Any", self._model)(sent)["sentence_embedding"]
