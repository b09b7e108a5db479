"""Token sequences through a sentence-transformers model, in the fastest mode that gives the model's own vectors.

Sequences go packed (laid end to end, without padding, see :mod:`.packed`) or padded, and linear layers fused (see
:mod:`.linear`) or not. Which mode suits a model is not read off its architecture's name but measured: at loading, the
vectors of a few texts are compared with those of sentence-transformers itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from torch import Tensor

from driftline.components.embedding.encoding.forward.linear import LinearLayers, can_fuse
from driftline.components.embedding.encoding.forward.packed import PACKED, NotPackedError, first_position, pack
from driftline.components.embedding.encoding.text import Prompt, TextTokenizer
from driftline.components.errors import DataError

LOGGER: Final = logging.getLogger(__name__)

# Modules that work on packed sequences, or on vectors of whole texts, whatever gave them.
_PACKED_MODULES: Final = (Transformer, Pooling, Dense, Normalize, LayerNorm, Dropout)
_PACKED_KEYS: Final = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}

_PROBE_TEXTS: Final = (
    "A film.",
    "Μια ταινία για όλη την οικογένεια, με αργό ρυθμό.",  # noqa: RUF001
    "A plot.",
    "两个小时的电影",
    "Slow at first, then faster than it has any right to be; " * 40,
    "Фильм о море и о людях, которые его любят.",  # noqa: RUF001
    "A film that nobody asked for, and that everybody will have seen by the end of the year. " * 3,
)
"""Several lengths, one of them twice, one beyond most models' maximum; four scripts."""

_TOLERANCE: Final = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}
"""Largest difference allowed, relative to the largest number in the vectors."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One mode of running a model.

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
        """The device that the model is on."""
        return self._model.device

    def apply(self, mode: Mode, dtype: torch.dtype) -> None:
        """Switch to a mode, with linear layers of a number type. Its vectors may be wrong: they must be compared.

        Raises:
            NotPackedError: the model is not of the kind.
        """
        self.revert()
        model = self._transformer.auto_model
        if mode.pack and not all(isinstance(module, _PACKED_MODULES) for module in self._model):
            raise NotPackedError("a module of the model wants padded sequences")
        if mode.fuse or dtype != model.dtype:
            self._layers = LinearLayers(model, dtype, fuse=mode.fuse, packed=mode.pack)
        if mode.pack:
            self._own_attention = model.config._attn_implementation
            model.set_attn_implementation(PACKED)
            if self._transformer.model_forward_params is not None:
                self._transformer.model_forward_params |= _PACKED_KEYS
            self._first_position = first_position(model)
            self.packed = True

    def revert(self) -> None:
        """Go back to padded sequences and the model's own layers."""
        if self._layers is not None:
            self._layers.revert()
            self._layers = None
        if self.packed:
            self._transformer.auto_model.set_attn_implementation(self._own_attention)
            self.packed = False

    def finalise(self) -> None:
        """Stay in the present mode for good."""
        if self._layers is not None:
            self._layers.finalise()

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


def choose_mode(
    model: SentenceTransformer,
    name: str,
    forward: Forward,
    tokenizer: TextTokenizer,
    prompt: str,
    dtype: torch.dtype,
    *,
    torch_compile: bool,
) -> None:
    """Bring a model into its precision and into the fastest mode that gives its own vectors.

    Args:
        model: in float32.
        name: what the user called it, for messages.
        forward: runs it; left in the mode that was found right.
        tokenizer: makes its sequences.
        prompt: put before the texts.
        dtype: the precision to run in.
        torch_compile: whether to translate it by `torch.compile`.

    Raises:
        DataError: no mode gives the vectors that sentence-transformers gives, or these are not finite.
    """
    own = _vectors(
        model.encode(list(_PROBE_TEXTS), prompt=prompt, batch_size=len(_PROBE_TEXTS), show_progress_bar=False)
    )
    if not np.isfinite(own).all(axis=1).any():
        raise DataError(
            f"model {name}: its vectors hold NaN or infinite values whatever the text; its weights are damaged: fetch "
            "it again"
        )
    if dtype == torch.float16:
        model.half()  # its 11 bits are enough for the residual stream too
    if torch_compile:
        cast("Any", model[0]).auto_model.compile(dynamic=True)
    found = float("inf")
    for mode in _modes(forward.device, dtype, torch_compile=torch_compile):
        found = _difference(forward, mode, dtype, tokenizer, own)
        if found <= _TOLERANCE[dtype]:
            forward.finalise()
            return
    forward.revert()
    raise DataError(
        f"model {name}: its vectors in {str(dtype).removeprefix('torch.')} differ by {found:.1e} (relative to their "
        "largest number) from those in float32; use the precision float32"
    )


def _modes(device: torch.device, dtype: torch.dtype, *, torch_compile: bool) -> list[Mode]:
    """Return the modes to try, the fastest first."""
    if torch_compile:  # the sequences' ends would be constants of the program, translated again for each batch
        return [Mode(pack=False, fuse=False)]
    fuses = [True, False] if can_fuse(device, dtype) else [False]
    return [Mode(pack=pack, fuse=fuse) for pack in (True, False) for fuse in fuses]


def _difference(
    forward: Forward, mode: Mode, dtype: torch.dtype, tokenizer: TextTokenizer, own: NDArray[np.float32]
) -> float:
    """Return the largest difference from the model's own vectors, relative; infinite where it cannot run so."""
    tokens = tokenizer(_PROBE_TEXTS)
    # A text in several windows has no vector here, and one whose own vector is not finite none to compare with.
    compared = (np.bincount(tokens.texts, minlength=len(_PROBE_TEXTS)) == 1) & np.isfinite(own).all(axis=1)
    sequences = [tokens.sequences[place] for place in np.flatnonzero(compared[tokens.texts])]
    try:
        forward.apply(mode, dtype)
        vectors = _vectors(forward(sequences).float().cpu().numpy())
    except (NotPackedError, TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        LOGGER.debug("mode %s does not suit the model: %s", mode, error)
        return float("inf")
    expected = own[compared]
    if vectors.shape != expected.shape:
        return float("inf")
    difference = float(np.abs(vectors - expected).max() / np.abs(expected).max())
    return difference if np.isfinite(difference) else float("inf")


def _vectors(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _sent(value: Any, device: torch.device) -> Any:
    return value.pin_memory().to(device, non_blocking=True) if isinstance(value, Tensor) else value
