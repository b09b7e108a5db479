"""Whether a faster forward pass gives the model's own vectors: measured on a few texts, at loading."""

from __future__ import annotations

import logging
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from driftline.components.embedding.encoding.forward.forward import Forward, Way
from driftline.components.embedding.encoding.forward.linear import can_fuse
from driftline.components.embedding.encoding.forward.packed import NotPackedError
from driftline.components.embedding.encoding.tokens import TextTokenizer
from driftline.components.errors import DataError

LOGGER: Final = logging.getLogger(__name__)

_TEXTS: Final = (
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


def choose_way(
    model: SentenceTransformer,
    name: str,
    forward: Forward,
    tokenizer: TextTokenizer,
    prompt: str,
    dtype: torch.dtype,
    *,
    compiled: bool,
) -> None:
    """Bring a model into its precision and onto the fastest way that gives its own vectors.

    Args:
        model: in float32.
        name: what the user called it, for messages.
        forward: runs it; left on the way that was found right.
        tokenizer: makes its sequences.
        prompt: put before the texts.
        dtype: the precision to run in.
        compiled: whether to translate it by `torch.compile`.

    Raises:
        DataError: no way gives the vectors that sentence-transformers gives, or these are not finite.
    """
    own = _vectors(model.encode(list(_TEXTS), prompt=prompt, batch_size=len(_TEXTS), show_progress_bar=False))
    if not np.isfinite(own).all(axis=1).any():
        raise DataError(
            f"model {name}: its vectors hold NaN or infinite values whatever the text; its weights are damaged: fetch "
            "it again"
        )
    if dtype == torch.float16:
        model.half()  # its 11 bits are enough for the residual stream too
    if compiled:
        cast("Any", model[0]).auto_model.compile(dynamic=True)
    found = float("inf")
    for way in _ways(forward.device, dtype, compiled=compiled):
        found = _difference(forward, way, dtype, tokenizer, own)
        if found <= _TOLERANCE[dtype]:
            forward.settle()
            return
    forward.leave()
    raise DataError(
        f"model {name}: its vectors in {str(dtype).removeprefix('torch.')} differ by {found:.1e} (relative to their "
        "largest number) from those in float32; use the precision float32"
    )


def _ways(device: torch.device, dtype: torch.dtype, *, compiled: bool) -> list[Way]:
    """Return the ways to try, the fastest first."""
    if compiled:  # the sequences' ends would be constants of the program, translated again for each batch
        return [Way(pack=False, fuse=False)]
    fuses = [True, False] if can_fuse(device, dtype) else [False]
    return [Way(pack=pack, fuse=fuse) for pack in (True, False) for fuse in fuses]


def _difference(
    forward: Forward, way: Way, dtype: torch.dtype, tokenizer: TextTokenizer, own: NDArray[np.float32]
) -> float:
    """Return the largest difference from the model's own vectors, relative; infinite where the way is no way."""
    tokens = tokenizer(_TEXTS)
    # A text in several windows has no vector here, and one whose own vector is not finite none to compare with.
    compared = (np.bincount(tokens.texts, minlength=len(_TEXTS)) == 1) & np.isfinite(own).all(axis=1)
    sequences = [tokens.sequences[place] for place in np.flatnonzero(compared[tokens.texts])]
    try:
        forward.take(way, dtype)
        vectors = _vectors(forward(sequences).float().cpu().numpy())
    except (NotPackedError, TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        LOGGER.debug("a way to run the model is left out: %s", error)
        return float("inf")
    expected = own[compared]
    if vectors.shape != expected.shape:
        return float("inf")
    difference = float(np.abs(vectors - expected).max() / np.abs(expected).max())
    return difference if np.isfinite(difference) else float("inf")


def _vectors(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
