"""KFP declarations of the backfill's steps."""

# KFP's parameters are bare `list` and `dict`.
# pyright: reportMissingTypeArgument=false

from kfp import dsl

from driftline.components.images import EMBED


@dsl.component(base_image=EMBED, install_kfp_package=False)
def plan_backfill(
    texts: list,
    model: str,
    out: str,
    id_column: str,
    text_column: str,
    time_column: str,
    since: str,
    until: str,
    where: list,
    strict: bool,
    incremental: bool,
    prompt: str,
    precision: str,
    dimension: int,
    max_tokens: int,
    segments: str,
    overlap: int,
    dtype: str,
    rows_per_shard: int,
    tasks: int,
    model_cache: str,
    backfill_plan: dsl.Output[dsl.Artifact],
) -> list:
    """Check every text, identify the model and cut the work into shards.

    Args:
        texts: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local.
        model: Folder, gs:// prefix or name of a sentence-transformers model.
        out: Embeddings dataset to write, a gs:// or local folder.
        id_column: Column that holds the texts' ids.
        text_column: Column that holds the texts.
        time_column: Column that since and until look at.
        since: Take texts from this time on, a date or ISO 8601; empty for all.
        until: Take texts before this time; empty for all.
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
        tasks: Tasks to share the shards among.
        model_cache: Folder of the node or of a volume in which models from gs:// are kept; empty for none.
        backfill_plan: What every task needs to know, as JSON.

    Returns:
        One item for each task.
    """
    from driftline.components.embedding import step
    from driftline.components.embedding.encoding.settings import EncoderSettings
    from driftline.components.storage.texts import TextColumns, TextSelection

    return step.plan(
        inputs=texts, model=model, out=out, columns=TextColumns(id_column, text_column),
        selection=TextSelection(since, until, time_column, tuple(where)), strict=strict, incremental=incremental,
        encoder=EncoderSettings.of(prompt, precision, dimension, max_tokens, segments, overlap), dtype=dtype,
        rows_per_shard=rows_per_shard, tasks=tasks, model_cache=model_cache, plan_out=backfill_plan.path,
    )  # fmt: skip


@dsl.component(base_image=EMBED, install_kfp_package=False)
def embed(
    share: dict,
    profile: str,
    model_cache: str,
    backfill_plan: dsl.Input[dsl.Artifact],
    task_report: dsl.Output[dsl.Artifact],
):
    """Embed one task's shards; those already finished from the same texts and model are left as they are.

    Args:
        share: Which task this is.
        profile: What `driftline bench encode` measured on such a machine, a gs:// or local file; empty for none.
        model_cache: Folder of the node or of a volume in which models from gs:// are kept; empty for none.
        backfill_plan: What every task needs to know.
        task_report: The shards written, as JSON.
    """
    from driftline.components.embedding import step

    step.embed(
        planned=backfill_plan.path, share=share, profile=profile, model_cache=model_cache, out=task_report.path
    )  # fmt: skip


@dsl.component(base_image=EMBED, install_kfp_package=False)
def finish_backfill(
    hourly_price: float,
    model_cache: str,
    backfill_plan: dsl.Input[dsl.Artifact],
    task_reports: dsl.Input[list[dsl.Artifact]],
    dataset: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Read every shard back and write the dataset's manifest, last.

    Args:
        hourly_price: Of one task's machine, in any currency, to tell what a million texts cost; 0 to leave it out.
        model_cache: Folder of the node or of a volume in which models from gs:// are kept; empty for none.
        backfill_plan: What every task knew.
        task_reports: What every task wrote.
        dataset: URI and manifest of the embeddings dataset, as JSON.
        metrics: Texts, tokens, cut and repeated texts, what was left out, the rate of encoding and its cost.
    """
    from driftline.components.embedding import step

    numbers = step.finish(
        planned=backfill_plan.path, parts=[report.path for report in task_reports], hourly_price=hourly_price,
        model_cache=model_cache, dataset_out=dataset.path,
    )  # fmt: skip
    for name, value in numbers.items():
        metrics.log_metric(name, value)
