"""What can be asked of a backfill: its settings, their defaults and the values that they take, checked before any work.

A pipeline's first step makes :class:`BackfillSettings` of what it was given, and the tasks behind it read them from the
plan: each setting is checked once, at once, and means the same to all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from driftline.components.embedding.backfill.cutting import ROWS_PER_SHARD
from driftline.components.embedding.encoding.settings import EncoderSettings, Precision, SegmentPooling
from driftline.components.errors import UsageError
from driftline.components.settings import (
    MAX_TASKS,
    SKIP,
    Setting,
    check_settings,
    filled,
    in_pipelines,
    option_names,
    setting_of,
)
from driftline.components.storage.dataset.windows import parse_as_of, resolve_time
from driftline.components.storage.iso_times import parse_time
from driftline.components.storage.texts.rows import TextColumns
from driftline.components.storage.texts.selection import TextSelection, parse_condition

DType = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class BackfillSettings:
    """The settings of a backfill, by the names of the pipeline's parameters.

    A run without a window, to which more waiting brings no texts, is refused where it finds none, whatever
    `window_when_empty`.
    """

    text_column: Annotated[str, Setting("Column that holds the texts", metavar="NAME")] = "text"
    text_id_column: Annotated[str, Setting("Column that holds the texts' ids", option="id-column", metavar="NAME")] = (
        "id"
    )
    text_where: Annotated[
        tuple[str, ...],
        Setting(
            "Conditions that must all hold, such as 'rating >= 7' or 'category in (plot, fresh)'",
            option="where",
            metavar="CONDITION",
        ),
    ] = ()
    text_strict: Annotated[
        bool, Setting("Refuse texts that are null, blank or damaged instead of counting them", option="strict")
    ] = False
    window_since: Annotated[
        str,
        Setting(
            "Take texts from this time on: a date, ISO 8601, or relative in UTC, such as -1d or -24h",
            "all",
            option="since",
            metavar="TIME",
        ),
    ] = ""
    window_until: Annotated[
        str, Setting("Take texts before this time, such as today", "all", option="until", metavar="TIME")
    ] = ""
    window_time_column: Annotated[
        str, Setting("Column of the times by which texts are taken", option="time-column", metavar="NAME")
    ] = "time"
    window_as_of: Annotated[
        str,
        Setting(
            "The moment that relative times are of, an ISO 8601 date or time", "now", option="as-of", metavar="TIME"
        ),
    ] = ""
    window_when_empty: Annotated[
        Literal["skip", "refuse"],
        Setting("What becomes of a run whose window holds no text, skip or refuse", option="when-empty"),
    ] = SKIP
    model_prompt: Annotated[str, setting_of(EncoderSettings, "prompt")] = ""
    model_precision: Annotated[Precision, setting_of(EncoderSettings, "precision")] = "auto"
    model_dimension: Annotated[int, setting_of(EncoderSettings, "dimension")] = 0
    model_max_tokens: Annotated[int, setting_of(EncoderSettings, "max_tokens")] = 0
    model_segments: Annotated[SegmentPooling, setting_of(EncoderSettings, "segments")] = ""
    model_segment_overlap: Annotated[int, setting_of(EncoderSettings, "overlap")] = 0
    model_cache: Annotated[
        str, Setting("Folder of the node or of a volume in which models from gs:// are kept", "none", metavar="DIR")
    ] = ""
    output_dtype: Annotated[DType, Setting("Number type of the stored vectors, float32 or float16", option="dtype")] = (
        "float32"
    )
    output_incremental: Annotated[
        bool,
        Setting(
            "Add to the dataset that is there: embed new and changed texts, delete those whose text is null",
            option="incremental",
        ),
    ] = False
    output_rows_per_shard: Annotated[int, Setting("Texts in a shard at most", least=1, option="rows-per-shard")] = (
        ROWS_PER_SHARD
    )
    embed_tasks: Annotated[int, Setting("Tasks to share the shards among", least=1, most=MAX_TASKS, option="tasks")] = 8
    encoder_tunings: Annotated[
        str,
        Setting(
            "What `driftline bench encode` measured on such machines, a gs:// or local file",
            "none",
            option="tunings",
            metavar="FILE",
        ),
    ] = ""
    hourly_price: Annotated[
        float,
        Setting(
            "Price of one task's machine an hour, in any currency, to tell what a million texts cost",
            "no cost",
            least=0,
        ),
    ] = 0.0

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
        values = filled(cls, "a backfill", bare)
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
        if self.model_segment_overlap and not self.model_segments:
            raise UsageError(
                "model_segment_overlap: expected model_segments to be mean or max as well; only segments overlap"
            )
        check_settings(self)
        if math.isinf(self.hourly_price):
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


IN_PIPELINES: Final[Mapping[str, str]] = {
    "texts": "text_files",
    "out": "output_folder",
    **option_names(BackfillSettings),
}
"""What a pipeline's form calls settings that have shorter names in a library or on a command line."""
