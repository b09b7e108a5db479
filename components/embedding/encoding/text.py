"""Texts on their way into a model and back: token sequences, calls put together, batches, vectors.

A text becomes one sequence of tokens, or several where it is long and segmented: prompt, special tokens and the cut at
the model's maximum as its own tokenizer makes them. Pure: nothing here knows the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from driftline.components.errors import UsageError

_CHARACTERS_A_TOKEN: Final = 32
"""A text that is cut is tokenised only as far as it matters: so many characters a token at first."""

_SPARE_WINDOWS: Final = 2
"""Where a text is tokenised in part, the tokens beyond the maximum must fill so many windows: only those near the end
of the part can differ from the whole text's."""


def _no_rows() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: put before every text.

    Attributes:
        text: the prompt itself; empty for none.
        tokens: of a sequence, that are the prompt's and the special ones before it; 0 where there is no prompt, or
            where they are not known.
    """

    text: str
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The token sequences of some texts.

    Attributes:
        sequences: token numbers, int64, of each sequence, special tokens included. (Whole texts where the model is no
            text transformer.)
        texts: the text that each sequence is of, int64, ascending: more than one where long texts are segmented.
        lengths: tokens of each sequence, int64.
        cut: the texts that were cut, int64, ascending.
    """

    sequences: list[Any]
    texts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    cut: NDArray[np.int64] = field(default_factory=_no_rows)

    @property
    def truncated(self) -> int:
        """The number of texts that were cut."""
        return len(self.cut)


class TextTokenizer:
    """Turns texts into token sequences, as the model's own tokenizer does.

    Nothing is lower-cased or stripped but by that tokenizer. A half surrogate pair, which is no character, becomes
    U+FFFD.

    Args:
        tokenizer: the model's tokenizer, of the transformers library, with a `tokenizers` backend.
        max_tokens: tokens of a sequence at most, special tokens and prompt included.
        prompt: text put before every text.
        segments: whether a longer text becomes several sequences, instead of being cut.
        overlap: tokens that neighbouring sequences of one text share.

    Raises:
        UsageError: the prompt leaves no room for a text.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, prompt: str, segments: bool, overlap: int) -> None:
        backend: Tokenizer = tokenizer.backend_tokenizer
        self._max_tokens = max_tokens
        self._prompt = prompt
        self._segments = segments
        # Copies: the model's own tokenizer keeps its settings.
        self._cut = Tokenizer.from_str(backend.to_str())
        self._cut.no_padding()
        self._cut.enable_truncation(max_tokens)
        if self.prompt_tokens >= max_tokens - 1:
            raise UsageError(
                f"prompt: {self.prompt_tokens} tokens leave none of the {max_tokens} for the text; choose another, or "
                "set max-tokens higher"
            )
        self._prompt_ids: NDArray[np.int64] = np.zeros(0, np.int64)
        if segments:
            if prompt:
                self._prompt_ids = np.asarray(self._cut.encode(prompt, add_special_tokens=False).ids, np.int64)
            room = max_tokens - len(self._prompt_ids)
            content = room - self._cut.num_special_tokens_to_add(False)
            stride = min(overlap or content // 8, content // 2)
            self._windows = Tokenizer.from_str(backend.to_str())
            self._windows.no_padding()
            self._windows.enable_truncation(room, stride=max(stride, 0))

    @property
    def prompt_tokens(self) -> int:
        """Tokens of a sequence that are the prompt's and the special ones before it."""
        if not self._prompt:
            return 0
        prompt = self._cut.encode(self._prompt)
        return len(prompt.ids) - prompt.special_tokens_mask[-1]

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Return the token sequences of some texts."""
        sequences: list[NDArray[np.int64]] = []
        owners: list[int] = []
        cut: list[int] = []
        for number, encoding in enumerate(self._encoded(texts)):
            if not encoding.overflowing:
                sequences.append(np.asarray(encoding.ids, np.int64))
                owners.append(number)
            elif not self._segments:
                cut.append(number)
                sequences.append(np.asarray(encoding.ids, np.int64))
                owners.append(number)
            else:
                windows = self._segmented(texts[number])
                sequences.extend(windows)
                owners.extend([number] * len(windows))
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        return Tokens(sequences, np.asarray(owners, np.int64), lengths, np.asarray(cut, np.int64))

    def _encoded(self, texts: Sequence[str]) -> Iterator[tokenizers.Encoding]:
        """Yield each text's encoding; of a long one, that is cut or segmented anyway, only as much as decides it."""
        characters = max(_CHARACTERS_A_TOKEN * self._max_tokens, 1024)
        parts = [self._prompt + text[:characters] for text in texts]
        for text, encoding in zip(texts, _encode(self._cut, parts), strict=True):
            taken, found = characters, encoding
            while taken < len(text) and len(found.overflowing) < _SPARE_WINDOWS:
                taken *= 4
                found = _encode(self._cut, [self._prompt + text[:taken]])[0]
            yield found

    def _segmented(self, text: str) -> list[NDArray[np.int64]]:
        """Return the windows of a long text, the prompt put into each behind the leading special tokens."""
        whole = _encode(self._windows, [text])[0]
        windows: list[NDArray[np.int64]] = []
        for window in (whole, *whole.overflowing):
            ids = np.asarray(window.ids, np.int64)
            if len(self._prompt_ids):
                leading = int(np.argmin(window.special_tokens_mask))
                ids = np.insert(ids, leading, self._prompt_ids)
            windows.append(ids)
        return windows


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tokenizers.Encoding]:
    try:
        return tokenizer.encode_batch(texts)
    except (TypeError, UnicodeEncodeError):  # a half surrogate pair in one of them
        return tokenizer.encode_batch([without_surrogates(text) for text in texts])


def without_surrogates(text: str) -> str:
    """Return a text with every half surrogate pair replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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


def cut_batches(
    lengths: NDArray[np.int64], batch_tokens: int, *, padded: bool, streams: int = 1
) -> list[NDArray[np.int64]]:
    """Cut sequences into batches, the longest first: the last ones to run are then the shortest, on every stream.

    Args:
        lengths: tokens of each sequence, (n,) int64, each at least 1.
        batch_tokens: the most tokens in a batch; one longer sequence makes a batch alone.
        padded: whether a batch takes as many tokens as its longest sequence for each of its sequences.
        streams: batches that run at a time; with several, batches are made so much smaller that all streams have as
            many, of as many tokens, and end together.

    Returns:
        Row numbers of each batch, int64, every row once; equal lengths in the order given.
    """
    order = np.argsort(-lengths, kind="stable")
    if not len(order):
        return []
    total = int(lengths.sum())
    wanted = -(-total // (batch_tokens * streams)) * streams if streams > 1 else 1
    batches: list[NDArray[np.int64]] = []
    first = before = done = 0  # the batch's first place, and tokens before it, and before this place
    longest = int(lengths[order[0]])
    for place, length in enumerate(lengths[order].tolist()):
        taken = longest * (place - first + 1) if padded else done - before + length
        if place > first and (taken > batch_tokens or (done + length) * wanted > total * (len(batches) + 1)):
            batches.append(order[first:place])
            first, before, longest = place, done, length
        done += length
    batches.append(order[first:])
    return batches


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
