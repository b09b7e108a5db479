"""What a drift run found, as plain frozen values: written as JSON, read by the report, the history and the alerts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from driftline.components.sampling.identity import SampleIdentity

FORMAT = "driftline.drift-result"
VERSION = 2


@dataclass(frozen=True, slots=True)
class StepTiming:
    """What was run and how long it took: wall-clock seconds, summed over the step's tasks."""

    name: str
    tasks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MovedText:
    """A text, and how much more it looks like the reference (> 0) or like the current window (< 0).

    Attributes:
        id: the text's id in its dataset.
        sample: ``"reference"`` or ``"current"``, where the text stands.
        witness: mean kernel value with the reference minus that with the current sample, itself left out.
        text: the text, or None where the dataset carries no text column.
    """

    id: str
    sample: str
    witness: float
    text: str | None


@dataclass(frozen=True, slots=True)
class KernelFinding:
    """What one kernel saw.

    Attributes:
        name: name of its family, for example ``"rbf"``.
        gamma: its inverse squared length scale.
        weight: how much it counts among the kernels; they sum to 1.
        mmd2: unbiased estimate of MMD² under it.
        p_value: its own, not corrected for there being several.
        share: its part of the evidence; the kernels' sum to 1.
    """

    name: str
    gamma: float
    weight: float
    mmd2: float
    p_value: float
    share: float


@dataclass(frozen=True, slots=True)
class DriftResult:
    """The outcome of one drift run.

    Attributes:
        created: when the run began, ISO 8601 in UTC.
        drift: whether the test rejects at ``level``: ``p_value <= level``.
        method: how MMD² was estimated and judged: ``"exact"``, ``"cross"`` or ``"features"``.
        method_reason: who chose the method, and what it trades.
        combination: how several kernels' statistics were combined into one; empty for one kernel.
        statistic: the test's statistic: for one kernel unbiased MMD² (Gretton et al. 2012, Lemma 6), float64, which can
            be below 0; else the combination's value; of ``"cross"`` the studentised one.
        p_value: (1 + #{permuted ≥ observed}) / (permutations + 1); never 0.
        threshold: the statistic above which the test rejects at ``level``.
        level: accepted rate of false alarms, in (0, 1).
        permutations: number of random relabellings, B; 0 for ``"cross"``, which needs none.
        seed: seed of sampling and relabelling.
        kernels: what each kernel saw.
        leading: place of the kernel with the largest share, under which the next four and the moved texts are.
        mmd2: unbiased estimate of MMD².
        mmd2_interval: its confidence interval at 95%, or None where a sample has fewer than four rows.
        discrimination: how often the witness tells a text of the current window from one of the reference: 0.5 when
            they are alike, 1 at most.
        approximation: bound, at 99%, of the error in ``mmd2`` that ``"features"`` made; 0 for other methods.
        reference: the sample X.
        current: the sample Y.
        components: dimensions kept by the projection; 0 where the vectors were compared whole.
        explained_variance_ratio: share of the pooled variance along each kept dimension, descending.
        moved: texts with the lowest and the highest witness values, ascending by witness.
        steps: what was run, in order.
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
    leading: int
    mmd2: float
    mmd2_interval: tuple[float, float] | None
    discrimination: float
    approximation: float
    reference: SampleIdentity
    current: SampleIdentity
    components: int
    explained_variance_ratio: tuple[float, ...]
    moved: tuple[MovedText, ...]
    steps: tuple[StepTiming, ...]

    @property
    def kernel(self) -> KernelFinding:
        """The leading kernel."""
        return self.kernels[self.leading]

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
        values = {f.name: record[f.name] for f in dataclasses.fields(cls)}
        values["reference"] = SampleIdentity(**values["reference"])
        values["current"] = SampleIdentity(**values["current"])
        values["explained_variance_ratio"] = tuple(values["explained_variance_ratio"])
        values["kernels"] = tuple(KernelFinding(**kernel) for kernel in values["kernels"])
        interval = values["mmd2_interval"]
        values["mmd2_interval"] = None if interval is None else (float(interval[0]), float(interval[1]))
        values["moved"] = tuple(MovedText(**moved) for moved in values["moved"])
        values["steps"] = tuple(StepTiming(**step) for step in values["steps"])
        return cls(**values)
