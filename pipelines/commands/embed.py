"""`driftline embed`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from driftline.serving.commands.encoder_options import encoder_options

if TYPE_CHECKING:
    from driftline.components.embedding.backfill.settings import DType
    from driftline.components.embedding.encoding.settings import Precision, SegmentPooling


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--model",
    required=True,
    metavar="M",
    help="Folder, gs:// prefix or name of a sentence-transformers model.",
)
@click.option("--out", required=True, metavar="DATASET", help="Embeddings dataset to write, a gs:// or local folder.")
@click.option("--id-column", default="id", show_default=True, help="Column that holds the texts' ids.")
@click.option("--text-column", default="text", show_default=True, help="Column that holds the texts.")
@click.option("--time-column", default="time", show_default=True, help="Column that --since and --until look at.")
@click.option(
    "--since",
    default="",
    metavar="TIME",
    help="Take texts from this time on: a date, ISO 8601, or relative in UTC, such as -1d or -24h.",
)
@click.option("--until", default="", metavar="TIME", help="Take texts before this time, such as today.")
@click.option("--as-of", default="", metavar="TIME", help="The moment that relative times are of.  [default: now]")
@click.option(
    "--when-empty",
    type=click.Choice(["skip", "refuse"]),
    default="skip",
    show_default=True,
    help="What becomes of a run whose window, by --since, --until or a relative folder, holds no text.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Take texts of which this holds, such as 'rating >= 7' or 'category in (plot, fresh)'; repeatable.",
)
@click.option("--strict", is_flag=True, help="Refuse texts that are null, blank or damaged instead of counting them.")
@click.option(
    "--incremental",
    is_flag=True,
    help="Add to the dataset that is there: embed new and changed texts, delete those whose text is null.",
)
@encoder_options
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Number type of the stored vectors.",
)
@click.option(
    "--rows-per-shard",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Texts in a shard at most.",
)
@click.option(
    "--profile",
    metavar="FILE",
    help="What `driftline bench encode` measured.  [default: of this user, where there is one]",
)
@click.option("--model-cache", metavar="DIR", help="Local folder for models from gs://.  [default: of this user]")
@click.option(
    "--hourly-price",
    type=click.FloatRange(min=0.0),
    default=0.0,
    show_default=True,
    help="Price of this machine an hour, to tell what a million texts cost.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def embed(
    inputs: tuple[str, ...],
    model: str,
    out: str,
    id_column: str,
    text_column: str,
    time_column: str,
    since: str,
    until: str,
    as_of: str,
    when_empty: Literal["skip", "refuse"],
    where: tuple[str, ...],
    strict: bool,
    incremental: bool,
    prompt: str,
    precision: Precision,
    dimension: int,
    max_tokens: int,
    segments: SegmentPooling | None,
    overlap: int,
    dtype: DType,
    rows_per_shard: int,
    profile: str | None,
    model_cache: str | None,
    hourly_price: float,
    as_json: bool,
) -> None:
    """Embed texts into an embeddings dataset.

    INPUT is a file, a folder or a pattern of Parquet, JSONL or CSV files, local or gs://. A run that was stopped goes
    on where it was when it is started again, at the last 4,096 texts: shards that are finished are kept.
    """
    from driftline.components.checks import in_options
    from driftline.components.embedding.backfill.settings import IN_PIPELINES, BackfillSettings
    from driftline.components.user_paths import model_folder, user_profile
    from driftline.pipelines.runs import absolute, run_embed

    if profile is None:
        profile = user_profile() if Path(user_profile()).exists() else ""
    settings = BackfillSettings(
        text_column=text_column,
        text_id_column=id_column,
        text_where=where,
        text_strict=strict,
        window_since=since,
        window_until=until,
        window_time_column=time_column,
        window_as_of=as_of,
        window_when_empty=when_empty,
        model_prompt=prompt,
        model_precision=precision,
        model_dimension=dimension,
        model_max_tokens=max_tokens,
        model_segments=segments or "",
        model_segment_overlap=overlap,
        model_cache=model_folder() if model_cache is None else absolute(model_cache),
        output_dtype=dtype,
        output_incremental=incremental,
        output_rows_per_shard=rows_per_shard,
        encoder_profile=absolute(profile) if profile else "",
        hourly_price=hourly_price,
    )
    with in_options(IN_PIPELINES):
        done = run_embed([absolute(uri) for uri in inputs], model, absolute(out), settings)
    if as_json:
        click.echo(json.dumps({"dataset": done.uri, "status": done.status, **done.counts}, indent=2, sort_keys=True))
    elif done.status == "skipped":
        click.echo(f"skipped: the window holds no text; {done.uri} is as it was")
    else:
        for line in _summary(out if done.uri == absolute(out) else done.uri, done.counts):
            click.echo(line)


def _summary(out: str, numbers: Mapping[str, float]) -> Iterator[str]:
    """Yield what the command says: what there is, what of it is new, and what was not as it should be."""
    kept = numbers["texts"] - numbers["texts_encoded"]
    kept_part = f", {kept:,.0f} of them kept from an earlier run" if kept > 0 else ""
    yield f"{out}: {numbers['texts']:,.0f} texts in {numbers['dimension']:.0f} dimensions{kept_part}"
    if numbers["texts_encoded"]:
        cost = numbers.get("cost_per_million_texts")
        yield (
            f"{numbers['rows_per_second']:,.0f} texts a second, {numbers['tokens']:,.0f} tokens"
            + (f", {cost:,.2f} for a million texts" if cost else "")
        )
    odd = {
        "deleted": "deleted",
        "duplicates": "the same as another text",
        "truncated": "longer than the model's maximum, cut",
        "null": "null, left out",
        "empty": "empty, left out",
        "whitespace": "only white space, left out",
        "surrogates": "with damaged characters, mended",
        "control": "with control characters, kept",
    }
    found = [f"{numbers[name]:,.0f} {what}" for name, what in odd.items() if numbers.get(name)]
    if found:
        yield "texts: " + "; ".join(found)
