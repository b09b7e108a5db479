"""The result of a drift run as plain frozen values: written as JSON, read by the report, the history and the alerts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from driftline.components.sampling.identity import SampleIdentity

FORMAT = "driftline.drift-result"
VERSION = 3
COMPARED = "compared"
SKIPPED = "skipped"
"""Status of a run: whether both windows held enough to compare."""
DRIFT_FOUND = "drift found"
NO_DRIFT_FOUND = "no drift found"
"""Verdicts of a run that compared its windows."""


def in_words(drift: bool) -> str:
    """Return the verdict of a run that compared its windows."""
    return DRIFT_FOUND if drift else NO_DRIFT_FOUND


@dataclass(frozen=True, slots=True)
class StepTiming:
    """One step of the run: its tasks, and their wall-clock seconds, summed."""

    name: str
    tasks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MovedText:
    """A text with its witness: above 0 it looks more like the reference, below 0 more like the current window.

    Attributes:
        id: the text's id in its dataset.
        sample: ``"reference"`` or ``"current"``, the sample that holds the text.
        witness: mean kernel value with the reference minus that with the current sample, itself left out.
        text: the text, or None where the dataset does not carry the column, or the row has none.
    """

    id: str
    sample: str
    witness: float
    text: str | None


@dataclass(frozen=True, slots=True)
class KernelFinding:
    """One kernel's own result within a test.

    Attributes:
        name: name of its family, for example ``"rbf"``.
        gamma: its inverse squared length scale.
        weight: its weight among the kernels; they sum to 1.
        mmd2: unbiased estimate of MMD² under it.
        p_value: its own, not corrected for the number of kernels.
        share: its part of the evidence; the kernels' sum to 1.
    """

    name: str
    gamma: float
    weight: float
    mmd2: float
    p_value: float
    share: float


@dataclass(frozen=True, slots=True)
class FoundWindow:
    """A window of a run that was skipped.

    Attributes:
        uri: the window.
        asked: the user's words, from which `uri` was resolved.
        rows: texts found there.
        missing: its days or hours that have no dataset.
    """

    uri: str
    asked: str
    rows: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SkippedResult:
    """The result of a drift run that had not enough to compare, and so has no verdict.

    Attributes:
        reason: why it was skipped.
        reference: the window of the reference.
        current: the current window.
        created, run, job, as_of, report_uri: as of :class:`DriftResult`.
        status: ``"skipped"``.
    """

    created: str
    reason: str
    reference: FoundWindow
    current: FoundWindow
    run: str
    job: str
    as_of: str
    report_uri: str
    status: str = SKIPPED

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values, headed by the format's name and version."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        values = {f.name: record[f.name] for f in dataclasses.fields(cls)}
        for side in ("reference", "current"):
            values[side] = FoundWindow(**_with_tuple(values[side]))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class DriftResult:
    """The outcome of one drift run.

    Attributes:
        created: when the run began, ISO 8601 in UTC.
        drift: whether the test rejects at ``level``: ``p_value <= level``.
        method: how MMD² was estimated and judged: ``"exact"``, ``"cross"`` or ``"features"``.
        method_reason: who chose the method, and its costs and gains.
        combination: how several kernels' statistics were combined into one; empty for one kernel.
        statistic: the test's statistic: for one kernel unbiased MMD² (Gretton et al. 2012, Lemma 6), float64, which can
            be below 0; else the combination's value; of ``"cross"`` the studentised one.
        p_value: (1 + #{permuted ≥ observed}) / (permutations + 1); never 0.
        threshold: the statistic above which the test rejects at ``level``.
        level: accepted rate of false alarms, in (0, 1).
        permutations: number of random permutations, B; 0 for ``"cross"``, which needs none.
        seed: seed of sampling and of the permutations.
        kernels: each kernel's own result.
        leading_kernel: index of the kernel with the largest share; the next four values and the moved texts are of this
            kernel.
        mmd2: unbiased estimate of MMD².
        mmd2_interval: its confidence interval at 95%, or None where a sample has fewer than four rows.
        auc: area under the witness's ROC curve: the probability that a random text of the reference has a higher
            witness than a random text of the current window; 0.5 when they are alike, 1 at most.
        feature_error_bound: bound, at 99%, of the error of ``mmd2`` under ``"features"``; 0 for other methods.
        reference: the sample X.
        current: the sample Y.
        components: dimensions kept by the projection; 0 where the vectors were compared whole.
        explained_variance_ratio: share of the pooled variance along each kept dimension, descending.
        moved: texts with the lowest and the highest witness values, ascending by witness.
        steps: what was run, in order.
        run: the run's own name.
        job: the backend's name for the run.
        as_of: the moment that windows are relative to, ISO 8601 in UTC.
        report_uri: where the report is.
        status: ``"compared"``.
        text_column: the column whose texts are shown; empty where there is none.
        carried: names of the columns that either dataset carries.
    """

    created: str
    drift: bool
    method: str
    method_reason: str
    combination: str
    statistic: float
    p_value: float
    threshold: float
    level: float
    permutations: int
    seed: int
    kernels: tuple[KernelFinding, ...]
    leading_kernel: int
    mmd2: float
    mmd2_interval: tuple[float, float] | None
    auc: float
    feature_error_bound: float
    reference: SampleIdentity
    current: SampleIdentity
    components: int
    explained_variance_ratio: tuple[float, ...]
    moved: tuple[MovedText, ...]
    steps: tuple[StepTiming, ...]
    run: str = ""
    job: str = ""
    as_of: str = ""
    report_uri: str = ""
    status: str = COMPARED
    text_column: str = ""
    carried: tuple[str, ...] = ()

    @property
    def kernel(self) -> KernelFinding:
        """The leading kernel."""
        return self.kernels[self.leading_kernel]

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return in_words(self.drift)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values, headed by the format's name and version."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote. Raises ValueError for another format or version."""
        if record.get("format") != FORMAT or record.get("version") != VERSION:
            raise ValueError(
                f"expected a {FORMAT} of version {VERSION}, got {record.get('format')!r} "
                f"of version {record.get('version')!r}"
            )
        values = {f.name: record[f.name] for f in dataclasses.fields(cls) if f.name in record}
        for side in ("reference", "current"):
            values[side] = SampleIdentity(**_with_tuple(values[side]))
        values["explained_variance_ratio"] = tuple(values["explained_variance_ratio"])
        values["carried"] = tuple(values.get("carried", ()))
        values["kernels"] = tuple(KernelFinding(**kernel) for kernel in values["kernels"])
        interval = values["mmd2_interval"]
        values["mmd2_interval"] = None if interval is None else (float(interval[0]), float(interval[1]))
        values["moved"] = tuple(MovedText(**moved) for moved in values["moved"])
        values["steps"] = tuple(StepTiming(**step) for step in values["steps"])
        return cls(**values)


def _with_tuple(side: Mapping[str, Any]) -> dict[str, Any]:
    """Return a side's fields as read from JSON, which knows no tuples; those of before there were windows lack one."""
    return {**side, "missing": tuple(side.get("missing", ()))}
