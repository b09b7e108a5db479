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
    prompt: str,
    dtype: str,
    rows_per_shard: int,
    tasks: int,
    backfill_plan: dsl.Output[dsl.Artifact],
) -> list:
    """Check every text, identify the model and cut the work into shards.

    Args:
        texts: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local.
        model: Folder, gs:// prefix or name of a sentence-transformers model.
        out: Embeddings dataset to write, a gs:// or local folder.
        id_column: Column that holds the texts' ids.
        text_column: Column that holds the texts.
        prompt: Name of one of the model's prompts; empty for its default.
        dtype: Number type of the vectors, float32 or float16.
        rows_per_shard: Texts in a shard; 0 for 50,000.
        tasks: Tasks to share the shards among.
        backfill_plan: What every task needs to know, as JSON.

    Returns:
        One item for each task.
    """
    from driftline.components.embedding import step
    from driftline.components.storage.texts import TextColumns

    return step.plan(
        inputs=texts, model=model, out=out, columns=TextColumns(id_column, text_column), prompt=prompt, dtype=dtype,
        rows_per_shard=rows_per_shard, tasks=tasks, plan_out=backfill_plan.path,
    )  # fmt: skip


@dsl.component(base_image=EMBED, install_kfp_package=False)
def embed(
    share: dict,
    backfill_plan: dsl.Input[dsl.Artifact],
    task_report: dsl.Output[dsl.Artifact],
):
    """Embed one task's shards; those already finished from the same texts and model are left as they are.

    Args:
        share: Which task this is.
        backfill_plan: What every task needs to know.
        task_report: The shards written, as JSON.
    """
    from driftline.components.embedding import step

    step.embed(planned=backfill_plan.path, share=share, out=task_report.path)


@dsl.component(base_image=EMBED, install_kfp_package=False)
def finish_backfill(
    backfill_plan: dsl.Input[dsl.Artifact],
    task_reports: dsl.Input[list[dsl.Artifact]],
    dataset: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Check that every shard is there and write the dataset's manifest, last.

    Args:
        backfill_plan: What every task knew.
        task_reports: What every task wrote.
        dataset: URI and manifest of the embeddings dataset, as JSON.
        metrics: Texts, shards, and the rate of encoding.
    """
    from driftline.components.embedding import step

    numbers = step.finish(
        planned=backfill_plan.path, parts=[report.path for report in task_reports], dataset_out=dataset.path
    )
    for name, value in numbers.items():
        metrics.log_metric(name, value)
