"""Token sequences through a sentence-transformers model, by the fastest way that gives the model's own vectors.

There are two ways: packed (sequences laid end to end, no padding, see :mod:`.packed`) and padded. Which one holds is
not read off the architecture's name but measured: at loading, the vectors of a few texts are compared with those of
sentence-transformers itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from torch import Tensor

from driftline.components.embedding.encoding.forward.linear import LinearLayers
from driftline.components.embedding.encoding.forward.packed import PACKED, NotPackedError, first_position, pack
from driftline.components.embedding.encoding.tokens import Prompt

# Modules that work on packed sequences, or on vectors of whole texts, whatever gave them.
_PACKED_MODULES: Final = (Transformer, Pooling, Dense, Normalize, LayerNorm, Dropout)
_PACKED_KEYS: Final = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a model.

    Attributes:
        pack: lay sequences end to end, without padding.
        fuse: use fused products, on a CPU.
    """

    pack: bool
    fuse: bool


class Forward:
    """Runs a model on token sequences.

    Args:
        model: in evaluation mode, on its device, in float32, or wholly in half precision.
        prompt_length: tokens of the prompt that the settings name, for models whose pooling leaves it out; None where
            there is none.

    Attributes:
        packed: whether sequences go without padding.
    """

    def __init__(self, model: SentenceTransformer, prompt_length: int | None) -> None:
        self._model = model
        self._transformer: Any = model[0]
        self._prompt_length = prompt_length
        tokenizer = self._transformer.tokenizer
        self._pad_id: int = tokenizer.pad_token_id or 0
        self._pad_left: bool = tokenizer.padding_side == "left"
        self._first_position = 0
        self._own_attention = ""
        self._layers: LinearLayers | None = None
        self.packed = False

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    def take(self, way: Way, dtype: torch.dtype) -> None:
        """Switch to a way, with linear layers of a number type; the vectors that come out are to be compared.

        Raises:
            NotPackedError: the model is not of the kind.
        """
        self.leave()
        model = self._transformer.auto_model
        if way.pack and not all(isinstance(module, _PACKED_MODULES) for module in self._model):
            raise NotPackedError("a module of the model wants padded sequences")
        if way.fuse or dtype != model.dtype:
            self._layers = LinearLayers(model, dtype, fuse=way.fuse, packed=way.pack)
        if way.pack:
            self._own_attention = model.config._attn_implementation
            model.set_attn_implementation(PACKED)
            if self._transformer.model_forward_params is not None:
                self._transformer.model_forward_params |= _PACKED_KEYS
            self._first_position = first_position(model)
            self.packed = True

    def leave(self) -> None:
        """Go back to padded sequences and the model's own layers."""
        if self._layers is not None:
            self._layers.undo()
            self._layers = None
        if self.packed:
            self._transformer.auto_model.set_attn_implementation(self._own_attention)
            self.packed = False

    def settle(self) -> None:
        """Stay on the way taken, for good."""
        if self._layers is not None:
            self._layers.settle()

    def __call__(self, sequences: Sequence[NDArray[np.int64]], prompt: Prompt | None = None) -> Tensor:
        """Return the vectors of some sequences, (sequences, dimension), in order, on the model's device.

        Args:
            sequences: their tokens.
            prompt: that of all of them, for models whose pooling leaves it out; None for the one that the settings
                name.
        """
        prompt_length = self._prompt_length if prompt is None else prompt.tokens or None
        count = len(sequences)
        features = pack(self._filled(sequences), self._first_position) if self.packed else self._padded(sequences)
        if self.device.type == "cuda":
            # From pinned memory the copy runs beside the device's work, and this thread goes on.
            features = {name: _sent(value, self.device) for name, value in features.items()}
        features["modality"] = "text"
        if prompt_length is not None:
            features["prompt_length"] = prompt_length
        with torch.inference_mode():
            return self._model(features)["sentence_embedding"][:count]

    def _filled(self, sequences: Sequence[NDArray[np.int64]]) -> Sequence[NDArray[np.int64]]:
        """Return sequences of as round a number of tokens as the layers want, by one more where it takes that."""
        missing = -sum(map(len, sequences)) % (1 if self._layers is None else self._layers.round_tokens)
        return [*sequences, np.zeros(missing, np.int64)] if missing else sequences

    def _padded(self, sequences: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        width = int(lengths.max())
        ids = np.full((len(sequences), width), self._pad_id, np.int64)
        places = np.arange(width)
        mask = places >= width - lengths[:, None] if self._pad_left else places < lengths[:, None]
        ids[mask] = np.concatenate(sequences)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def _sent(value: Any, device: torch.device) -> Any:
    return value.pin_memory().to(device, non_blocking=True) if isinstance(value, Tensor) else value
