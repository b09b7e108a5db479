"""What can be asked of a backfill: its settings, their defaults and the values that they take, checked before any work.

A pipeline's first step makes :class:`BackfillSettings` of what it was given, and the tasks behind it read them from the
plan: each setting is checked once, at once, and means the same to all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Self

from driftline.components.checks import MAX_TASKS, REFUSE, SKIP, filled, in_pipelines
from driftline.components.embedding.backfill.cutting import ROWS_PER_SHARD
from driftline.components.embedding.encoding.settings import EncoderSettings, Precision, SegmentPooling
from driftline.components.errors import UsageError
from driftline.components.storage.dataset.manifest import DTYPES
from driftline.components.storage.dataset.windows import parse_as_of, resolve_time
from driftline.components.storage.texts.reading import TextColumns, TextSelection
from driftline.components.storage.texts.selection import parse_condition
from driftline.components.storage.texts.times import parse_time

DType = Literal["float32", "float16"]

WHEN_EMPTY: Final = (SKIP, REFUSE)
"""What becomes of a run whose window holds no text."""

IN_PIPELINES: Final[Mapping[str, str]] = {
    "texts": "text_files",
    "out": "output_folder",
    "id_column": "text_id_column",
    "where": "text_where",
    "strict": "text_strict",
    "since": "window_since",
    "until": "window_until",
    "time_column": "window_time_column",
    "as_of": "window_as_of",
    "when_empty": "window_when_empty",
    "prompt": "model_prompt",
    "precision": "model_precision",
    "dimension": "model_dimension",
    "max_tokens": "model_max_tokens",
    "segments": "model_segments",
    "overlap": "model_segment_overlap",
    "dtype": "output_dtype",
    "incremental": "output_incremental",
    "rows_per_shard": "output_rows_per_shard",
    "tasks": "embed_tasks",
    "profile": "encoder_profile",
}
"""What a pipeline's form calls settings that have shorter names in a library or on a command line."""


