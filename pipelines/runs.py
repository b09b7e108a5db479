"""Run Driftline's jobs on this machine: what the commands and the demonstration call."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.errors import DataError
from driftline.components.mmd.result import SKIPPED, DriftResult, SkippedResult
from driftline.components.storage.dataset.outputs import WORK, OutputPlace
from driftline.components.storage.objects.location import is_gcs, normalised, split_gcs
from driftline.components.storage.objects.store import exists, join, read_json, remove, remove_tree, write_bytes
from driftline.pipelines.console import Display, following
from driftline.pipelines.local import run_pipeline

if TYPE_CHECKING:
    from driftline.components.embedding.step import Finished

DRIFT_STEPS: Final = ("sample", "fit", "project", "plan", "kernel", "test", "report")
EMBED_STEPS: Final = ("plan", "embed", "finish")
LOG: Final = "run.log"
RESULT: Final = "result.json"


def run_drift(
    reference: str, current: str, out: str, settings: DriftSettings, title: str = "drift"
) -> DriftResult | SkippedResult:
    """Run the drift pipeline through KFP's local runner and return its result.

    Everything that the tasks print goes to ``run.log`` beside the report, or, where there is none, before the first
    placeholder of the output folder, in a file of its own beside another run's report. Working files are removed, also
    when a task fails or the run is interrupted; what else lies in the output folder stays.
    """
    base = OutputPlace.of(out).base
    own_log = join(base, f"run-{uuid.uuid4().hex[:8]}.log")
    write_bytes(own_log, b"")  # an output that cannot be written is found before the work
    remove(own_log)
    arguments = {"reference": reference, "current": current, "output_folder": out, **asdict(settings)}
    with tempfile.TemporaryDirectory(prefix="driftline-log-") as folder:
        log = Path(folder) / "run.log"
        log.touch()
        workspaces: list[str] = []
        reports: list[str] = []
        try:
            with Display(title, DRIFT_STEPS) as display:

                def listen(record: Mapping[str, Any]) -> None:
                    if "workspace" in record:
                        workspaces.append(record["workspace"])
                    if "report" in record:
                        reports.append(record["report"])
                    display(record)

                run_pipeline("drift", arguments, log=log, listener=listen)
        finally:
            if reports:
                place = join(reports[-1].rpartition("/")[0], LOG)
            else:
                place = own_log if exists(join(base, RESULT)) else join(base, LOG)
            write_bytes(place, log.read_bytes())
            _remove_working_files(base, workspaces)
    found = read_json(join(reports[-1].rpartition("/")[0], RESULT))
    return SkippedResult.from_json(found) if found.get("status") == SKIPPED else DriftResult.from_json(found)


def compared(result: DriftResult | SkippedResult) -> DriftResult:
    """Return the result of a run that compared something. Raises DataError for one that was skipped."""
    if isinstance(result, SkippedResult):
        raise DataError(f"{result.reason}; there is nothing to go on with")
    return result


def _remove_working_files(base: str, workspaces: Sequence[str]) -> None:
    for uri in workspaces:
        remove_tree(uri)
    folder = join(base, WORK)
    if not is_gcs(folder):
        with suppress(OSError):  # never made, or another run works in it, or it is the user's own
            Path(folder).rmdir()


def run_embed(
    inputs: Sequence[str], model: str, out: str, settings: BackfillSettings, title: str = "embed"
) -> Finished:
    """Run the backfill's steps in this process, which loads the model once, and return what it came to.

    All is one task here: the machine's cores share a task's texts by themselves.
    """
    from driftline.components.embedding import step  # PyTorch: seconds to import

    with (
        following(Display(title, EMBED_STEPS)),
        tempfile.TemporaryDirectory(prefix="driftline-run-") as folder,
    ):
        plan, dataset = (str(Path(folder) / name) for name in ("plan.json", "dataset.json"))
        [share] = step.plan(
            texts=inputs,
            model=model,
            out=out,
            plan_out=plan,
            job=uuid.uuid4().hex[:8],
            **(asdict(settings) | {"embed_tasks": 1}),
        )
        step.embed(planned=plan, share=share)
        return step.finish(planned=plan, dataset_out=dataset)


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
