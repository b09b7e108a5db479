"""What the demonstration streams: reviews, then plots among them, some deletions and some poison. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from driftline.components.random_bits import row_bits
from driftline.pipelines.demo.data import Text, shuffled

Kind = Literal["text", "deletion", "poison"]

REFERENCE_TEXTS: Final = 4000
QUIET_TEXTS: Final = 3000
SHIFTED_TEXTS: Final = 800
PLOTS_AMONG: Final = 0.5
"""Share of the shifted texts that are plots."""

DELETION_EVERY: Final = 60
POISON_EVERY: Final = 150

HOUR_MS: Final = 3_600_000
_SHUFFLE_REVIEWS: Final = 0x8000_0111
_SHUFFLE_PLOTS: Final = 0x8000_0112
_SHUFFLE_SHIFTED: Final = 0x8000_0113
_PICK_DELETED: Final = 0x8000_0114

POISON: Final = {
    "not-json": b'{"text": "a review that was cut o',
    "no-text": b'{"body": "under another name"}',
    "blank-text": b'{"text": "   "}',
    "encoding": b"\xff\xfe not UTF-8",
    "text-type": b'{"text": 4}',
}
"""Values that can never be embedded, by the reason that their dead letters must bear."""


@dataclass(frozen=True, slots=True)
class Message:
    """A record to produce.

    Attributes:
        kind: what it is.
        key: its key.
        value: its value; None deletes.
        timestamp_ms: its time.
        reason: of a poison, why it will be a dead letter.
    """

    kind: Kind
    key: bytes
    value: bytes | None
    timestamp_ms: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """All that is streamed.

    Attributes:
        reference: what the stream used to look like; not streamed, but embedded beforehand.
        quiet: reviews like those, in the hour before the present one.
        shifted: reviews with plots among them, in the present hour.
    """

    reference: list[Text]
    quiet: list[Message]
    shifted: list[Message]


def plan_traffic(texts: Sequence[Text], seed: int, now_ms: int) -> Traffic:
    """Draw the texts of each part; none stands in two of them.

    Args:
        texts: the corpus.
        seed: decides which texts go where, and when.
        now_ms: the present, milliseconds since 1970: the quiet part gets times in the hour before, evenly spread, the
            shifted part's lie in the hour that has begun, so that the archive has an hour of each.
    """
    reviews = shuffled([text for text in texts if text.kind != "plot"], seed, _SHUFFLE_REVIEWS)
    plots = shuffled([text for text in texts if text.kind == "plot"], seed, _SHUFFLE_PLOTS)
    reference, rest = reviews[:REFERENCE_TEXTS], reviews[REFERENCE_TEXTS:]
    quiet, rest = rest[:QUIET_TEXTS], rest[QUIET_TEXTS:]
    novel = round(PLOTS_AMONG * SHIFTED_TEXTS)
    shifted = shuffled(rest[: SHIFTED_TEXTS - novel] + plots[:novel], seed, _SHUFFLE_SHIFTED)
    hour_ms = now_ms - now_ms % HOUR_MS
    passed_ms = max(now_ms - hour_ms, 1)
    return Traffic(
        reference,
        _messages(quiet, seed, hour_ms - HOUR_MS, HOUR_MS),
        _messages(shifted, seed + 1, hour_ms, passed_ms),
    )


def _messages(texts: Sequence[Text], seed: int, start_ms: int, length_ms: int) -> list[Message]:
    """Return texts as records spread evenly over a time, with deletions of earlier ones and poison in between."""
    words = row_bits(seed, _PICK_DELETED, 0, len(texts))
    reasons = sorted(POISON)
    messages: list[Message] = []
    deleted: set[int] = set()
    for place, text in enumerate(texts):
        at = start_ms + place * length_ms // len(texts)
        value = json.dumps({"text": text.text, "film": text.film}, ensure_ascii=False).encode()
        messages.append(Message("text", text.id.encode(), value, at))
        if place % DELETION_EVERY == DELETION_EVERY - 1:
            earlier = int(words[place]) % place
            if earlier not in deleted:
                deleted.add(earlier)
                messages.append(Message("deletion", texts[earlier].id.encode(), None, at))
        if place % POISON_EVERY == POISON_EVERY - 1:
            reason = reasons[place // POISON_EVERY % len(reasons)]
            messages.append(Message("poison", f"poison-{text.id}".encode(), POISON[reason], at, reason))
    return messages
