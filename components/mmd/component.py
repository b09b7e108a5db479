"""KFP declarations of the test and report steps."""

# KFP takes a named tuple that is written in place.
# pyright: reportInvalidTypeForm=false

from typing import NamedTuple

from kfp import dsl

from driftline.components.artifacts import (
    DriftResult,
    KernelPlan,
    Outcome,
    PooledSample,
    ProjectedSample,
    Projection,
    Witness,
)
from driftline.components.declaration import component


@component(image="kernels")
def mmd_test(
    kernel_plan: dsl.Input[KernelPlan],
    outcome: dsl.Output[Outcome],
    witness: dsl.Output[Witness],
    combination: str = "studentised",
    level: float = 0.05,
):
    """Add up the kernel tasks' sums, once all have ended, and decide whether the two samples differ.

    Args:
        kernel_plan: What every kernel task knew, and where their sums lie.
        combination: How the kernels of a search are combined.
        level: Accepted rate of false alarms, in (0, 1).
        outcome: Statistic, p-value, permutation distribution and the rows that moved most, as JSON.
        witness: Every row's witness, a NumPy array.
    """
    from driftline.components.mmd import step

    step.test(
        plan=kernel_plan.path, combination=combination, level=level, out=outcome.path, witness_out=witness.path
    )  # fmt: skip


@component(image="kernels")
def report(
    pooled_sample: dsl.Input[PooledSample],
    projection: dsl.Input[Projection],
    projected_sample: dsl.Input[ProjectedSample],
    kernel_plan: dsl.Input[KernelPlan],
    outcome: dsl.Input[Outcome],
    witness: dsl.Input[Witness],
    result: dsl.Output[DriftResult],
    html: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    text_column: str = "text",
    history: str = "",
) -> NamedTuple(
    "Verdict",
    [("drift", bool), ("p_value", float), ("mmd2", float), ("threshold", float), ("report_uri", str), ("status", str)],
):
    """Write the drift result, its report and its record in the history, and return the verdict.

    Args:
        pooled_sample: Which rows of which datasets were compared.
        projection: The fitted projection.
        projected_sample: Where the projected vectors lie; emptied at the end.
        kernel_plan: What every kernel task knew.
        outcome: What the test decided.
        witness: How much each text looks like the reference, or like the current window.
        text_column: Carried column of the datasets that holds the texts to show.
        history: Folder of the history dataset; empty for the folder history below the run's.
        result: The drift result, as JSON.
        html: The report, one self-contained page.
        metrics: The result's numbers.

    Returns:
        drift: Whether the window no longer looks like the reference.
        p_value: The test's p-value; 1 for a run that was skipped.
        mmd2: Unbiased estimate of MMD².
        threshold: The statistic above which the test rejects.
        report_uri: Where the report is.
        status: compared, or skipped where there was nothing to compare.
    """
    from driftline.components.mmd import step

    reported = step.report(
        sample=pooled_sample.path, projection=projection.path, projected=projected_sample.path,
        plan=kernel_plan.path, outcome=outcome.path, witness=witness.path, text_column=text_column, history=history,
        result_out=result.path, report_out=html.path,
    )  # fmt: skip
    for name, value in reported.metrics.items():
        metrics.log_metric(name, value)
    return reported.verdict
