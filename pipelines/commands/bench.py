"""`driftline bench`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.components.command_line.options import model_cache_option, model_option, options_of, settings_from
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import UsageError

if TYPE_CHECKING:
    from driftline.components.embedding.encoding.tuning.measure import Measurement


@click.group()
def bench() -> None:
    """Measure this machine."""


@bench.command("encode")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@model_option
@click.option("--id-column", default="id", show_default=True, help="Column that holds the texts' ids.")
@click.option("--text-column", default="text", show_default=True, help="Column that holds the texts.")
@click.option(
    "--texts",
    "count",
    type=click.IntRange(min=8),
    default=1000,
    show_default=True,
    metavar="N",
    help="Texts in one measurement: as many as take a second or more.",
)
@options_of(EncoderSettings)
@click.option("--compile", "compiled", is_flag=True, help="Translate the model by torch.compile as well.")
@click.option(
    "--tunings",
    metavar="FILE",
    help="Where to remember the fastest, for embed and serve.  [default: of this user]",
)
@model_cache_option("of this user")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def encode(
    inputs: tuple[str, ...],
    model: str,
    id_column: str,
    text_column: str,
    count: int,
    compiled: bool,
    tunings: str | None,
    model_cache: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find how a model encodes fastest on this machine, in each precision, and remember it.

    INPUT are texts like those to come, files or folders as `driftline embed` takes them, the first of which are
    measured with; without any, texts of random words as long as film reviews are.
    """
    from driftline.components.embedding.encoding.tuning.benchmark import bench_encoder
    from driftline.components.storage.texts.rows import TextColumns
    from driftline.components.user_paths import model_folder, user_tunings
    from driftline.pipelines.console import counting
    from driftline.pipelines.runs import absolute

    place = user_tunings() if tunings is None else absolute(tunings)
    if not place.endswith(".json"):
        raise UsageError(f"tunings: expected a file whose name ends in .json, got {tunings}")
    with counting("measuring") as say:
        found = bench_encoder(
            model=model,
            inputs=[absolute(uri) for uri in inputs],
            columns=TextColumns(id_column, text_column),
            texts=count,
            encoder=settings_from(EncoderSettings, options),
            torch_compile=compiled,
            tunings=place,
            model_cache=model_folder() if model_cache is None else absolute(model_cache),
            on_progress=say,
        )
    if as_json:
        from pydantic import TypeAdapter

        click.echo(json.dumps([TypeAdapter(type(one)).dump_python(one, mode="json") for one in found], indent=2))
    else:
        _table(found)
        click.echo(f"the fastest of each precision is remembered in {Path(place)}")


def _table(found: Sequence[Measurement]) -> None:
    head = (
        "precision",
        "compiled",
        "batch tokens",
        "streams",
        "threads",
        "texts/s",
        "tokens/s",
        "of matrix rate",
        "MB",
    )
    rows = [
        (
            one.precision,
            "yes" if one.tuning.compile else "no",
            f"{one.tuning.batch_tokens:,}",
            str(one.tuning.streams or 1),
            str(one.tuning.threads or "-"),
            f"{one.texts_per_second:,.0f}",
            f"{one.tokens_per_second:,.0f}",
            f"{one.matrix_share:.0%}",
            f"{one.memory_mb:,.0f}",
        )
        for one in found
    ]
    for row in (head, *rows):
        click.echo("  ".join(cell.rjust(len(name)) for name, cell in zip(head, row, strict=True)))
