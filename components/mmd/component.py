"""KFP declarations of the test and report steps."""

# KFP takes a named tuple that is written in place.
# pyright: reportInvalidTypeForm=false

from typing import NamedTuple

from kfp import dsl

from driftline.components.artifacts import DriftResult, KernelPlan, Outcome, Witness
from driftline.components.declaration import component


@component(image="kernels")
def mmd_test(
    kernel_plan: dsl.Input[KernelPlan],
    test_outcome: dsl.Output[Outcome],
    test_witness: dsl.Output[Witness],
    drift_metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple(
    "Verdict",
    [("drift", bool), ("p_value", float), ("mmd2", float), ("threshold", float), ("verdict", str)],
):
    """Add up the kernel tasks' sums, once all have ended, and decide whether the two samples differ.

    Args:
        kernel_plan: What every kernel task knew, and where their sums lie.
        test_outcome: Statistic, p-value, permutation distribution and the rows that moved most, as JSON.
        test_witness: How much each row looks like the reference, or like the current window, a NumPy array.
        drift_metrics: The verdict in words, how large the change is, the p-value, and of how many rows.

    Returns:
        drift: Whether the window no longer looks like the reference.
        p_value: The test's p-value; 1 for a run that was skipped.
        mmd2: Unbiased estimate of MMD²; 0 for a run that was skipped.
        threshold: The statistic above which the test rejects.
        verdict: drift found, no drift found, or skipped where there was nothing to compare.
    """
    from driftline.components.mmd import step

    tested = step.test(plan=kernel_plan.path, out=test_outcome.path, witness_out=test_witness.path)
    drift_metrics.metadata.update(tested.metrics)
    return tested.verdict


@component(image="kernels")
def report(
    test_outcome: dsl.Input[Outcome],
    test_witness: dsl.Input[Witness],
    drift_result: dsl.Output[DriftResult],
    drift_report: dsl.Output[dsl.HTML],
) -> NamedTuple("Reported", [("drift", bool), ("report_uri", str)]):
    """Write the drift result, its report and its record in the history, and remove the run's working files.

    Args:
        test_outcome: What the test decided, and of what.
        test_witness: How much each text looks like the reference, or like the current window.
        drift_result: The drift result, as JSON.
        drift_report: The report, one self-contained page.

    Returns:
        drift: Whether the window no longer looks like the reference, for what is to come after the report.
        report_uri: Where the report is.
    """
    from driftline.components.mmd import step

    return step.report(
        outcome=test_outcome.path, witness=test_witness.path, result_out=drift_result.path, report_out=drift_report.path
    )
