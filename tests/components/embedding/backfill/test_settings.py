"""A backfill's settings: what an empty box of a form means, what is refused, and by which name."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.embedding.backfill.settings import IN_PIPELINES, BackfillSettings
from driftline.components.embedding.component import plan_backfill
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import UsageError
from driftline.components.settings import in_pipelines
from driftline.components.storage.texts.rows import TextColumns
from driftline.components.storage.texts.selection import TextSelection
from driftline.pipelines.backfill import backfill_pipeline
from driftline.pipelines.profile import Profile
from tests.components.embedding.backfills import one_line

FIELDS = {field.name: field.default for field in dataclasses.fields(BackfillSettings)}
TEXTS = sorted(name for name, default in FIELDS.items() if isinstance(default, str))
NUMBERS = sorted(name for name, default in FIELDS.items() if type(default) in (int, float))
PLACES = {"text_files", "model", "output_folder"}
OF_THE_CLUSTER = {"model_cache", "encoder_tunings", "hourly_price"}
OF_THE_COMPONENT = {"model_segment_overlap", "output_rows_per_shard"}
AS_OF = datetime(2026, 11, 30, 6, tzinfo=UTC)


def inputs(component: Any) -> dict[str, Any]:
    """Return the defaults of what a component or a pipeline takes, by name."""
    return {name: one.default for name, one in component.component_spec.inputs.items()}


# What is empty


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_cleared_box_is_the_default(blank: str):
    assert BackfillSettings.of(**dict.fromkeys(TEXTS, blank)) == BackfillSettings()
    for name in TEXTS:
        assert BackfillSettings.of(**{name: blank}) == BackfillSettings(), name


def test_zero_is_the_default():
    assert BackfillSettings.of(**dict.fromkeys(NUMBERS, 0)) == BackfillSettings()
    assert BackfillSettings.of(**dict.fromkeys(NUMBERS, 0.0)) == BackfillSettings()
    settings = BackfillSettings.of(output_rows_per_shard=0, embed_tasks=0)
    assert (settings.output_rows_per_shard, settings.embed_tasks) == (50_000, 8)


def test_nothing_given_is_the_defaults():
    assert BackfillSettings.of() == BackfillSettings()


@pytest.mark.parametrize("declaration", [plan_backfill, backfill_pipeline(Profile())], ids=["component", "pipeline"])
def test_what_is_declared_has_the_same_defaults(declaration: Any):
    declared = {name: default for name, default in inputs(declaration).items() if name in FIELDS}
    assert BackfillSettings.of(**declared) == BackfillSettings()


def test_every_setting_is_declared():
    assert inputs(plan_backfill).keys() == FIELDS.keys() | PLACES | {"job"}
    assert inputs(backfill_pipeline(Profile())).keys() == (FIELDS.keys() | PLACES) - OF_THE_CLUSTER - OF_THE_COMPONENT
    assert set(IN_PIPELINES.values()) <= FIELDS.keys() | PLACES


def test_a_setting_that_is_none_is_a_mistake_of_ours():
    with pytest.raises(TypeError, match="window_sinc"):
        BackfillSettings.of(window_sinc="-1d")


# What is taken


def test_columns_are_taken_as_they_are_written_and_other_texts_without_the_blanks_around_them():
    """CSV whose commas are followed by blanks has columns that begin with one."""
    settings = BackfillSettings.of(text_column=" text", window_since=" -1d\n", output_dtype=" float16")
    assert (settings.text_column, settings.window_since, settings.output_dtype) == (" text", "-1d", "float16")


def test_whole_numbers_arrive_as_floats():
    settings = BackfillSettings.of(model_dimension=4.0, embed_tasks=3.0, output_rows_per_shard=7.0)
    assert [type(getattr(settings, name)) for name in ("model_dimension", "embed_tasks")] == [int, int]
    assert (settings.model_dimension, settings.embed_tasks, settings.output_rows_per_shard) == (4, 3, 7)


def test_its_parts():
    settings = BackfillSettings.of(
        text_column="body", text_id_column="key", text_where=["rating >= 7"], window_since="-1d", window_until="today",
        window_time_column="day", model_prompt="query", model_precision="float16", model_dimension=4,
        model_max_tokens=9, model_segments="mean", model_segment_overlap=3,
    )  # fmt: skip
    assert settings.columns == TextColumns("key", "body")
    assert settings.encoder == EncoderSettings("query", "float16", 4, 9, "mean", 3)
    day = "2026-11-{}T00:00:00Z".format
    assert settings.selection(AS_OF) == TextSelection(day(29), day(30), "day", ("rating >= 7",))


values = {
    "text_column": st.sampled_from(["text", " body", "b"]),
    "text_strict": st.booleans(),
    "window_when_empty": st.sampled_from(["skip", "refuse", ""]),
    "model_precision": st.sampled_from(["auto", "float32", "", "bfloat16"]),
    "model_segments": st.sampled_from(["mean", "max"]),
    "model_segment_overlap": st.integers(0, 9),
    "output_dtype": st.sampled_from(["float32", "float16", ""]),
    "embed_tasks": st.integers(0, 200),
    "hourly_price": st.floats(0, 100),
}


@given(st.fixed_dictionaries(values))
def test_settings_that_were_checked_are_taken_as_they_are(given: dict[str, Any]):
    settings = BackfillSettings.of(**given)
    assert BackfillSettings.of(**dataclasses.asdict(settings)) == settings


# What is refused

REFUSED = [
    ({"text_id_column": "text"}, "text_column and text_id_column: expected two columns, got 'text' for both"),
    ({"text_where": ["rating"]}, "text_where 'rating': expected a column, an operator and a value"),
    ({"text_where": [""]}, "text_where '': expected a column, an operator and a value"),
    ({"text_where": [7]}, "text_where: expected a list of texts, got 7 in it"),
    ({"text_strict": True, "output_incremental": True}, "text_strict and output_incremental: one refuses the null"),
    ({"window_when_empty": "ignore"}, "window_when_empty: expected skip or refuse, got 'ignore'"),
    ({"model_precision": "double"}, "model_precision: expected auto, float32, bfloat16 or float16, got 'double'"),
    ({"model_precision": "Float16"}, "model_precision: expected auto, float32, bfloat16 or float16, got 'Float16'"),
    ({"model_dimension": -1}, "model_dimension: expected 1 or more, or 0 for all, got -1"),
    ({"model_max_tokens": -1}, "model_max_tokens: expected 1 or more, or 0 for the model's maximum, got -1"),
    ({"model_segments": "sum"}, "model_segments: expected mean, max or nothing, got 'sum'"),
    ({"model_segment_overlap": 3}, "model_segment_overlap: expected model_segments to be mean or max as well"),
    (
        {"model_segments": "mean", "model_segment_overlap": -3},
        "model_segment_overlap: expected 1 or more, or 0 for an eighth of a window, got -3",
    ),
    ({"output_dtype": "bfloat16"}, "output_dtype: expected float32 or float16, got 'bfloat16'"),
    ({"output_rows_per_shard": -1}, "output_rows_per_shard: expected 1 or more, got -1"),
    ({"embed_tasks": 201}, "embed_tasks: expected from 1 to 200, got 201"),
    ({"embed_tasks": -1}, "embed_tasks: expected from 1 to 200, got -1"),
    ({"hourly_price": -0.5}, "hourly_price: expected 0 or more, got -0.5"),
    ({"hourly_price": float("nan")}, "hourly_price: expected 0 or more, got nan"),
    ({"hourly_price": float("inf")}, "hourly_price: expected 0 or more, got inf"),
    *(
        ({name: number}, f"{name}: expected a whole number, got {number}")
        for name in ("embed_tasks", "model_dimension", "model_max_tokens", "output_rows_per_shard")
        for number in (8.5, float("nan"), float("inf"))
    ),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_out_of_range_is_refused_by_the_form_s_name(given: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=one_line(message)):
        BackfillSettings.of(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window_as_of": "soon"}, "window_as_of 'soon': expected a date or a date-time"),
        ({"window_since": "soon"}, "window_since 'soon' is not understood"),
        ({"window_until": "tomorrow"}, "window_until 'tomorrow' lies in the future"),
        ({"window_since": "[[ScheduledTime]]"}, "window_since '[[ScheduledTime]]' is a placeholder"),
        (
            {"window_since": "today", "window_until": "yesterday"},
            "window_since: expected a time before window_until, 2026-11-29T00:00:00Z, got 2026-11-30T00:00:00Z",
        ),
        ({"window_since": "today", "window_until": "today"}, "window_since: expected a time before window_until, "),
    ],
)
def test_what_is_no_window_is_refused_by_the_form_s_name(given: dict[str, Any], message: str):
    settings = BackfillSettings.of(**given)
    with pytest.raises(UsageError, match=one_line(message)):
        settings.selection(settings.moment(AS_OF))


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("where 'a = b': column 'a' holds …", "text_where 'a = b': column 'a' holds …"),
        ("out 'x/{y}': {y} is no placeholder", "output_folder 'x/{y}': {y} is no placeholder"),
        ('since "it\'s" is not understood', 'window_since "it\'s" is not understood'),
        ("tasks: expected from 1 to 200, got 0", "embed_tasks: expected from 1 to 200, got 0"),
        ("out of range: out", "out of range: out"),
        ("gs://lake/out: 'x' is not …", "gs://lake/out: 'x' is not …"),
        ("model x: no prompt", "model x: no prompt"),
    ],
)
def test_only_a_name_in_front_is_put_in_the_form_s_words(message: str, told: str):
    with pytest.raises(UsageError) as caught, in_pipelines(IN_PIPELINES):
        raise UsageError(message)
    assert str(caught.value) == told
