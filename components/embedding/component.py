"""KFP declarations of the backfill's steps."""

# KFP's parameters are bare `list` and `dict`, and it takes a named tuple that is written in place.
# pyright: reportMissingTypeArgument=false, reportInvalidTypeForm=false

from typing import List, NamedTuple  # noqa: UP035 - KFP knows an item's type by this name only before 2.15

from kfp import dsl

from driftline.components.artifacts import BackfillPlan, EmbeddingsDataset
from driftline.components.declaration import component


@component(image="embed")
def plan_backfill(
    texts: list,
    model: str,
    out: str,
    backfill_plan: dsl.Output[BackfillPlan],
    id_column: str = "id",
    text_column: str = "text",
    time_column: str = "time",
    since: str = "",
    until: str = "",
    where: list = [],  # noqa: B006 - KFP compiles the default into the component
    strict: bool = False,
    incremental: bool = False,
    prompt: str = "",
    precision: str = "auto",
    dimension: int = 0,
    max_tokens: int = 0,
    segments: str = "",
    overlap: int = 0,
    dtype: str = "float32",
    rows_per_shard: int = 0,
    tasks: int = 8,
    as_of: str = "",
    when_empty: str = "skip",
    model_cache: str = "",
    job: str = "",
) -> List[dict]:  # noqa: UP006
    """Check every text, identify the model and cut the work into shards.

    Args:
        texts: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local; a folder date=yesterday is
            that of the day before as_of.
        model: Folder, gs:// prefix or name of a sentence-transformers model.
        out: Embeddings dataset to write, a gs:// or local folder; date=yesterday in it, {date}, {hour} and {run} are
            those of as_of and of the run.
        id_column: Column that holds the texts' ids.
        text_column: Column that holds the texts.
        time_column: Column that since and until look at.
        since: Take texts from this time on, a date, ISO 8601, or relative to as_of in UTC, such as -1d or -24h; empty
            for all.
        until: Take texts before this time, such as today.
        where: Conditions that must all hold, such as "rating >= 7".
        strict: Refuse texts that are null, blank or damaged instead of counting them.
        incremental: Add to the dataset that is there: embed new and changed texts, delete those whose text is null.
        prompt: Name of one of the model's prompts; empty for its default.
        precision: Number type of the model: float32, bfloat16, float16, or auto, float32 on a CPU, float16 on a GPU.
        dimension: Leading numbers of a Matryoshka model's vectors to keep; 0 for all.
        max_tokens: Tokens of a text to look at; 0 for the model's maximum.
        segments: Embed longer texts by overlapping windows, pooled by mean or max; empty to cut them.
        overlap: Tokens that neighbouring windows share; 0 for an eighth.
        dtype: Number type of the stored vectors, float32 or float16.
        rows_per_shard: Texts in a shard at most; 0 for 50,000.
        tasks: Tasks to share the shards among, 200 at most.
        as_of: The moment that relative times are of, an ISO 8601 date or time; empty for now.
        when_empty: What becomes of a run whose window holds no text, skip or refuse.
        model_cache: Folder of the node or of a volume in which models from gs:// are kept; empty for none.
        job: The backend's name for the run, which fills {run}.
        backfill_plan: What every task needs to know, as JSON.

    Returns:
        One item for each task, for a loop over embed.
    """
    from driftline.components.embedding import step
    from driftline.components.embedding.encoding.settings import EncoderSettings
    from driftline.components.storage.texts import TextColumns

    return step.plan(
        inputs=texts, model=model, out=out, columns=TextColumns(id_column, text_column), time_column=time_column,
        since=since, until=until, where=where, as_of=as_of, when_empty=when_empty, job=job, strict=strict,
        incremental=incremental, dtype=dtype, rows_per_shard=rows_per_shard, tasks=tasks, model_cache=model_cache,
        encoder=EncoderSettings.of(prompt, precision, dimension, max_tokens, segments, overlap),
        plan_out=backfill_plan.path,
    )  # fmt: skip


@component(image="embed")
def embed(
    share: dict,
    backfill_plan: dsl.Input[BackfillPlan],
    profile: str = "",
    model_cache: str = "",
):
    """Embed one task's shards; those already finished from the same texts and model are left as they are.

    What it did is told in the dataset's work folder, from where finish_backfill takes what all tasks told.

    Args:
        share: Which task this is, an item of the plan.
        backfill_plan: What every task needs to know.
        profile: What `driftline bench encode` measured on such a machine, a gs:// or local file; empty for none.
        model_cache: Folder of the node or of a volume in which models from gs:// are kept; empty for none.
    """
    from driftline.components.embedding import step

    step.embed(planned=backfill_plan.path, share=share, profile=profile, model_cache=model_cache)


@component(image="embed")
def finish_backfill(
    backfill_plan: dsl.Input[BackfillPlan],
    dataset: dsl.Output[EmbeddingsDataset],
    metrics: dsl.Output[dsl.Metrics],
    hourly_price: float = 0.0,
    model_cache: str = "",
) -> NamedTuple("Backfilled", [("uri", str), ("rows", int), ("status", str)]):
    """Read every shard back, once all tasks have ended, and write the dataset's manifest, last.

    Args:
        backfill_plan: What every task knew.
        hourly_price: Of one task's machine, in any currency, to tell what a million texts cost; 0 to leave it out.
        model_cache: Folder of the node or of a volume in which models from gs:// are kept; empty for none.
        dataset: URI and manifest of the embeddings dataset, as JSON.
        metrics: Texts, tokens, cut and repeated texts, what was left out, the rate of encoding and its cost.

    Returns:
        uri: The embeddings dataset.
        rows: Its rows; 0 where the run was skipped.
        status: embedded, or skipped where the window held no text.
    """
    from driftline.components.embedding import step

    done = step.finish(
        planned=backfill_plan.path, hourly_price=hourly_price, model_cache=model_cache, dataset_out=dataset.path
    )
    dataset.metadata["uri"] = done.uri
    for name, value in done.metrics.items():
        metrics.log_metric(name, value)
    return done.uri, done.rows, done.status
