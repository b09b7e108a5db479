"""The backfill pipeline: texts → embeddings dataset, fanned out over shards."""

# KFP fills a component's outputs in, and takes a bare `list`: neither is in its types.
# pyright: reportCallIssue=false, reportMissingTypeArgument=false

from collections.abc import Callable
from typing import Any

from kfp import dsl

from driftline.components.embedding import component as embedding
from driftline.pipelines.profile import MAX_PARALLELISM, Profile

NAME = "driftline-backfill"


def backfill_pipeline(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""

    @dsl.pipeline(name=NAME, description="Embed a corpus of texts into an embeddings dataset.")
    def backfill(
        texts: list,
        model: str,
        out: str,
        id_column: str = "id",
        text_column: str = "text",
        prompt: str = "",
        dtype: str = "float32",
        rows_per_shard: int = 0,
        tasks: int = 8,
    ):
        """Embed texts with a sentence-transformers model.

        Args:
            texts: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local.
            model: Folder, gs:// prefix or name of a sentence-transformers model.
            out: Embeddings dataset to write, a gs:// or local folder.
            id_column: Column that holds the texts' ids.
            text_column: Column that holds the texts.
            prompt: Name of one of the model's prompts; empty for its default.
            dtype: Number type of the vectors, float32 or float16.
            rows_per_shard: Texts in a shard; 0 for 50,000.
            tasks: Tasks to share the shards among, 200 at most.
        """
        planned = profile.place(
            embedding.plan_backfill(
                texts=texts, model=model, out=out, id_column=id_column, text_column=text_column, prompt=prompt,
                dtype=dtype, rows_per_shard=rows_per_shard, tasks=tasks,
            ),
            "embed", cpu="2", memory="4Gi",
        )  # fmt: skip
        plan = planned.outputs["backfill_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=MAX_PARALLELISM, name="shards") as share:
            embedded = profile.place(
                embedding.embed(share=share, backfill_plan=plan), "embed", cpu="4", memory="8Gi", gpu="embed"
            )
        profile.place(
            embedding.finish_backfill(
                backfill_plan=plan, task_reports=dsl.Collected(embedded.outputs["task_report"])
            ),
            "embed", cpu="1", memory="2Gi",
        )  # fmt: skip

    return backfill
