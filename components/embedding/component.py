"""KFP declarations of the backfill's steps."""

# KFP's parameters are bare `list` and `dict`, and it takes a named tuple that is written in place.
# pyright: reportMissingTypeArgument=false, reportInvalidTypeForm=false

from typing import List, NamedTuple  # noqa: UP035 - KFP knows an item's type by this name only before 2.15

from kfp import dsl

from driftline.components.artifacts import BackfillPlan, EmbeddingsDataset
from driftline.components.declaration import component


@component(image="embed")
def plan_backfill(
    text_files: list,
    model: str,
    output_folder: str,
    backfill_plan: dsl.Output[BackfillPlan],
    text_column: str = "text",
    text_id_column: str = "id",
    text_where: list = [],  # noqa: B006 - KFP compiles the default into the component
    text_strict: bool = False,
    window_since: str = "",
    window_until: str = "",
    window_time_column: str = "time",
    window_as_of: str = "",
    window_when_empty: str = "skip",
    model_prompt: str = "",
    model_precision: str = "auto",
    model_dimension: int = 0,
    model_max_tokens: int = 0,
    model_segments: str = "",
    model_segment_overlap: int = 0,
    model_cache: str = "",
    output_dtype: str = "float32",
    output_incremental: bool = False,
    output_rows_per_shard: int = 0,
    embed_tasks: int = 8,
    encoder_tunings: str = "",
    hourly_price: float = 0.0,
    job: str = "",
) -> List[dict]:  # noqa: UP006
    """Check all settings, the model and every text, and cut the work into shards.

    An empty text, and 0 where it means nothing, is the default.

    Args:
        text_files: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local; a folder date=yesterday
            is that of the day before window_as_of.
        model: Folder, gs:// prefix or name of a sentence-transformers model.
        output_folder: Embeddings dataset to write, a gs:// or local folder; date=yesterday in it, {date}, {hour} and
            {run} are those of window_as_of and of the run.
        text_column: Column that holds the texts.
        text_id_column: Column that holds the texts' ids.
        text_where: Conditions that must all hold, such as 'rating >= 7' or 'category in (plot, fresh)'.
        text_strict: Refuse texts that are null, blank or damaged instead of counting them.
        window_since: Take texts from this time on: a date, ISO 8601, or relative in UTC, such as -1d or -24h; empty for
            all.
        window_until: Take texts before this time, such as today; empty for all.
        window_time_column: Column of the times by which texts are taken.
        window_as_of: The moment that relative times are of, an ISO 8601 date or time; empty for now.
        window_when_empty: What becomes of a run whose window holds no text, skip or refuse.
        model_prompt: Name of one of the model's prompts, such as document; empty for the model's default.
        model_precision: Number type of the model: float32, bfloat16, float16, or auto, float32 on a CPU, float16 on a
            GPU.
        model_dimension: Leading numbers of a Matryoshka model's vectors to keep; 0 for all.
        model_max_tokens: Tokens of a text to look at; 0 for the model's maximum.
        model_segments: Embed longer texts by overlapping windows, pooled by mean or max; empty for cutting them.
        model_segment_overlap: Tokens that neighbouring windows share; 0 for an eighth of a window.
        model_cache: Folder of the node or of a volume in which models from gs:// are kept; empty for none.
        output_dtype: Number type of the stored vectors, float32 or float16.
        output_incremental: Add to the dataset that is there: embed new and changed texts, delete those whose text is
            null.
        output_rows_per_shard: Texts in a shard at most; 0 for 50,000.
        embed_tasks: Tasks to share the shards among, 200 at most; 0 for 8.
        encoder_tunings: What `driftline bench encode` measured on such machines, a gs:// or local file; empty for none.
        hourly_price: Price of one task's machine an hour, in any currency, to tell what a million texts cost; 0 for no
            cost.
        job: The backend's name for the run, which fills {run}.
        backfill_plan: What every task needs to know, all settings included, as JSON.

    Returns:
        One item for each task, for a loop over embed.
    """
    from driftline.components.embedding import step

    return step.plan(
        texts=text_files, model=model, out=output_folder, plan_out=backfill_plan.path, job=job,
        text_column=text_column, text_id_column=text_id_column, text_where=text_where, text_strict=text_strict,
        window_since=window_since, window_until=window_until, window_time_column=window_time_column,
        window_as_of=window_as_of, window_when_empty=window_when_empty, model_prompt=model_prompt,
        model_precision=model_precision, model_dimension=model_dimension, model_max_tokens=model_max_tokens,
        model_segments=model_segments, model_segment_overlap=model_segment_overlap, model_cache=model_cache,
        output_dtype=output_dtype, output_incremental=output_incremental, output_rows_per_shard=output_rows_per_shard,
        embed_tasks=embed_tasks, encoder_tunings=encoder_tunings, hourly_price=hourly_price,
    )  # fmt: skip


@component(image="embed")
def embed(share: dict, backfill_plan: dsl.Input[BackfillPlan]):
    """Embed one task's shards; those already finished from the same texts and model are left as they are.

    What it did is told in the dataset's work folder, from where finish_backfill takes what all tasks told.

    Args:
        share: Which task this is, an item of the plan.
        backfill_plan: What every task needs to know.
    """
    from driftline.components.embedding import step

    step.embed(planned=backfill_plan.path, share=share)


@component(image="embed")
def finish_backfill(
    backfill_plan: dsl.Input[BackfillPlan],
    embeddings_dataset: dsl.Output[EmbeddingsDataset],
    backfill_metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Backfilled", [("uri", str), ("rows", int), ("status", str)]):
    """Read every shard back, once all tasks have ended, and write the dataset's manifest, last.

    Args:
        backfill_plan: What every task knew.
        embeddings_dataset: URI and manifest of the embeddings dataset, and all numbers of the run, as JSON.
        backfill_metrics: What became of the run, its texts and tokens, what was left out, the rate and its cost.

    Returns:
        uri: The embeddings dataset.
        rows: Its rows; 0 where the run was skipped.
        status: embedded, or skipped where the window held no text.
    """
    from driftline.components.embedding import step

    done = step.finish(planned=backfill_plan.path, dataset_out=embeddings_dataset.path)
    embeddings_dataset.metadata["uri"] = done.uri
    backfill_metrics.metadata.update(done.metrics)
    return done.uri, done.rows, done.status
