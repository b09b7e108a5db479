"""The drift pipeline's steps, called one after the other in this process: the same work, without a process a task."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from driftline.components.errors import DriftlineError, UsageError
from driftline.components.kernel import step as kernel
from driftline.components.mmd import step as mmd
from driftline.components.projection import step as projection
from driftline.components.sampling import step as sampling
from driftline.components.steps import LOGGER
from driftline.components.storage.objects.values import read_value, write_value
from driftline.pipelines.local import PipelineFailed

DEFAULTS: dict[str, Any] = {
    "pca_components": 8,
    "kernel": "rbf",
    "kernel_tasks": 1,
    "test_permutations": 99,
}


def run_steps(folder: Path, reference: str, current: str, output_folder: str, **changes: Any) -> mmd.Reported:
    """Run every step, with its artifacts in a folder, and return what the last one does.

    Args:
        folder: where the artifacts go.
        reference: as of the pipeline.
        current: as of the pipeline.
        output_folder: as of the pipeline.
        changes: settings, by the names of the pipeline's parameters.
    """
    run_to_report(folder, reference, current, output_folder, **changes)
    return report(folder)


def run_to_report(folder: Path, reference: str, current: str, output_folder: str, **changes: Any) -> mmd.Tested:
    """Run every step but the last one, and return what the test puts out."""
    folder.mkdir(parents=True, exist_ok=True)
    pooled, fitted, projected, plan, outcome = (
        str(folder / f"{name}.json") for name in ("pooled", "fitted", "projected", "plan", "outcome")
    )
    sampling.run(
        reference=reference, current=current, out=output_folder, job="job-1", sample_out=pooled, **(DEFAULTS | changes)
    )
    projection.fit(sample=pooled, out=fitted)
    projection.project(sample=pooled, projection=fitted, out=projected)
    for item in kernel.plan(projected=projected, out=plan):
        kernel.sums(plan=plan, share={name: float(value) for name, value in item.items()})  # KFP hands on floats
    return mmd.test(plan=plan, out=outcome, witness_out=str(folder / "witness.npy"))


def report(folder: Path) -> mmd.Reported:
    """Run the last step on what the others left in a folder."""
    return mmd.report(
        outcome=str(folder / "outcome.json"),
        witness=str(folder / "witness.npy"),
        result_out=str(folder / "result.json"),
        report_out=str(folder / "report.html"),
    )


def with_run(folder: Path, /, **changes: str) -> None:
    """Change the run in what the last step will read: its id, or where its files go."""
    place = str(folder / "outcome.json")
    judged = read_value(place, mmd.Judged)
    sample = judged.plan.sample
    pooled = replace(sample.pooled, run=replace(sample.pooled.run, **changes))
    write_value(place, replace(judged, plan=replace(judged.plan, sample=replace(sample, pooled=pooled))))


def pipeline_in_process(folder: Path) -> Callable[..., None]:
    """Return a stand-in for `driftline.pipelines.local.run_pipeline` that runs the steps here."""

    def run(name: str, arguments: Mapping[str, Any], *, log: Path, listener: Callable[[dict[str, Any]], None]) -> None:
        assert name == "drift"
        handler = _Listening(listener)
        level = LOGGER.level
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
        try:
            run_steps(folder, **arguments)
        except UsageError:
            raise
        except DriftlineError as error:
            raise PipelineFailed(str(error)) from error
        finally:
            LOGGER.removeHandler(handler)
            LOGGER.setLevel(level)

    return run


class _Listening(logging.Handler):
    def __init__(self, listener: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        self._listener(json.loads(record.getMessage()))
