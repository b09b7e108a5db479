"""Schedules in Kubeflow, made or replaced so that what is asked for holds, from wherever an earlier attempt stopped.

Kubeflow cannot change a recurring run, names are no keys, and the one text that it keeps is the description. So a
schedule's description holds a hash of all that was sent, by which an unchanged one is left alone, and the ids of those
that it replaces, by which what a killed attempt left behind is known. A replacement is

    create the new one, switched off -> switch the old one off -> switch the new one on -> delete the old one

so that there is a schedule that runs at all times but between the second request and the third, and never two. When one
of these fails, the old one is switched on again; when the process is killed, the next attempt takes up what it finds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from driftline.components.errors import DriftlineError, UsageError
from driftline.components.kubeflow.client import Kubeflow, RecurringRun
from driftline.components.kubeflow.refusals import KubeflowError

_MARK: Final = re.compile(r"\[driftline sha256=([0-9a-f]{64}) replaces=([\w,<>-]*)\]")
_REMEMBERED: Final = 8  # ids of earlier ones, by which `runs` finds what they started


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is to hold.

    Attributes:
        name: its name, unique in the experiment as far as we go.
        experiment: the experiment's id.
        version: the version to run, as runs name it.
        parameters: of each run.
        cron: when, as sent.
        max_concurrency: runs of it at once, 1 to 10.
        catchup: whether every slot that was missed is run, and not only the last.
        service_account: of the runs' pods; empty for the default.
        enabled: whether it is to start runs.
    """

    name: str
    experiment: str
    version: Mapping[str, str]
    parameters: Mapping[str, Any]
    cron: str
    max_concurrency: int = 1
    catchup: bool = False
    service_account: str = ""
    enabled: bool = True

    def content(self) -> dict[str, Any]:
        """Return what makes it this schedule and no other, as sent."""
        content: dict[str, Any] = {
            "display_name": self.name,
            "experiment_id": self.experiment,
            "pipeline_version_reference": dict(self.version),
            "runtime_config": {"parameters": dict(self.parameters)},
            "trigger": {"cron_schedule": {"cron": self.cron}},
            "max_concurrency": str(self.max_concurrency),
            "no_catchup": not self.catchup,
        }
        if self.service_account:
            content["service_account"] = self.service_account
        return content

    @property
    def hash(self) -> str:
        """SHA-256 of its content."""
        text = json.dumps(self.content(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def body(self, replaces: Sequence[str]) -> dict[str, Any]:
        """Return what is sent to make it: switched off, since another may be on."""
        words = "Kept by `driftline schedule`, which replaces it when its settings change; change them there."
        description = f"{words} [driftline sha256={self.hash} replaces={','.join(replaces)}]"
        return {**self.content(), "description": description, "mode": "DISABLE"}


def find_schedules(kubeflow: Kubeflow, name: str, experiment: str) -> list[RecurringRun]:
    """Return the schedule of a name, with what earlier attempts to replace it have left behind; the newest first.

    Raises:
        UsageError: there are several that have nothing to do with one another.
    """
    found = sorted(kubeflow.recurring_runs(name, experiment), key=lambda one: (one.created, one.id), reverse=True)
    if len(found) > 1:
        related = {found[0].id}
        for _ in found:
            related |= {
                one.id
                for one in found
                if any(one.id in related or _akin(one, two) for two in found if two.id in related)
            }
        if len(related) < len(found):
            ids = ", ".join(f"{one.id} ({'on' if one.enabled else 'off'}, made {one.created})" for one in found)
            raise UsageError(
                f"schedule {name!r}: expected one of that name in the experiment, found {len(found)}: {ids}; delete "
                "all but one, or choose another name"
            )
    return found


def remembered(schedule: RecurringRun) -> tuple[str, ...]:
    """Return the ids of those that a schedule has replaced, the latest first."""
    mark = _MARK.search(schedule.description)
    return () if mark is None else tuple(one for one in mark[2].split(",") if one)


def keep(kubeflow: Kubeflow, wanted: Schedule, *, spares_runs: bool, told: Callable[[str], None]) -> None:
    """Make what is wanted hold: exactly one schedule of that name, with that content, on or off.

    Args:
        kubeflow: where.
        wanted: what is to hold.
        spares_runs: whether the server deletes schedules without their runs.
        told: is given a line about each thing done.

    Raises:
        UsageError: several schedules of that name have nothing to do with one another, or the server refuses.
        DriftlineError: a request failed; monitoring is as it was, unless the message says otherwise.
    """
    found = find_schedules(kubeflow, wanted.name, wanted.experiment)
    same = [one for one in found if _hash(one) == wanted.hash]
    if same:
        # Of equal ones, which two attempts at once would leave, the one that is on.
        new = next((one for one in same if one.enabled), same[0])
        others = [one for one in found if one.id != new.id]
        if not others and new.enabled == wanted.enabled:
            told(f"schedule {wanted.name}: is as it should be, {new.id}")
            return
    else:
        others = found
        replaced = [one.id for one in found]
        replaced += [old for one in found for old in remembered(one) if old not in replaced]
        try:
            new = kubeflow.create_recurring_run(wanted.body(replaced[:_REMEMBERED]))
        except DriftlineError as error:
            if wanted.enabled and found and not any(one.enabled for one in found):
                raise _as(error, f"{error}; schedule {wanted.name}: none is on, as before") from error
            raise
        told(f"schedule {wanted.name}: made, {new.id}")
    _switch(kubeflow, new, [one for one in others if one.enabled], wanted)
    again = same and wanted.enabled and not new.enabled
    caught = "; the last slot that it missed while it was off, if any, is run now" if again else ""
    told(f"schedule {wanted.name}: {'on' if wanted.enabled else 'off'}{caught}")
    for one in others:
        _delete(kubeflow, one, spares_runs=spares_runs, told=told)


def remove(
    kubeflow: Kubeflow, name: str, experiment: str | None, *, spares_runs: bool, told: Callable[[str], None]
) -> None:
    """Delete the schedule of a name, and what replacements of it have left behind; none is well, too.

    Args:
        kubeflow: where.
        name: its name.
        experiment: the experiment's id; None where there is none of that name.
        spares_runs: whether the server deletes schedules without their runs.
        told: is given a line about each thing done.
    """
    found = [] if experiment is None else find_schedules(kubeflow, name, experiment)
    if not found:
        told(f"schedule {name}: there is none")
    for one in found:
        if one.enabled:
            kubeflow.disable(one.id)
    for one in found:
        _delete(kubeflow, one, spares_runs=spares_runs, told=told)


def _switch(kubeflow: Kubeflow, new: RecurringRun, old: Sequence[RecurringRun], wanted: Schedule) -> None:
    """Switch the old ones off and the new one on, or all off; after a failure, the old one on and the new one off."""
    try:
        for one in old:
            kubeflow.disable(one.id)
        if wanted.enabled and not new.enabled:
            kubeflow.enable(new.id)
        elif new.enabled and not wanted.enabled:
            kubeflow.disable(new.id)
    except DriftlineError as error:
        if not old:
            raise
        raise _restored(kubeflow, new, old[0], wanted.name, error) from error
    except (KeyboardInterrupt, SystemExit):
        if old:
            kubeflow.disable(new.id)
            kubeflow.enable(old[0].id)
        raise


def _restored(
    kubeflow: Kubeflow, new: RecurringRun, old: RecurringRun, name: str, error: DriftlineError
) -> DriftlineError:
    """Go back to the old schedule, and return the error with what has become of it.

    The request that failed may have been done all the same, its answer lost. So the new one is switched off first.
    """
    again = "run the command again"
    try:
        kubeflow.disable(new.id)
        kubeflow.enable(old.id)
    except DriftlineError as further:
        return KubeflowError(
            f"{error}; schedule {name}: whether {old.id} or {new.id} is on is not known, since going back failed too "
            f"({further}): {again}"
        )
    return _as(error, f"{error}; schedule {name}: {old.id} is on again, as before: {again}")


def _as(error: DriftlineError, message: str) -> DriftlineError:
    """Return an error of the same kind that says more."""
    return UsageError(message) if isinstance(error, UsageError) else KubeflowError(message)


def _delete(kubeflow: Kubeflow, one: RecurringRun, *, spares_runs: bool, told: Callable[[str], None]) -> None:
    """Delete a schedule that is off, unless that would end a run which it started."""
    if not spares_runs and any(not run.ended for run in kubeflow.runs(schedule=one.id)):
        told(f"schedule {one.id}: off, and kept while a run of it is under way; the next time it is deleted")
        return
    kubeflow.delete_recurring_run(one.id)
    told(f"schedule {one.id}: deleted; its runs stay")


def _akin(one: RecurringRun, two: RecurringRun) -> bool:
    """Say whether one replaces the other, both replace the same, or both are the same."""
    names, others = {one.id, *remembered(one)}, {two.id, *remembered(two)}
    return bool(names & others) or (_hash(one) is not None and _hash(one) == _hash(two))


def _hash(schedule: RecurringRun) -> str | None:
    mark = _MARK.search(schedule.description)
    return None if mark is None else mark[1]
