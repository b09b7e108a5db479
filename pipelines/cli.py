"""The `driftline` command.

Exit status: 0 done, and no drift found; 3 drift found; 2 wrong usage; 1 failure; 130 interrupted, 143 told to end.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import click

from driftline.components.errors import DriftlineError, UsageError

if TYPE_CHECKING:
    from driftline.components.mmd.result import DriftResult

# Imports of the jobs stand in the commands: `driftline --help` answers at once, and each command loads, and needs
# installed, only its own part.

DRIFT_FOUND: Final = 3
INTERRUPTED: Final = 128 + signal.SIGINT
WIDTH: Final = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=WIDTH, epilog="Exit status: 0 no drift, 3 drift, 2 wrong usage, 1 failure.")
@click.version_option(version("driftline"), prog_name="driftline")
def cli() -> None:
    """Embed streams of texts, and tell when a stream stops looking like it used to."""


@cli.command()
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
@click.option("--prompt", default="", help="Name of one of the model's prompts, such as document.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Number type of the vectors.",
)
@click.option(
    "--rows-per-shard",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Texts in a shard.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def embed(
    inputs: tuple[str, ...],
    model: str,
    out: str,
    id_column: str,
    text_column: str,
    prompt: str,
    dtype: str,
    rows_per_shard: int,
    as_json: bool,
) -> None:
    """Embed texts into an embeddings dataset.

    INPUT is a file, a folder or a pattern of Parquet, JSONL or CSV files, local or gs://. A run that was stopped goes
    on where it was when it is started again: shards that are finished are kept.
    """
    from driftline.components.storage.texts import TextColumns
    from driftline.pipelines.runs import EmbedSettings, absolute, run_embed

    settings = EmbedSettings(TextColumns(id_column, text_column), prompt, dtype, rows_per_shard)
    numbers = run_embed([absolute(uri) for uri in inputs], model, absolute(out), settings)
    if as_json:
        click.echo(json.dumps({"dataset": absolute(out), **numbers}, indent=2, sort_keys=True))
    else:
        reused = numbers["texts"] - numbers["texts_encoded"]
        kept = f", {reused:.0f} of them kept from an earlier run" if reused else ""
        click.echo(f"{out}: {numbers['texts']:.0f} texts in {numbers['dimension']:.0f} dimensions{kept}")


@cli.command()
@click.option("--reference", required=True, metavar="DATASET", help="What the stream used to look like.")
@click.option("--current", required=True, metavar="DATASET", help="What to compare with it.")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    help="Folder for report.html, result.json, witness.parquet, run.log and the history.",
)
@click.option(
    "--level",
    type=float,
    default=0.05,
    show_default=True,
    help="Accepted rate of false alarms, between 0 and 1.",
)
@click.option(
    "--permutations", type=int, default=500, show_default=True, help="Random relabellings behind the p-value."
)
@click.option(
    "--kernel",
    default="search",
    show_default=True,
    help="Many kernels in one test (search), or one: rbf, laplace, imq, rq, linear, polynomial.",
)
@click.option(
    "--gamma",
    default="median",
    show_default=True,
    help="Inverse squared length scale of one kernel: a number, or median.",
)
@click.option(
    "--combination",
    default="studentised",
    show_default=True,
    help="How the kernels of a search are combined: studentised, fuse (MMD-FUSE) or agg (MMDAgg).",
)
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="exact, cross (half of the pairs, no permutations), features (time linear in the rows), or auto, by size.",
)
@click.option(
    "--components",
    type=int,
    default=32,
    show_default=True,
    help="Principal components to compare; 0 for whole vectors.",
)
@click.option(
    "--sample",
    type=int,
    default=0,
    metavar="N",
    help="At most N rows of each dataset, chosen by the seed; all where 0.  [default: 0]",
)
@click.option(
    "--tasks",
    type=click.IntRange(1, 200),
    default=4,
    show_default=True,
    metavar="T",
    help="Kernel tasks to share the work among.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="Seed of sampling and relabelling.")
@click.option(
    "--text-column",
    default="text",
    show_default=True,
    help="Carried column that holds the texts to show in the report.",
)
@click.option(
    "--history",
    default="",
    metavar="DIR",
    help="Folder of past results for the trend.  [default: history in the output folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def drift(
    reference: str,
    current: str,
    out: str,
    level: float,
    permutations: int,
    kernel: str,
    gamma: str,
    combination: str,
    method: str,
    components: int,
    sample: int,
    tasks: int,
    seed: int,
    text_column: str,
    history: str,
    as_json: bool,
) -> None:
    """Tell whether one embeddings dataset still looks like another.

    Runs the drift pipeline on this machine, the same that `driftline compile drift` writes for a cluster. Exit
    status: 0 no drift, 3 drift.
    """
    from driftline.components.mmd.two_sample import check_settings
    from driftline.components.sampling.step import check_size
    from driftline.pipelines.runs import DriftSettings, absolute, run_drift

    check_settings(kernel, gamma, method, combination, permutations, level, seed)
    check_size(sample)
    if components < 0:
        raise UsageError(f"components: expected 1 or more, or 0 for whole vectors, got {components}")
    settings = DriftSettings(
        level=level,
        permutations=permutations,
        kernel_name=kernel,
        gamma=gamma,
        combination=combination,
        method=method,
        components=components,
        sample=sample,
        tasks=tasks,
        seed=seed,
        text_column=text_column,
        history=absolute(history) if history else "",
    )
    result = run_drift(absolute(reference), absolute(current), absolute(out), settings)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, sort_keys=True))
    else:
        for line in _summary(result):
            click.echo(line)
        click.echo(f"report: {out.rstrip('/')}/report.html")
    if result.drift:
        sys.exit(DRIFT_FOUND)


def _summary(result: DriftResult) -> Iterator[str]:
    """Yield what the command says of a result: the decision, how large the drift is, and by what it was seen."""
    verdict = "drift" if result.drift else "no drift found"
    yield f"{verdict}: p = {result.p_value:.4g} {'≤' if result.drift else '>'} level {result.level:g}"
    interval = result.mmd2_interval
    within = "" if interval is None else f", 95% interval {interval[0]:.3g} to {interval[1]:.3g}"
    yield f"MMD² {result.mmd2:.3g}{within}; of two texts, one of each, it tells {result.discrimination:.1%} apart"
    leading = result.kernel
    among = f", {leading.share:.0%} of the evidence of {len(result.kernels)} kernels" if len(result.kernels) > 1 else ""
    yield f"seen by the kernel {leading.name} of gamma {leading.gamma:.3g}{among}"
    yield f"method {result.method}, {result.method_reason}"
    yield f"{result.reference.sampled} against {result.current.sampled} texts"


def _image(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    from driftline.components.images import BY_NAME

    images = dict(BY_NAME)
    for value in values:
        name, separator, reference = value.partition("=")
        if name not in BY_NAME or not separator or not reference:
            raise click.BadParameter(f"expected NAME=REFERENCE with NAME one of {', '.join(BY_NAME)}, got {value!r}")
        images[name] = reference
    return images


@cli.command("compile")
@click.argument("pipeline", default="drift", metavar="[PIPELINE]")
@click.option("--out", required=True, metavar="FILE", help="YAML file to write, to upload to Kubeflow.")
@click.option(
    "--image",
    "images",
    multiple=True,
    callback=_image,
    metavar="NAME=REF",
    help="Image reference for embed or kernels, by digest in production; repeatable.",
)
@click.option(
    "--gpu",
    type=click.Choice(["embed", "kernels", "none"]),
    multiple=True,
    default=["embed"],
    show_default=True,
    help="Fan-outs whose tasks ask for a GPU each; repeatable.",
)
def compile_(pipeline: str, out: str, images: dict[str, str], gpu: tuple[str, ...]) -> None:
    """Compile a pipeline, drift or backfill, to YAML for a Kubeflow cluster."""
    from driftline.pipelines.compiled import write_pipeline
    from driftline.pipelines.profile import Profile

    write_pipeline(pipeline, Profile(images=images, gpu=frozenset(gpu) - {"none"}), out)
    click.echo(out)


@cli.command()
@click.option(
    "--folder",
    default=".demo",
    show_default=True,
    metavar="DIR",
    help="Where the model, the texts and the reports go.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="Seed of the windows and the tests.")
def demo(folder: str, seed: int) -> None:
    """Find drift in real film reviews: fetch a small model and the texts, embed four windows, test three."""
    from driftline.pipelines.demo import run_demo

    run_demo(folder, seed, click.echo)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every error that a user can put right is one line, never a traceback."""
    with _ending_in_order():
        sys.exit(_status(lambda: cli.main(arguments, prog_name="driftline", standalone_mode=False)))


@contextmanager
def _ending_in_order() -> Generator[None]:
    """Let SIGTERM end the command as Ctrl-C does: with its tasks stopped and its working files removed."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _status(run: Callable[[], Any]) -> int:
    try:
        run()
    except UsageError as error:
        click.echo(f"driftline: {error}", err=True)
        return 2
    except DriftlineError as error:
        click.echo(f"driftline: {error}", err=True)
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = "driftline" if context is None else context.command_path
        message = " ".join(error.format_message().split()).rstrip(".")
        click.echo(f"driftline: {message}; see {command} --help", err=True)
        return error.exit_code
    except ModuleNotFoundError as error:
        part = "all" if error.name is None else error.name
        click.echo(
            f"driftline: the package {part} is not installed; pip install 'driftline[all]', or the extra of this part",
            err=True,
        )
        return 1
    except OSError as error:  # of the machine rather than of a dataset: no room for temporary files, say
        place = "" if error.filename is None else f"{error.filename}: "
        click.echo(
            f"driftline: {place}{error.strerror or error}; check the path, its permissions and its disk", err=True
        )
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("driftline: interrupted", err=True)
        return INTERRUPTED
    return 0
