"""Runs in Kubeflow: waited for, and what they found, read from the history that their `report` step writes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from driftline.components.errors import DriftlineError
from driftline.components.kubeflow.client import Kubeflow, Run
from driftline.components.kubeflow.refusals import KubeflowError
from driftline.components.mmd.result import SKIPPED, in_words

POLL_S: Final = 5.0  # seconds between two looks at a run that takes minutes at least
OUTAGE_S: Final = 600.0  # seconds without an answer after which waiting ends: an API server restarts in two minutes
SUCCEEDED: Final = "SUCCEEDED"
_COMPARES: Final = frozenset({"reference", "current", "output_history"})  # parameters of pipelines that test for drift


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a drift step of a run found.

    Attributes:
        drift: whether there is drift; None where the step had too little to compare.
        p_value: the test's; None where it was not made.
        report: where the report is.
        reason: why it was skipped; empty otherwise.
    """

    drift: bool | None
    p_value: float | None
    report: str
    reason: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Verdict:
        """Read a record of the history."""
        report = str(record.get("report_uri") or "")
        if record.get("status") == SKIPPED:
            return cls(None, None, report, str(record.get("reason") or "too little to compare"))
        p_value = record.get("p_value")
        return cls(bool(record.get("drift")), float(p_value) if isinstance(p_value, (int, float)) else None, report)

    @property
    def words(self) -> str:
        """The verdict without the report's place."""
        if self.drift is None:
            return f"{SKIPPED}: {self.reason}"
        chance = "" if self.p_value is None else f": p = {self.p_value:.4g}"
        return in_words(self.drift) + chance

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"drift": self.drift, "p_value": self.p_value, "report": self.report, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a run's verdict.

    Attributes:
        verdicts: one for each drift step that is done; none for other pipelines, or where none can be read.
        note: why none can be read; empty where all is well.
    """

    verdicts: tuple[Verdict, ...] = ()
    note: str = ""

    @property
    def drift(self) -> bool:
        """Whether any of them found drift."""
        return any(one.drift for one in self.verdicts)


class Histories:
    """Reads histories, each once, however many runs write to it."""

    def __init__(self) -> None:
        self._read: dict[str, list[dict[str, Any]] | str] = {}

    def of(self, run: Run) -> Found:
        """Return what a run has found, as far as it can be known from here."""
        out, history = (run.parameters.get(name) for name in ("output_folder", "output_history"))
        if not run.ended or not isinstance(out, str) or not out:
            return Found()  # nothing yet, or another's pipeline
        try:
            folder = _folder(out, history if isinstance(history, str) else "")
            if folder not in self._read:
                self._read[folder] = _records(folder)
            records = self._read[folder]
        except DriftlineError as error:
            records = f"the verdict is not known: its history cannot be read from here ({error})"
        found = () if isinstance(records, str) else [one for one in records if one.get("job") == run.id]
        if found or not _COMPARES & run.parameters.keys():
            return Found(tuple(Verdict.of(record) for record in found))
        if isinstance(records, str):
            return Found(note=records)
        return Found(note="no verdict: the history has no record of this run" if run.state == SUCCEEDED else "")


def lines(found: Found) -> Iterator[str]:
    """Yield what to say of a run that is over."""
    for verdict in found.verdicts:
        yield verdict.words
        if verdict.report:
            yield f"report: {verdict.report}"
    if found.note:
        yield found.note


def failure(run: Run) -> KubeflowError | None:
    """Return the error of a run that is over and did not succeed."""
    if run.state in (SUCCEEDED, "SKIPPED"):
        return None
    return KubeflowError(f"run {run.id}: {run.state}{f': {run.error}' if run.error else ''}; its tasks' logs say more")


def red_by_request(run: Run, found: Found) -> bool:
    """Say whether a run that found drift was asked to fail over it, which is a verdict and no failure."""
    return found.drift and run.parameters.get("fail_on_drift") is True


def wait(
    kubeflow: Kubeflow,
    identity: str,
    told: Callable[[str], None],
    *,
    timeout_s: float = 0.0,
    outage_s: float = OUTAGE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """Wait until a run is over. What the server does not answer meanwhile is asked again.

    Args:
        kubeflow: where.
        identity: the run's id.
        told: is given each state that it enters.
        timeout_s: at most so many seconds; 0 for as long as it takes.
        outage_s: seconds without an answer after which waiting ends.
        clock: seconds.
        sleep: passes them.

    Raises:
        KubeflowError: it is not over by then, or the server is silent for long. The run goes on.
    """
    began = answered = clock()
    state = ""
    while True:
        try:
            run = kubeflow.run(identity)
            answered = clock()
        except KubeflowError as error:
            if clock() - answered > outage_s:
                raise KubeflowError(f"{error}; the run may go on: {_later(identity)}") from error
        else:
            if run.state != state:
                state = run.state
                told(state or "created")
            if run.ended:
                return run
        if timeout_s and clock() - began >= timeout_s:
            raise KubeflowError(
                f"run {identity}: is {state or 'not begun'} after {timeout_s:g} s and goes on; {_later(identity)}"
            )
        sleep(POLL_S)


def _later(identity: str) -> str:
    return f"driftline runs {identity} --wait waits on"


def _folder(out: str, history: str) -> str:
    from driftline.components.storage.dataset.outputs import history_folder  # pyarrow and others: a second to import

    return history_folder(out, history)


def _records(folder: str) -> list[dict[str, Any]] | str:
    """Return a history's records, or why they cannot be had."""
    from driftline.components.storage.objects.json_history import read_history
    from driftline.components.storage.objects.location import is_gcs, normalised

    if not is_gcs(folder) and not Path(normalised(folder)).is_dir():
        return f"the verdict is not known: {folder} is not on this machine; it is in the run's own storage"
    return read_history(folder)