@dataclass(frozen=True, slots=True)
class BackfillSettings:
    """The settings of a backfill, by the names of the pipeline's parameters.

    Attributes:
        text_column: column that holds the texts.
        text_id_column: column that holds their ids.
        text_where: conditions that must all hold, as of :mod:`driftline.components.storage.texts.selection`.
        text_strict: whether to refuse bad texts rather than to count them.
        window_since: take texts from this time on, absolute or relative to `window_as_of`; empty for all.
        window_until: take texts before this time; empty for all.
        window_time_column: column that both look at.
        window_as_of: the moment that relative times are of; empty for now.
        window_when_empty: what becomes of a run whose window holds no text, skip or refuse. A run without a window, to
            which more waiting brings no texts, is always refused.
        model_prompt: name of one of the model's prompts; empty for its default.
        model_precision: number type of the forward pass; auto is float32 on a CPU and float16 on a GPU.
        model_dimension: leading numbers of a Matryoshka model's vectors to keep; 0 for all.
        model_max_tokens: tokens of a text that are looked at; 0 for the model's maximum.
        model_segments: what becomes of a longer text: it is cut, or embedded by windows pooled by mean or max.
        model_segment_overlap: tokens that neighbouring windows share; 0 for an eighth of one.
        model_cache: local folder in which models from gs:// are kept; empty for none.
        output_dtype: number type of the stored vectors.
        output_incremental: whether to add to the dataset that is there: new ids are embedded, those whose text changed
            are embedded anew, those with a null text are deleted, all others stay. Where there is none, a whole one is
            made.
        output_rows_per_shard: texts in a shard at most.
        embed_tasks: tasks to share the shards among; no more are made than there are shards.
        encoder_profile: file of what was measured to be fastest on such machines; empty for none.
        hourly_price: of one task's machine, in any currency, for the cost of a million texts; 0 to leave it out.
    """

    text_column: str = "text"
    text_id_column: str = "id"
    text_where: tuple[str, ...] = ()
    text_strict: bool = False
    window_since: str = ""
    window_until: str = ""
    window_time_column: str = "time"
    window_as_of: str = ""
    window_when_empty: Literal["skip", "refuse"] = SKIP
    model_prompt: str = ""
    model_precision: Precision = "auto"
    model_dimension: int = 0
    model_max_tokens: int = 0
    model_segments: SegmentPooling = ""
    model_segment_overlap: int = 0
    model_cache: str = ""
    output_dtype: DType = "float32"
    output_incremental: bool = False
    output_rows_per_shard: int = ROWS_PER_SHARD
    embed_tasks: int = 8
    encoder_profile: str = ""
    hourly_price: float = 0.0

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return settings, checked. What is left out or empty, or 0 where 0 means nothing, is the default.

        A box that is cleared in Kubeflow's form is sent as an empty text. Names of columns are taken as they are
        written, blanks around them included, since files have such columns.

        Raises:
            UsageError: a setting is out of range, or contradicts another one; it is named as the pipeline names it.
        """
        bare = {
            name: value.strip() if isinstance(value, str) and not name.endswith("_column") else value
            for name, value in given.items()
        }
        values = filled(cls, "a backfill", bare, whole=_WHOLE, never_zero=_NEVER_ZERO)
        values["text_where"] = texts_of("text_where", values["text_where"])
        settings = cls(**values)
        with in_pipelines(IN_PIPELINES):
            settings._check()
        return settings

    def _check(self) -> None:
        if self.text_column == self.text_id_column:
            raise UsageError(f"text_column and text_id_column: expected two columns, got {self.text_column!r} for both")
        for condition in self.text_where:
            parse_condition(condition)
        if self.text_strict and self.output_incremental:
            raise UsageError(
                "text_strict and output_incremental: one refuses the null texts by which the other deletes; choose one "
                "of the two"
            )
        for name, allowed in (("window_when_empty", WHEN_EMPTY), ("output_dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name}: expected {' or '.join(allowed)}, got {getattr(self, name)!r}")
        if self.model_segment_overlap and not self.model_segments:
            raise UsageError(
                "model_segment_overlap: expected model_segments to be mean or max as well; only segments overlap"
            )
        _ = self.encoder
        if self.output_rows_per_shard < 1:
            raise UsageError(
                f"output_rows_per_shard: expected 1 or more, or 0 for {ROWS_PER_SHARD:,}, got "
                f"{self.output_rows_per_shard}"
            )
        if not 1 <= self.embed_tasks <= MAX_TASKS:
            raise UsageError(f"embed_tasks: expected from 1 to {MAX_TASKS}, got {self.embed_tasks}")
        if not (math.isfinite(self.hourly_price) and self.hourly_price >= 0):
            raise UsageError(f"hourly_price: expected 0 or more, got {self.hourly_price}")

    @property
    def columns(self) -> TextColumns:
        """The texts' columns."""
        return TextColumns(self.text_id_column, self.text_column)

    @property
    def encoder(self) -> EncoderSettings:
        """What decides the vectors."""
        return EncoderSettings(
            self.model_prompt,
            self.model_precision,
            self.model_dimension,
            self.model_max_tokens,
            self.model_segments,
            self.model_segment_overlap,
        )

    def moment(self, now: datetime) -> datetime:
        """Return the moment that relative times are of, in UTC. Raises UsageError where it cannot be read."""
        with in_pipelines(IN_PIPELINES):
            return parse_as_of(self.window_as_of, now)

    def selection(self, moment: datetime) -> TextSelection:
        """Return the rows that are taken, as of a moment.

        Raises:
            UsageError: a time cannot be read, or none lies between the two.
        """
        since, until = (resolve_time(getattr(self, name), moment, name) for name in ("window_since", "window_until"))
        low, high = parse_time(since), parse_time(until)
        if low is not None and high is not None and low >= high:
            raise UsageError(f"window_since: expected a time before window_until, {until}, got {since}")
        return TextSelection(since, until, self.window_time_column, self.text_where)


def texts_of(name: str, given: Iterable[object]) -> tuple[str, ...]:
    """Return the items of a list that must all be texts: Kubeflow's form takes any list.

    Raises:
        UsageError: one is none; the setting is named.
    """
    items: list[str] = []
    for item in given:
        if not isinstance(item, str):
            raise UsageError(f"{name}: expected a list of texts, got {item!r} in it")
        items.append(item)
    return tuple(items)


_WHOLE: Final = (
    "model_dimension", "model_max_tokens", "model_segment_overlap", "output_rows_per_shard", "embed_tasks",
)  # fmt: skip
_NEVER_ZERO: Final = ("output_rows_per_shard", "embed_tasks")
