"""The drift pipeline's steps, called one after the other in this process: the same work, without a process a task."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from driftline.components.errors import DriftlineError, UsageError
from driftline.components.kernel import step as kernel
from driftline.components.kernel.method import DEFAULT_COMBINATION
from driftline.components.mmd import step as mmd
from driftline.components.projection import step as projection
from driftline.components.sampling import step as sampling
from driftline.components.steps import LOGGER
from driftline.pipelines.local import PipelineFailed

DEFAULTS: dict[str, Any] = {
    "level": 0.05,
    "permutations": 99,
    "kernel_name": "rbf",
    "gamma": "median",
    "combination": DEFAULT_COMBINATION,
    "method": "auto",
    "components": 8,
    "sample": 0,
    "tasks": 1,
    "seed": 0,
    "text_column": "text",
    "history": "",
    "as_of": "",
    "min_rows": 0,
    "when_small": "skip",
    "when_partial": "compare",
}


def run_steps(folder: Path, reference: str, current: str, out: str, **changes: Any) -> mmd.Reported:
    """Run every step, with its artifacts in a folder, and return what the last one does."""
    run_to_report(folder, reference, current, out, **changes)
    set_to = DEFAULTS | changes
    return report(folder, text_column=set_to["text_column"], history=set_to["history"])


def run_to_report(folder: Path, reference: str, current: str, out: str, **changes: Any) -> None:
    """Run every step but the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    set_to = DEFAULTS | changes
    pooled, fitted, projected, plan, outcome = (
        str(folder / f"{name}.json") for name in ("pooled", "fitted", "projected", "plan", "outcome")
    )
    sampling.run(
        reference=reference,
        current=current,
        out=out,
        size=set_to["sample"],
        seed=set_to["seed"],
        as_of=set_to["as_of"],
        min_rows=set_to["min_rows"],
        when_small=set_to["when_small"],
        when_partial=set_to["when_partial"],
        job="job-1",
        sample_out=pooled,
    )
    projection.fit(sample=pooled, components=set_to["components"], out=fitted)
    projection.project(sample=pooled, projection=fitted, out=projected)
    items = kernel.plan(
        projected=projected,
        kernel=set_to["kernel_name"],
        gamma=set_to["gamma"],
        combination=set_to["combination"],
        method=set_to["method"],
        permutations=set_to["permutations"],
        level=set_to["level"],
        seed=set_to["seed"],
        tasks=set_to["tasks"],
        out=plan,
    )
    for item in items:
        kernel.sums(plan=plan, share={name: float(value) for name, value in item.items()})  # KFP hands on floats
    mmd.test(
        plan=plan,
        combination=set_to["combination"],
        level=set_to["level"],
        out=outcome,
        witness_out=str(folder / "witness.npy"),
    )


def report(folder: Path, text_column: str = "text", history: str = "") -> mmd.Reported:
    """Run the last step on what the others left in a folder."""
    return mmd.report(
        sample=str(folder / "pooled.json"),
        projection=str(folder / "fitted.json"),
        projected=str(folder / "projected.json"),
        plan=str(folder / "plan.json"),
        outcome=str(folder / "outcome.json"),
        witness=str(folder / "witness.npy"),
        text_column=text_column,
        history=history,
        result_out=str(folder / "result.json"),
        report_out=str(folder / "report.html"),
    )


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
