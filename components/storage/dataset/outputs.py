"""Where a run writes: a folder whose name may hold the run's day, hour and id; and what failed runs left there.

A schedule gives each of its runs the same `out`: `gs://lake/reports/{date}/{run}` is another folder for each of them.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from driftline.components.errors import StorageError, UsageError
from driftline.components.steps import LOGGER
from driftline.components.storage.dataset.partitions import folder_of
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import is_gcs, normalised

WORK: Final = "work"
"""Folder below a run's base for what its tasks hand to each other, in a folder named by the run's own id."""

HISTORY: Final = "history"
"""Folder below a run's base for the records of all runs, unless they are given another."""

WORK_KEPT: Final = timedelta(days=7)
"""Age of the newest file from which on a run's work is left over: longer than the longest step can take with its
retries (four attempts of a day each, and the pauses between them), and time for a person to look at a failed run."""

PLACEHOLDERS: Final = ("date", "hour", "run")

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_LEFT_BY_BACKEND: Final = re.compile(r"\[\[.*?\]\]|\{\{.*?\}\}")
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_RUN: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_ALLOWED: Final = "{date}, {hour} and {run} are filled in; no other braces may be in it"


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """Where the runs of a schedule write.

    Attributes:
        out: As it was given, with its placeholders.
        base: The folder before the first component that holds a placeholder, which all of the runs share; `out` itself
            where there is none.
    """

    out: str
    base: str

    @classmethod
    def of(cls, out: str) -> OutputPlace:
        """Read an output folder.

        Args:
            out: A folder whose components may hold `{date}`, `{hour}` and `{run}`.

        Raises:
            UsageError: It holds other braces, or is no place to write to.
        """
        left = _LEFT_BY_BACKEND.search(out)
        if left is not None:
            raise UsageError(
                f"out {out!r}: {left[0]} is a placeholder that the backend has not filled in; write {{date}}, {{hour}} "
                "or {run}, which the run fills in itself"
            )
        unknown = next((name for name in _PLACEHOLDER.findall(out) if name not in PLACEHOLDERS), None)
        if unknown is not None:
            raise UsageError(f"out {out!r}: {{{unknown}}} is no placeholder; {_ALLOWED}")
        if re.search(r"[{}]", _PLACEHOLDER.sub("", out)):
            raise UsageError(f"out {out!r}: a brace stands alone; {_ALLOWED}")
        store.join(out)  # refuses what is no place; a bucket's name holds no braces
        components = normalised(out).split("/")
        first = next((number for number, component in enumerate(components) if "{" in component), None)
        return cls(out, out if first is None else folder_of(components[:first], out))

    def folder(self, as_of: datetime, job: str) -> str:
        """Return one run's folder.

        Args:
            as_of: The moment that the run is made for; with a time zone.
            job: The id of the run, for `{run}`.

        Raises:
            UsageError: `{run}` is asked for, and the id is empty or cannot be part of a path.
        """
        names = set(_PLACEHOLDER.findall(self.out))
        if not names:
            return self.out
        if "run" in names and _JOB.fullmatch(job) is None:
            raise UsageError(
                f"out {self.out!r}: {{run}} is filled in with the run's id, which is {job!r}; expected 1 to 128 "
                "letters, digits, '.', '_' or '-', the first a letter or digit: give such an id, or write {date} or "
                "{hour} alone"
            )
        moment = as_of.astimezone(UTC)
        values = {"date": moment.date().isoformat(), "hour": f"{moment.hour:02d}", "run": job}
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.out)


def history_folder(out: str, history: str) -> str:
    """Return the folder of the history: as it was given, or `history` below the base of `out`.

    Raises:
        UsageError: As for `OutputPlace.of`.
    """
    return history or store.join(OutputPlace.of(out).base, HISTORY)


def sweep_work(base: str, own: str, now: datetime) -> tuple[str, ...]:
    """Remove the work of runs that ended without doing so: folders below `base`/work untouched for `WORK_KEPT`.

    Folders that are not named like a run stay, and so does what cannot be looked at or removed: the log says so. Any
    number of runs may sweep at once.

    Args:
        base: The folder that the runs share, `OutputPlace.base`.
        own: The id of the run that sweeps; its folder stays.
        now: The time to reckon from; with a time zone.

    Returns:
        The folders that were removed.
    """
    removed: list[str] = []
    work = store.join(base, WORK)
    try:
        runs = [name for name in store.list_folders(work) if name != own and _RUN.fullmatch(name)]
    except StorageError as error:
        _warn(work, error)
        return ()
    for run in runs:
        folder = store.join(work, run)
        try:
            written = store.last_written(folder)
            if written is not None and now - written > WORK_KEPT:
                store.remove_tree(folder)
                removed.append(folder)
        except StorageError as error:
            _warn(folder, error)
    return tuple(removed)


def _warn(place: str, error: StorageError) -> None:
    LOGGER.warning(
        "%s: what earlier runs may have left there was not removed (%s); remove it by hand, or let this run do so",
        place,
        error,
    )


_PROBE: Final = "writable"


def check_writable(folder: str) -> None:
    """Write an empty file into a folder, and remove it again, with the folders that were made for it.

    Args:
        folder: Where a run will write; it need not be there yet.

    Raises:
        StorageError: Nothing can be written there.
    """
    place = normalised(folder)
    made = [] if is_gcs(place) else [each for each in (Path(place), *Path(place).parents) if not _is_there(each)]
    probe = store.join(place, _PROBE)
    try:
        store.write_bytes(probe, b"")
        store.remove(probe)
    finally:
        for each in made:  # the deepest first
            with suppress(OSError):  # never made, or another run works in it by now
                each.rmdir()


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where a folder above may not be looked into
