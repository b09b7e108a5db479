"""`driftline embed`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from driftline.components.command_line.options import (
    fields_from,
    model_cache_option,
    model_option,
    options_of,
    tunings_option,
)
from driftline.components.embedding.backfill.settings import IN_PIPELINES, BackfillSettings
from driftline.components.settings import in_options


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@model_option
@click.option("--out", required=True, metavar="DATASET", help="Embeddings dataset to write, a gs:// or local folder.")
@options_of(BackfillSettings, but=["embed_tasks", "encoder_tunings", "model_cache"])  # all is one task on this machine
@tunings_option
@model_cache_option("of this user")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def embed(
    inputs: tuple[str, ...],
    model: str,
    out: str,
    tunings: str | None,
    model_cache: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Embed texts into an embeddings dataset.

    INPUT is a file, a folder or a pattern of Parquet, JSONL or CSV files, local or gs://. A run that was stopped goes
    on where it was when it is started again, at the last 4,096 texts: shards that are finished are kept.
    """
    from driftline.components.user_paths import model_folder, user_tunings
    from driftline.pipelines.runs import absolute, run_embed

    if tunings is None:
        tunings = user_tunings() if Path(user_tunings()).exists() else ""
    with in_options(IN_PIPELINES):
        settings = BackfillSettings.of(
            **fields_from(BackfillSettings, options),
            model_cache=model_folder() if model_cache is None else absolute(model_cache),
            encoder_tunings=absolute(tunings) if tunings else "",
        )
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
