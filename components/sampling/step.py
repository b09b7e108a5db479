"""The first step of a drift run: its windows become datasets, which are checked, and its rows are chosen."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from driftline.components.errors import DataError, UsageError
from driftline.components.random_bits import check_seed
from driftline.components.sampling.identity import Run
from driftline.components.sampling.pooled import pair
from driftline.components.steps import REFUSE, SKIP, Skipped, check_whole, running
from driftline.components.storage.dataset import EmbeddingsDataset
from driftline.components.storage.outputs import OutputPlace, sweep_work
from driftline.components.storage.values import write_value
from driftline.components.storage.windows import EmptyWindow, Window, missing_parts, open_window, parse_as_of, window_of

_LEAST_ROWS: Final = 2  # a sample of one text has no spread
COMPARE: Final = "compare"

_NAMED: Final = 3  # missing days or hours that a message names


@dataclass(frozen=True, slots=True)
class _Side:
    """A window, and what was found there; no dataset where nothing was."""

    name: str
    window: Window
    dataset: EmbeddingsDataset | None
    missing: tuple[str, ...]

    @property
    def rows(self) -> int:
        return 0 if self.dataset is None else self.dataset.rows


def run(
    *,
    reference: str,
    current: str,
    out: str,
    sample_out: str,
    size: int = 0,
    seed: int = 0,
    as_of: str = "",
    min_rows: int = 0,
    when_small: str = SKIP,
    when_partial: str = COMPARE,
    job: str = "",
) -> None:
    """Resolve and open both windows, check that they can be compared, choose rows and write the pooled sample as JSON.

    What earlier runs with this `out` left behind when they failed is removed, a week after they last wrote.

    Args:
        reference: the embeddings dataset that the stream used to look like, or a window.
        current: the embeddings dataset or window to compare with it.
        out: folder of the run, with or without placeholders.
        sample_out: path of the artifact to write.
        size: at most this many rows of each, chosen by the seed; 0 for all.
        seed: seed of the run.
        as_of: the moment that windows are relative to; empty for now.
        min_rows: rows that either side must have to be compared; 0 for the least that a test takes.
        when_small: what becomes of an empty window, or one of fewer rows: ``"skip"`` or ``"refuse"``.
        when_partial: what becomes of a window that lacks some of its days or hours: ``"compare"``, ``"skip"`` or
            ``"refuse"``.
        job: the backend's name for the run.

    Raises:
        UsageError: a setting is out of range.
        DataError: the two cannot be compared, or a window is to be refused.
        StorageError: something cannot be read.
    """
    with running("sample", hands_on=(sample_out,)) as clock:
        check_size(size)
        check_seed(seed)
        check_windows(min_rows, when_small, when_partial)
        now = datetime.now(UTC)
        moment = parse_as_of(as_of, now)
        place = OutputPlace.of(out)
        this = Run(
            id=uuid.uuid4().hex,
            job=job,
            created=now.isoformat(timespec="seconds"),
            as_of=moment.isoformat(timespec="seconds"),
            base=place.base,
            folder=place.folder(moment, job),
        )
        clock.log("progress", run=this.id, job=this.job, as_of=this.as_of, out=this.folder)
        windows = window_of(reference, moment), window_of(current, moment)
        swept = sweep_work(this.base, this.id, now)
        if swept:
            clock.log("progress", swept=list(swept))
        sides = _opened("reference", windows[0]), _opened("current", windows[1])
        for side in sides:
            clock.log("progress", side=side.name, asked=side.window.asked, window=side.window.uri, rows=side.rows,
                      missing=list(side.missing))  # fmt: skip
        judged = [_judged(side, min_rows, when_small, when_partial) for side in sides]
        for why, outcome in judged:
            if outcome == REFUSE:
                raise DataError(why)
        for why, outcome in judged:
            if outcome == SKIP:
                raise Skipped(why, _fields(this, sides))
            if why:
                clock.log("progress", partial=why)
        datasets = [side.dataset for side in sides if side.dataset is not None]
        sample = pair(this, datasets[0], datasets[1], size, seed)
        known = [
            dataclasses.replace(identity, asked=side.window.asked, missing=side.missing)
            for identity, side in zip((sample.reference, sample.current), sides, strict=True)
        ]
        write_value(
            sample_out, dataclasses.replace(sample, reference=known[0], current=known[1], seconds=clock.seconds)
        )


def _opened(name: str, window: Window) -> _Side:
    try:
        dataset = open_window(window)
    except EmptyWindow:
        return _Side(name, window, None, window.expected)
    return _Side(name, window, dataset, missing_parts(window, dataset))


def _judged(side: _Side, min_rows: int, when_small: str, when_partial: str) -> tuple[str, str]:
    """Return what is to be said of a side, if anything, and what becomes of the run."""
    what = f"{side.name} {side.window.uri}"
    if side.dataset is None:
        return f"{what}: the window is empty", when_small
    least = max(min_rows, _LEAST_ROWS)
    # A dataset that is no window never becomes larger by waiting: that it holds too little is an error, said elsewhere.
    if side.rows < (least if side.window.ranged else min_rows):
        return f"{what}: {side.rows} rows, of the {least} that a comparison is to have", when_small
    if side.missing:
        named = ", ".join(side.missing[:_NAMED]) + (", …" if len(side.missing) > _NAMED else "")
        return f"{what}: {len(side.missing)} of {len(side.window.expected)} parts are missing: {named}", when_partial
    return "", COMPARE


def _fields(this: Run, sides: tuple[_Side, _Side]) -> Mapping[str, object]:
    """Return what the last step tells of a run that is skipped."""
    told = {
        side.name: {
            "uri": side.window.uri,
            "asked": side.window.asked,
            "rows": side.rows,
            "missing": list(side.missing),
        }
        for side in sides
    }
    return {"run": dataclasses.asdict(this), **told}


def check_size(size: int) -> None:
    """Raise UsageError for a sample size that leaves nothing to compare."""
    check_whole(sample=size)
    if size < 0 or size == 1:
        raise UsageError(f"sample: expected at least 2 rows of each dataset, or 0 for all, got {size}")


def check_windows(min_rows: int, when_small: str, when_partial: str) -> None:
    """Raise UsageError for settings of windows that mean nothing."""
    check_whole(min_rows=min_rows)
    if min_rows < 0:
        raise UsageError(f"min_rows: expected 0 or more, got {min_rows}")
    for name, value, allowed in (
        ("when_small", when_small, (SKIP, REFUSE)),
        ("when_partial", when_partial, (COMPARE, SKIP, REFUSE)),
    ):
        if value not in allowed:
            raise UsageError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
