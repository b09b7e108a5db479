"""Reports of the backfill's shards and tasks, and the numbers that the user sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.storage.dataset.manifest import Manifest, Shard

STATUS: Final = "Status"
"""The metric that says in a word what became of a run: its capital puts it before the others."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The work that a shard took.

    Attributes:
        texts: its rows.
        distinct: texts that were encoded, each once however many rows have it.
        tokens: of the distinct texts.
        truncated: distinct texts cut at the model's maximum length.
    """

    texts: int
    distinct: int
    tokens: int
    truncated: int


@dataclass(frozen=True, slots=True)
class ShardReport:
    """A finished shard.

    Attributes:
        shard: its name, rows, size and checksum.
        dimension: length of a vector; 0 where that is not known.
        normalized: whether vectors have length 1.
        encoded: the work, in this run; None where the shard was finished by an earlier one.
    """

    shard: Shard
    dimension: int
    normalized: bool
    encoded: Encoded | None


@dataclass(frozen=True, slots=True)
class TaskReport:
    """An embedding task's share: shards that it found, shards that it made.

    Attributes:
        shards: the shards of its share, each with its number.
        rows: rows whose vectors this very task made; those that it found made are not counted.
        seconds: how long it took.
    """

    shards: tuple[tuple[int, ShardReport], ...]
    rows: int
    seconds: float


def counted(plan: BackfillPlan, manifest: Manifest, reports: Sequence[TaskReport]) -> dict[str, float]:
    """Return all numbers that a finished backfill is judged by.

    Rate and cost are those of the tasks that reported: what a task that was killed had done, and the time it took,
    are left out of both.

    Args:
        plan: the plan.
        manifest: of the finished dataset.
        reports: of all tasks.
    """
    encoded = [entry.encoded for report in reports for _, entry in report.shards if entry.encoded is not None]
    seconds = sum(report.seconds for report in reports)
    rows = sum(report.rows for report in reports)
    counts, previous, hourly_price = plan.counts, plan.previous, plan.settings.hourly_price
    numbers = {
        "texts": manifest.rows,
        "texts_encoded": sum(entry.texts for entry in encoded),
        "duplicates": sum(entry.texts - entry.distinct for entry in encoded),
        "tokens": sum(entry.tokens for entry in encoded),
        "truncated": sum(entry.truncated for entry in encoded),
        "null": counts.null,
        "empty": counts.empty,
        "whitespace": counts.whitespace,
        "surrogates": counts.surrogates,
        "control": counts.control,
        "outside": counts.outside,
        "deleted": 0 if previous is None else previous.replaced + previous.removed,
        "unknown_tombstones": 0 if previous is None else previous.unknown,
        "shards": len(manifest.shards),
        "dimension": manifest.dimension,
        "task_seconds": seconds,
        "rows_per_second": rows / seconds if seconds > 0 else 0,
    }
    if hourly_price > 0 and rows > 0:
        numbers["cost_per_million_texts"] = hourly_price * seconds / 3600 / rows * 1e6
    return {name: float(value) for name, value in numbers.items()}


def metrics(plan: BackfillPlan, counts: Mapping[str, float]) -> dict[str, float | str]:
    """Return what Kubeflow shows of a finished backfill: at most ten, since its page has ten rows, sorted by ASCII.

    `left_out` are texts that the selection took and that were not embedded: empty ones, blank ones, and null ones,
    save where these delete. Rows outside of the selection are none of them. Where nothing was embedded there is no
    rate. Measured numbers have four digits: Kubeflow's store keeps six decimals.

    Args:
        plan: the plan.
        counts: all numbers.
    """
    left_out = counts["empty"] + counts["whitespace"]
    if plan.previous is None:
        left_out += counts["null"]
    shown: dict[str, float | str] = {
        STATUS: "embedded",
        "deleted": counts["deleted"],
        "left_out": left_out,
        "shards": counts["shards"],
        "texts": counts["texts"],
        "texts_embedded": counts["texts_encoded"],
        "tokens": counts["tokens"],
        "truncated": counts["truncated"],
    }
    for name, measured in (
        ("texts_per_second", counts["rows_per_second"]),
        ("cost_per_million_texts", counts.get("cost_per_million_texts", 0.0)),
    ):
        if measured > 0:
            shown[name] = float(f"{measured:.4g}")
    return shown
