"""KFP declarations of the test and report steps."""

from kfp import dsl

from driftline.components.images import KERNELS


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def mmd_test(
    kernel_plan: dsl.Input[dsl.Artifact],
    partial_sums: dsl.Input[list[dsl.Artifact]],
    combination: str,
    level: float,
    outcome: dsl.Output[dsl.Artifact],
    witness: dsl.Output[dsl.Artifact],
):
    """Add up the kernel sums and decide whether the two samples differ.

    Args:
        kernel_plan: What every kernel task knew.
        partial_sums: What the kernel tasks' tiles add up to.
        combination: How the kernels of a search are combined.
        level: Accepted rate of false alarms, in (0, 1).
        outcome: Statistic, p-value, permutation distribution and the rows that moved most, as JSON.
        witness: Every row's witness, a NumPy array.
    """
    from driftline.components.mmd import step

    step.test(
        plan=kernel_plan.path, parts=[part.path for part in partial_sums], combination=combination, level=level,
        out=outcome.path, witness_out=witness.path,
    )  # fmt: skip


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def report(
    pooled_sample: dsl.Input[dsl.Artifact],
    projection: dsl.Input[dsl.Model],
    projected_sample: dsl.Input[dsl.Artifact],
    kernel_plan: dsl.Input[dsl.Artifact],
    outcome: dsl.Input[dsl.Artifact],
    witness: dsl.Input[dsl.Artifact],
    text_column: str,
    history: str,
    out: str,
    result: dsl.Output[dsl.Artifact],
    html: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Write the drift result, its report and its record in the history.

    Args:
        pooled_sample: Which rows of which datasets were compared.
        projection: The fitted projection.
        projected_sample: Where the projected vectors lie; emptied at the end.
        kernel_plan: What every kernel task knew.
        outcome: What the test decided.
        witness: How much each text looks like the reference, or like the current window.
        text_column: Carried column of the datasets that holds the texts to show.
        history: Folder of the history dataset; empty for the folder history below out.
        out: Folder for report.html, result.json and witness.parquet, gs:// or shared.
        result: The drift result, as JSON.
        html: The report, one self-contained page.
        metrics: The result's numbers.
    """
    from driftline.components.mmd import step

    numbers = step.report(
        sample=pooled_sample.path, projection=projection.path, projected=projected_sample.path,
        plan=kernel_plan.path, outcome=outcome.path, witness=witness.path,
        text_column=text_column, history=history, out=out,
        result_out=result.path, report_out=html.path,
    )  # fmt: skip
    for name, value in numbers.items():
        metrics.log_metric(name, value)
