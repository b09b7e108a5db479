"""Run Driftline's jobs on this machine: what the commands and the demonstration call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.kernel.method import AUTO, DEFAULT_COMBINATION, SEARCH
from driftline.components.mmd.result import DriftResult
from driftline.components.projection.step import WORK
from driftline.components.storage.location import is_gcs, normalised, split_gcs
from driftline.components.storage.store import join, read_json, remove_tree, write_bytes
from driftline.components.storage.texts import TextColumns, TextSelection
from driftline.pipelines.console import Display, following
from driftline.pipelines.local import run_pipeline

DRIFT_STEPS: Final = ("sample", "fit", "project", "plan", "kernel", "test", "report")
EMBED_STEPS: Final = ("plan", "embed", "finish")


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """The drift pipeline's settings, by the names of its parameters."""

    level: float = 0.05
    permutations: int = 500
    kernel_name: str = SEARCH
    gamma: str = "median"
    combination: str = DEFAULT_COMBINATION
    method: str = AUTO
    components: int = 32
    sample: int = 0
    tasks: int = 4
    seed: int = 0
    text_column: str = "text"
    history: str = ""


def run_drift(reference: str, current: str, out: str, settings: DriftSettings, title: str = "drift") -> DriftResult:
    """Run the drift pipeline through KFP's local runner and return its result.

    Everything that the tasks print goes to ``run.log`` in the output folder. Working files are removed, also when a
    task fails or the run is interrupted; what else lies in the output folder stays.
    """
    write_bytes(join(out, "run.log"), b"")  # an output that cannot be written is found before the work
    arguments = {"reference": reference, "current": current, "out": out, **asdict(settings)}
    with tempfile.TemporaryDirectory(prefix="driftline-log-") as folder:
        log = Path(folder) / "run.log"
        log.touch()
        workspaces: list[str] = []
        try:
            with Display(title, DRIFT_STEPS) as display:

                def listen(record: Mapping[str, Any]) -> None:
                    if "workspace" in record:
                        workspaces.append(record["workspace"])
                    display(record)

                run_pipeline("drift", arguments, log=log, listener=listen)
        finally:
            write_bytes(join(out, "run.log"), log.read_bytes())
            _remove_working_files(out, workspaces)
    return DriftResult.from_json(read_json(join(out, "result.json")))


def _remove_working_files(out: str, workspaces: Sequence[str]) -> None:
    for uri in workspaces:
        remove_tree(uri)
    folder = join(out, WORK)
    if not is_gcs(folder):
        with suppress(OSError):  # never made, or another run works in it, or it is the user's own
            Path(folder).rmdir()


@dataclass(frozen=True, slots=True)
class EmbedSettings:
    """The backfill's settings; what they mean stands at :func:`driftline.components.embedding.step.plan`."""

    columns: TextColumns = field(default_factory=TextColumns)
    selection: TextSelection = field(default_factory=TextSelection)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    dtype: str = "float32"
    rows_per_shard: int = 0
    strict: bool = False
    incremental: bool = False
    hourly_price: float = 0.0
    profile: str = ""
    model_cache: str = ""


def run_embed(
    inputs: Sequence[str], model: str, out: str, settings: EmbedSettings, title: str = "embed"
) -> dict[str, float]:
    """Run the backfill's steps in this process, which loads the model once, and return its metrics."""
    from driftline.components.embedding import step  # PyTorch: seconds to import

    with (
        following(Display(title, EMBED_STEPS)),
        tempfile.TemporaryDirectory(prefix="driftline-run-") as folder,
    ):
        plan, report, dataset = (str(Path(folder) / name) for name in ("plan.json", "report.json", "dataset.json"))
        step.plan(
            inputs=inputs,
            model=model,
            out=out,
            columns=settings.columns,
            selection=settings.selection,
            encoder=settings.encoder,
            dtype=settings.dtype,
            rows_per_shard=settings.rows_per_shard,
            strict=settings.strict,
            incremental=settings.incremental,
            tasks=1,
            model_cache=settings.model_cache,
            plan_out=plan,
        )
        step.embed(
            planned=plan,
            share={"task": 0},
            out=report,
            profile=settings.profile,
            model_cache=settings.model_cache,
        )
        return step.finish(
            planned=plan,
            parts=[report],
            dataset_out=dataset,
            hourly_price=settings.hourly_price,
            model_cache=settings.model_cache,
        )


def absolute(uri: str) -> str:
    """Return a local path made absolute, so that it means the same to every task; gs:// URIs as they are.

    Raises:
        UsageError: it is empty, of a scheme that cannot be read, or names no bucket.
    """
    place = normalised(uri)
    if is_gcs(place):
        split_gcs(place)
        return place
    return str(Path(place).absolute())
