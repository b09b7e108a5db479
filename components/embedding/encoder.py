"""The encoder: texts to vectors, by a sentence-transformers model and all of its modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self, cast

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.normalize import Normalize
from transformers.utils import logging as transformers_logging

from driftline.components.embedding.model_folder import check_model_folder, check_prompt
from driftline.components.embedding.weights import check_weights
from driftline.components.errors import DataError, DriftlineError

BATCH_SIZE = 32
"""Texts in one forward pass."""

# What the libraries raise over a damaged file: safetensors' error and that of configurations are no ValueErrors.
_LOAD_ERRORS: Final = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


class Encoder:
    """A model in memory, ready to encode.

    Every module of the model is honoured: transformer, pooling of any kind, dense layers, normalisation, prompts.
    Nothing is done to a text but what the model's own tokenizer does; what exceeds the model's maximum length is cut
    there.

    Attributes:
        dimension: length of a vector.
        normalized: whether the model's last module gives vectors of length 1.
    """

    def __init__(self, model: SentenceTransformer, name: str, prompt: str) -> None:
        self._model = model
        self._name = name
        self._prompt = prompt or None
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise DataError(
                f"model {name}: it does not say how long its vectors are, so it makes none; is it an encoder?"
            )
        self.dimension: int = dimension
        self.normalized: bool = isinstance([*model][-1], Normalize)

    @classmethod
    def load(cls, folder: Path, name: str, *, prompt: str = "", device: str | None = None) -> Self:
        """Load a model from a local folder.

        Args:
            folder: a sentence-transformers model, or a transformers one (its token vectors are then averaged).
            name: what the user called it, for messages.
            prompt: name of one of the model's prompts, for example ``"document"``; empty for the model's default.
            device: a PyTorch device such as ``"cuda:0"``; None for the best there is.

        Raises:
            DataError: the folder is no model that can be loaded safely.
            UsageError: the model has no such prompt.
        """
        check_model_folder(folder, name)
        check_prompt(folder, name, prompt)
        transformers_logging.disable_progress_bar()  # a bar over weights tears the step's own progress apart
        try:
            model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
            check_weights(model, folder, name)
        except DriftlineError:
            raise
        except _LOAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise DataError(f"model {name}: could not be loaded ({reason}); fetch it again or save it anew") from error
        return cls(model, name, prompt)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of some texts, (texts, dimension) float32, in order.

        Raises:
            DataError: the model gave a NaN or an infinite value.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        vectors = self._model.encode(
            list(texts), prompt_name=self._prompt, batch_size=BATCH_SIZE, show_progress_bar=False
        )
        array = np.asarray(cast("NDArray[np.float32]", vectors), np.float32)
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            raise DataError(
                f"model {self._name}: the vector of text {texts[int(np.argmin(finite))][:60]!r} holds NaN or infinite "
                "values; use float32 weights, or leave the text out"
            )
        return array
