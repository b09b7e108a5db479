"""The figures of a run that Kubeflow's UI shows beside each other: in a run's metrics, and where runs are compared.

The UI sorts them by name, capitals first, and shows ten. The store that keeps them rounds numbers to six decimals,
which would make nothing of a small MMD² or p-value: those are texts.
"""

from __future__ import annotations

import math

from driftline.components.mmd.outcome import Outcome
from driftline.components.mmd.report.formats import between, number
from driftline.components.mmd.report.verdict import p_text
from driftline.components.mmd.result import SKIPPED, in_words
from driftline.components.sampling.pooled import PooledSample


def figures(outcome: Outcome, pooled: PooledSample) -> dict[str, float | str]:
    """Return what a run found: the verdict in words, how large the change is, and of how many rows.

    The estimate of MMD² is shown within its interval: MMD² is never below 0, though its unbiased estimate may be.
    """
    mmd2 = number(outcome.mmd2)
    if outcome.interval is not None:
        low, high = outcome.interval.low, outcome.interval.high
        mmd2 = f"{number(min(max(outcome.mmd2, low), high))} (95%: {between((low, high))})"
    found: dict[str, float | str] = {
        "Verdict": in_words(outcome.rejected),
        "mmd2": mmd2,
        "p_value": p_text(outcome),
        "rows_current": float(pooled.rows - pooled.n),
        "rows_reference": float(pooled.n),
    }
    if math.isfinite(outcome.discrimination):
        found["auc"] = outcome.discrimination
    return found


def figures_of_skipped() -> dict[str, float | str]:
    """Return what there is to show of a run that had not enough to compare."""
    return {"Verdict": SKIPPED}
