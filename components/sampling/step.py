"""The first step of a drift run: its settings are checked, its windows become datasets, and its rows are chosen."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from driftline.components.drift_settings import COMPARE, IN_PIPELINES, DriftSettings
from driftline.components.errors import DataError, UsageError
from driftline.components.events import check_notify_url
from driftline.components.sampling.identity import Run
from driftline.components.sampling.pooled import pair
from driftline.components.settings import REFUSE, SKIP, in_pipelines
from driftline.components.steps import Skipped, logged_step
from driftline.components.storage.dataset.outputs import HISTORY, WORK, OutputPlace, check_writable, sweep_work
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.dataset.windows import (
    EmptyWindow,
    Window,
    missing_parts,
    open_window,
    parse_as_of,
    window_of,
)
from driftline.components.storage.objects.json_history import read_history
from driftline.components.storage.objects.location import is_gcs
from driftline.components.storage.objects.store import join
from driftline.components.storage.objects.values import write_value

_LEAST_ROWS: Final = 2  # a sample of one text has no spread
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
    *, reference: str, current: str, out: str, sample_out: str, notify_url: str = "", job: str = "", **settings: object
) -> None:
    """Check all settings of the run, open both windows, choose rows and write the pooled sample as JSON.

    Whatever can be refused before there is work to be done is refused here: settings that later steps use, columns,
    and folders that cannot be read or written. What earlier runs with this `out` left behind when they failed is
    removed, a week after they last wrote.

    Args:
        reference: the embeddings dataset that the stream used to look like, or a window.
        current: the embeddings dataset or window to compare with it.
        out: folder of the run, with or without placeholders.
        sample_out: path of the artifact to write.
        notify_url: URL that is notified of drift, to be checked; empty for none.
        job: the backend's name for the run.
        settings: of :class:`~driftline.components.drift_settings.DriftSettings`.

    Raises:
        UsageError: a setting is out of range.
        DataError: the two cannot be compared, or a window is to be refused.
        StorageError: something cannot be read or written.
    """
    with logged_step("sample", outputs=(sample_out,)) as clock:
        asked = DriftSettings.of(**settings)
        check_notify_url(notify_url)
        for name, place in (("reference", reference), ("current", current), ("output_folder", out)):
            if not place.strip():
                raise UsageError(f"{name}: expected a folder, local or gs://, got nothing")
        now = datetime.now(UTC)
        with in_pipelines(IN_PIPELINES):
            moment = parse_as_of(asked.window_as_of, now)
            this = _named_run(out, asked, moment, now, job)
        check_writable(join(this.base, WORK, this.id))
        clock.log("progress", run=this.id, job=this.job, as_of=this.as_of, out=this.folder)
        windows = window_of(reference, moment), window_of(current, moment)
        swept = sweep_work(this.base, this.id, now)
        if swept:
            clock.log("progress", swept=list(swept))
        sides = _opened("reference", windows[0]), _opened("current", windows[1])
        for side in sides:
            clock.log("progress", side=side.name, asked=side.window.asked, window=side.window.uri, rows=side.rows,
                      missing=list(side.missing))  # fmt: skip
        judged = [_judged(side, asked) for side in sides]
        for why, outcome in judged:
            if outcome == REFUSE:
                raise DataError(why)
        for why, outcome in judged:
            if outcome == SKIP:
                raise Skipped(why, _fields(this, sides))
            if why:
                clock.log("progress", partial=why)
        read_history(this.history)  # one that cannot be read would stop the last step
        if not is_gcs(this.history):  # a bucket of records may well be one that nothing is removed from
            check_writable(this.history)
        datasets = [side.dataset for side in sides if side.dataset is not None]
        sample = pair(this, asked, datasets[0], datasets[1])
        known = [
            dataclasses.replace(identity, asked=side.window.asked, missing=side.missing)
            for identity, side in zip((sample.reference, sample.current), sides, strict=True)
        ]
        write_value(
            sample_out, dataclasses.replace(sample, reference=known[0], current=known[1], seconds=clock.seconds)
        )


def _named_run(out: str, asked: DriftSettings, moment: datetime, now: datetime, job: str) -> Run:
    """Name a run, and the folders that it will write to."""
    place = OutputPlace.of(out)
    return Run(
        id=uuid.uuid4().hex,
        job=job,
        created=now.isoformat(timespec="seconds"),
        as_of=moment.isoformat(timespec="seconds"),
        base=place.base,
        folder=place.folder(moment, job),
        history=join(asked.output_history or join(place.base, HISTORY)),
    )


def _opened(name: str, window: Window) -> _Side:
    try:
        dataset = open_window(window)
    except EmptyWindow:
        return _Side(name, window, None, window.expected)
    return _Side(name, window, dataset, missing_parts(window, dataset))


def _judged(side: _Side, asked: DriftSettings) -> tuple[str, str]:
    """Return a remark on a side, or nothing, and the outcome for the run: compare, skip or refuse."""
    what = f"{side.name} {side.window.uri}"
    if side.dataset is None:
        return f"{what}: the window is empty", asked.window_when_small
    least = max(asked.window_min_rows, _LEAST_ROWS)
    # A dataset that is no window never becomes larger by waiting: too few rows in it are an error, which `pair` raises.
    if side.rows < (least if side.window.ranged else asked.window_min_rows):
        return f"{what}: {side.rows} rows, of the {least} that a comparison is to have", asked.window_when_small
    if side.missing:
        named = ", ".join(side.missing[:_NAMED]) + (", …" if len(side.missing) > _NAMED else "")
        missing = f"{len(side.missing)} of {len(side.window.expected)} parts are missing: {named}"
        return f"{what}: {missing}", asked.window_when_partial
    return "", COMPARE


def _fields(this: Run, sides: tuple[_Side, _Side]) -> Mapping[str, object]:
    """Return the fields that the last step reports of a skipped run."""
    sides_found = {
        side.name: {
            "uri": side.window.uri,
            "asked": side.window.asked,
            "rows": side.rows,
            "missing": list(side.missing),
        }
        for side in sides
    }
    return {"run": dataclasses.asdict(this), **sides_found}
