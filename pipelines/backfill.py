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


class Backfilled(NamedTuple):
    """What a backfill comes to, for the steps behind it."""

    dataset: EmbeddingsDataset
    uri: str
    rows: int
    status: str


def backfill_pipeline(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""

    @dsl.pipeline(name=NAME, description="Embed a corpus of texts into an embeddings dataset.")
    def backfill(
        texts: list,
        model: str,
        out: str,
        id_column: str = "id",
        text_column: str = "text",
        time_column: str = "time",
        since: str = "",
        until: str = "",
        where: list = [],  # noqa: B006 - KFP compiles the default into the pipeline
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
        encoder_profile: str = "",
        hourly_price: float = 0.0,
        as_of: str = "",
        when_empty: str = "skip",
    ) -> Backfilled:
        """Embed texts with a sentence-transformers model.

        Args:
            texts: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local; a folder date=yesterday
                is that of the day before as_of.
            model: Folder, gs:// prefix or name of a sentence-transformers model.
            out: Embeddings dataset to write, a gs:// or local folder; date=yesterday in it, {date}, {hour} and {run}
                are those of as_of and of the run.
            id_column: Column that holds the texts' ids.
            text_column: Column that holds the texts.
            time_column: Column that since and until look at.
            since: Take texts from this time on, a date, ISO 8601, or relative to as_of in UTC, such as -1d or -24h;
                empty for all.
            until: Take texts before this time, such as today; empty for all.
            where: Conditions that must all hold, such as "rating >= 7".
            strict: Refuse texts that are null, blank or damaged instead of counting them.
            incremental: Add to the dataset that is there: embed new and changed texts, delete those whose text is null.
            prompt: Name of one of the model's prompts; empty for its default.
            precision: Number type of the model: float32, bfloat16, float16, or auto (float32 on a CPU, else float16).
            dimension: Leading numbers of a Matryoshka model's vectors to keep; 0 for all.
            max_tokens: Tokens of a text to look at; 0 for the model's maximum.
            segments: Embed longer texts by overlapping windows, pooled by mean or max; empty to cut them.
            overlap: Tokens that neighbouring windows share; 0 for an eighth.
            dtype: Number type of the stored vectors, float32 or float16.
            rows_per_shard: Texts in a shard at most; 0 for 50,000.
            tasks: Tasks to share the shards among, 200 at most.
            encoder_profile: What `driftline bench encode` measured on such machines, a gs:// file; empty for none.
            hourly_price: Of one task's machine, in any currency, to tell what a million texts cost; 0 to leave it out.
            as_of: The moment that relative times are of, an ISO 8601 date or time; empty for now.
            when_empty: What becomes of a run whose window holds no text, skip or refuse.

        Returns:
            dataset: The embeddings dataset.
            uri: Its place.
            rows: Its rows; 0 where the run was skipped.
            status: embedded, or skipped where the window held no text.
        """
        cache = profile.model_cache
        planned = profile.place(
            embedding.plan_backfill(
                texts=texts, model=model, out=out, id_column=id_column, text_column=text_column,
                time_column=time_column, since=since, until=until, where=where, strict=strict, incremental=incremental,
                prompt=prompt, precision=precision, dimension=dimension, max_tokens=max_tokens, segments=segments,
                overlap=overlap, dtype=dtype, rows_per_shard=rows_per_shard, tasks=tasks, as_of=as_of,
                when_empty=when_empty, model_cache=cache, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            )
        )  # fmt: skip
        plan = planned.outputs["backfill_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=profile.parallelism) as share:
            embedded = profile.place(
                embedding.embed(share=share, profile=encoder_profile, model_cache=cache, backfill_plan=plan)
            )
        finished = profile.place(
            embedding.finish_backfill(hourly_price=hourly_price, model_cache=cache, backfill_plan=plan).after(embedded)
        )
        return Backfilled(**{name: finished.outputs[name] for name in Backfilled._fields})

    return backfill
