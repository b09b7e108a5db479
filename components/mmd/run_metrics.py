"""The figures of a run that Kubeflow's UI shows in a run's metrics, and where runs are compared.

The UI sorts them by name, capitals first, and shows ten. The store that keeps them rounds numbers to six decimals, so
that a small MMD² or p-value would become 0: those are texts.
"""

from __future__ import annotations

import math

from driftline.components.mmd.outcome import Outcome
from driftline.components.mmd.report.formats import between, number
from driftline.components.mmd.report.verdict import p_text
from driftline.components.mmd.result import SKIPPED, in_words
from driftline.components.sampling.pooled import PooledSample


def run_metrics(outcome: Outcome, pooled: PooledSample) -> dict[str, float | str]:
    """Return a run's figures: the verdict in words, the size of the change, the p-value and the rows.

    The estimate of MMD² is shown within its interval: MMD² is never below 0, though its unbiased estimate may be.
    """
    mmd2 = number(outcome.mmd2)
    if outcome.interval is not None:
        low, high = outcome.interval.low, outcome.interval.high
        mmd2 = f"{number(min(max(outcome.mmd2, low), high))} (95%: {between((low, high))})"
    metrics: dict[str, float | str] = {
        "Verdict": in_words(outcome.rejected),
        "mmd2": mmd2,
        "p_value": p_text(outcome),
        "rows_current": float(pooled.rows - pooled.n),
        "rows_reference": float(pooled.n),
    }
    if math.isfinite(outcome.auc):
        metrics["auc"] = outcome.auc
    return metrics


def skipped_run_metrics() -> dict[str, float | str]:
    """Return the figures of a run that had not enough to compare."""
    return {"Verdict": SKIPPED}
