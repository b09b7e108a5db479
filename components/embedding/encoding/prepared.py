"""What goes into an encoder's model and what comes out: texts made ready, parts of them together, their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.components.embedding.encoding.tokens import Prompt, Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Texts whose token sequences are known.

    Attributes:
        texts: as they were given.
        tokens: their sequences.
        prompt: what the forward pass must know of their prompt; only what has the same may go together.
    """

    texts: Sequence[str]
    tokens: Tokens
    prompt: Prompt | None = None

    def text_lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each text, of all of its sequences together, (texts,) int64."""
        if len(self.tokens.sequences) == len(self.texts):
            return self.tokens.lengths
        counts = np.bincount(self.tokens.texts, weights=self.tokens.lengths, minlength=len(self.texts))
        return counts.astype(np.int64)


def joined(parts: Sequence[tuple[Prepared, Sequence[int]]]) -> Prepared:
    """Put some texts of several calls together, without tokenising them again.

    Args:
        parts: texts made ready, of one prompt, and the numbers of those that are taken, in the order wanted; at least
            one part.

    Returns:
        The texts taken, part after part.
    """
    texts: list[str] = []
    sequences: list[object] = []
    owners: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    cut: list[NDArray[np.int64]] = []
    for prepared, rows in parts:
        tokens = prepared.tokens
        taken = np.asarray(rows, np.int64)
        first = np.searchsorted(tokens.texts, taken)
        counts = np.searchsorted(tokens.texts, taken, side="right") - first
        ends = np.cumsum(counts)
        # Each text's sequences stand side by side: the first one's place, and so many on from there.
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)
        owners.append(np.repeat(np.arange(len(taken)) + len(texts), counts))
        lengths.append(tokens.lengths[places])
        cut.append(np.flatnonzero(np.isin(taken, tokens.cut)) + len(texts))
        sequences.extend(tokens.sequences[place] for place in places.tolist())
        texts.extend(prepared.texts[row] for row in rows)
    together = Tokens(sequences, np.concatenate(owners), np.concatenate(lengths), np.concatenate(cut))
    return Prepared(texts, together, parts[0][0].prompt)


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Some texts' vectors.

    Attributes:
        vectors: float32, (texts, dimension), finite, in the texts' order.
        tokens: tokens of the sequences that the model saw, padding not counted; for a model that is no text
            transformer, an estimate.
        truncated: texts longer than the maximum length, which were cut.
    """

    vectors: NDArray[np.float32]
    tokens: int
    truncated: int
