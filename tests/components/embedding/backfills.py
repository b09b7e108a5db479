"""The backfill's three steps, run in this process as the pipeline runs them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driftline.components.embedding import step
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.step import TaskReport
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.store import list_files, read_bytes
from driftline.components.storage.objects.values import read_value
from tests.components.embedding.tiny_models import SCRIPTS

TEXTS = [f"{script} {number}" for number in range(2) for script in SCRIPTS][:11]
"""Eleven texts in seven scripts."""

SETTINGS: dict[str, Any] = {"output_rows_per_shard": 4, "embed_tasks": 1}


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill whose artifacts lie in a folder."""

    folder: Path

    @property
    def planned(self) -> str:
        """Path of the plan."""
        return str(self.folder / "plan.json")

    def plan(self, inputs: Sequence[str | Path], model: str | Path, out: str | Path, **changes: Any) -> list[int]:
        """Plan, and return the tasks' numbers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        items = step.plan(
            texts=[str(given) for given in inputs],
            model=str(model),
            out=str(out),
            plan_out=self.planned,
            **(SETTINGS | changes),
        )
        return [item["task"] for item in items]

    def embed(self, task: int) -> TaskReport:
        """Embed one task's share."""
        # KFP hands numbers on as floats.
        share = {"task": float(task), "tasks": float(read_value(self.planned, BackfillPlan).tasks)}
        told = step.embed(planned=self.planned, share=share)
        assert told is not None
        return told

    def report_uri(self, task: int) -> str:
        """Return where a task tells what it did."""
        return read_value(self.planned, BackfillPlan).report_uri(task)

    def finish(self) -> dict[str, float]:
        """Finish from the tasks' reports, and return all numbers."""
        return self.finished().counts

    def finished(self) -> step.Finished:
        """Finish from the tasks' reports, and return all that the last step does."""
        return step.finish(planned=self.planned, dataset_out=str(self.folder / "out.json"))

    def run(self, inputs: Sequence[str | Path], model: str | Path, out: str | Path, **changes: Any) -> dict[str, float]:
        """Run all steps and return all numbers."""
        for task in self.plan(inputs, model, out, **changes):
            self.embed(task)
        return self.finish()


def contents(out: str | Path) -> dict[str, bytes]:
    """Return every file of a dataset, by its name."""
    return {info.uri.rsplit("/", 1)[-1]: read_bytes(info.uri) for info in list_files(str(out))}


def rows(out: str | Path) -> tuple[list[str], np.ndarray]:
    """Return a dataset's ids and vectors."""
    batches = list(EmbeddingsDataset.open(str(out)).batches())
    return [name for batch in batches for name in batch.ids], np.concatenate([batch.embeddings for batch in batches])


def one_line(start: object, text: str = "") -> str:
    """Return a pattern of a message of one line with a start and, where given, a text in it."""
    return rf"\A{re.escape(str(start))}[^\n]*{re.escape(text)}[^\n]*\Z"
