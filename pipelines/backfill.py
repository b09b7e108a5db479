"""The backfill pipeline: texts → embeddings dataset, fanned out over shards."""

# KFP fills a component's outputs in, and takes a bare `list`: neither is in its types.
# pyright: reportCallIssue=false, reportMissingTypeArgument=false

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from driftline.components.artifacts import EmbeddingsDataset
from driftline.components.embedding import component as embedding
from driftline.pipelines.profile import Profile

NAME = "driftline-backfill"
DESCRIPTION = (
    "Embeds texts with a sentence-transformers model, in tasks side by side, into an embeddings dataset; run again, it "
    "embeds what is missing. `Finish` says where the dataset is, `backfill_metrics` how many texts are in it and how "
    "many were left out. An empty box is the default; the Command of `Plan` explains every parameter in full."
)


class Backfilled(NamedTuple):
    """What a backfill comes to, for the steps behind it."""

    embeddings_dataset: EmbeddingsDataset
    uri: str
    rows: int
    status: str


def backfill_pipeline(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""

    @dsl.pipeline(name=NAME, description=DESCRIPTION)
    def backfill(
        text_files: list,
        model: str,
        output_folder: str,
        text_column: str = "text",
        text_id_column: str = "id",
        text_where: list = [],  # noqa: B006 - KFP compiles the default into the pipeline
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
        output_dtype: str = "float32",
        output_incremental: bool = False,
        embed_tasks: int = 8,
    ) -> Backfilled:
        """Embed texts with a sentence-transformers model.

        A setting that is empty, or 0 where 0 means nothing, is the default.

        Args:
            text_files: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local, such as
                ["gs://lake/texts/date=yesterday"]; a folder date=yesterday is that of the day before window_as_of.
            model: Folder, gs:// prefix or name of a sentence-transformers model.
            output_folder: Embeddings dataset to write, a gs:// or local folder; date=yesterday in it, {date}, {hour}
                and {run} are those of window_as_of and of the run.
            text_column: Column that holds the texts.
            text_id_column: Column that holds the texts' ids.
            text_where: Conditions that must all hold, such as 'rating >= 7' or 'category in (plot, fresh)', as ["rating
                >= 7"].
            text_strict: Refuse texts that are null, blank or damaged instead of counting them.
            window_since: Take texts from this time on: a date, ISO 8601, or relative in UTC, such as -1d or -24h; empty
                for all.
            window_until: Take texts before this time, such as today; empty for all.
            window_time_column: Column of the times by which texts are taken.
            window_as_of: The moment that relative times are of, an ISO 8601 date or time; empty for now.
            window_when_empty: What becomes of a run whose window holds no text, skip or refuse.
            model_prompt: Name of one of the model's prompts, such as document; empty for the model's default.
            model_precision: Number type of the model: float32, bfloat16, float16, or auto, float32 on a CPU, float16 on
                a GPU.
            model_dimension: Leading numbers of a Matryoshka model's vectors to keep; 0 for all.
            model_max_tokens: Tokens of a text to look at; 0 for the model's maximum.
            model_segments: Embed longer texts by overlapping windows, pooled by mean or max; empty for cutting them.
            output_dtype: Number type of the stored vectors, float32 or float16.
            output_incremental: Add to the dataset that is there: embed new and changed texts, delete those whose text
                is null.
            embed_tasks: Tasks to share the shards among, 200 at most; 0 for 8.

        Returns:
            embeddings_dataset: The embeddings dataset.
            uri: Its place.
            rows: Its rows; 0 where the run was skipped.
            status: embedded, or skipped where the window held no text.
        """
        planned = profile.place(
            embedding.plan_backfill(
                text_files=text_files, model=model, output_folder=output_folder, text_column=text_column,
                text_id_column=text_id_column, text_where=text_where, text_strict=text_strict,
                window_since=window_since, window_until=window_until, window_time_column=window_time_column,
                window_as_of=window_as_of, window_when_empty=window_when_empty, model_prompt=model_prompt,
                model_precision=model_precision, model_dimension=model_dimension, model_max_tokens=model_max_tokens,
                model_segments=model_segments, model_cache=profile.model_cache, output_dtype=output_dtype,
                output_incremental=output_incremental, embed_tasks=embed_tasks,
                encoder_tunings=profile.encoder_tunings, hourly_price=profile.hourly_price,
                job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            )
        ).set_display_name("Plan")  # fmt: skip
        plan = planned.outputs["backfill_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=profile.parallelism) as share:
            embedded = profile.place(embedding.embed(share=share, backfill_plan=plan)).set_display_name("Embed")
        finished = profile.place(embedding.finish_backfill(backfill_plan=plan).after(embedded))
        finished.set_display_name("Finish")
        return Backfilled(**{name: finished.outputs[name] for name in Backfilled._fields})

    return backfill
