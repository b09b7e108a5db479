"""The drift pipeline: reference and current embeddings → sample → PCA → kernel tasks → MMD test → report → notify."""

# KFP fills a component's outputs in: they are not in its types. A pipeline's named tuple holds what tasks will put out.
# pyright: reportCallIssue=false

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from driftline.components import artifacts
from driftline.components.kernel import component as kernels
from driftline.components.mmd import component as mmd
from driftline.components.notification import component as notification
from driftline.components.projection import component as projection
from driftline.components.sampling import component as sampling
from driftline.pipelines.profile import LOCAL, Profile

NAME = "driftline-drift"
DESCRIPTION = (
    "Tells whether a window of texts still looks like the reference, by a two-sample test (MMD) of their embeddings. "
    "Where it does not, the last node, `drift found`, is green and not grey; `MMD test` has the verdict, "
    "`drift_report` the page to read. An empty box is the default; the Command of `Choose rows` explains every "
    "parameter in full."
)


class Verdict(NamedTuple):
    """What a drift run comes to, for a gate or a message behind it."""

    drift: bool
    p_value: float
    mmd2: float
    threshold: float
    verdict: str
    report_uri: str


class Compared(NamedTuple):
    """What all kernel tasks have summed, and where."""

    kernel_plan: artifacts.KernelPlan


def _comparison(profile: Profile) -> Callable[..., Any]:
    """Return the part between the rows and the test, a pipeline of its own, so that the whole fits a screen."""

    @dsl.pipeline(name="compare", description="Project both samples, and sum the kernel matrices in tasks.")
    def compare(pooled_sample: dsl.Input[artifacts.PooledSample], job: str) -> Compared:
        """Project both samples, and sum the kernel matrices in tasks.

        Args:
            pooled_sample: Which rows of which datasets are compared, and how.
            job: The backend's name for the run. KFP's local runner forgets the artifacts of a pipeline within a
                pipeline that is handed no parameter.

        Returns:
            kernel_plan: What the tasks knew, and where their sums lie.
        """
        fitted = profile.place(projection.fit(pooled_sample=pooled_sample))
        fitted.set_display_name("Fit PCA")
        projected = projection.project(pooled_sample=pooled_sample, pca_projection=fitted.outputs["pca_projection"])
        profile.place(projected).set_display_name("Project")
        planned = profile.place(kernels.plan(projected_sample=projected.outputs["projected_sample"]))
        planned.set_display_name("Plan kernels")
        plan = planned.outputs["kernel_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=profile.parallelism) as share:
            profile.place(kernels.kernel_sums(share=share, kernel_plan=plan)).set_display_name("Kernel sums")
        return Compared(kernel_plan=plan)

    return compare


def drift_pipeline(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile.

    On this machine it ends with the report: KFP's local runner knows no conditions on what a task puts out.
    """
    comparison = _comparison(profile)

    @dsl.pipeline(name=NAME, description=DESCRIPTION)
    def drift(
        reference: str,
        current: str,
        output_folder: str,
        output_history: str = "",
        window_as_of: str = "",
        window_max_rows: int = 0,
        window_min_rows: int = 0,
        window_when_small: str = "skip",
        window_when_partial: str = "compare",
        pca_components: int = 32,
        kernel: str = "search",
        kernel_gamma: str = "median",
        kernel_combination: str = "studentised",
        kernel_tasks: int = 4,
        test_method: str = "auto",
        test_permutations: int = 500,
        test_level: float = 0.05,
        seed: int = 0,
        text_column: str = "",
        notify_url: str = "",
        fail_on_drift: bool = False,
    ) -> Verdict:
        """Compare two embeddings datasets by Maximum Mean Discrepancy.

        A setting that is empty, or 0 where 0 means nothing, is the default.

        Args:
            reference: Embeddings dataset that the stream used to look like, a gs:// or local folder; or a window of a
                folder by date, such as gs://lake/reviews/date=-8d..-2d, in UTC and relative to window_as_of.
            current: Embeddings dataset or window to compare with it, such as gs://lake/reviews/date=yesterday or
                gs://lake/reviews/hour=-24h..-1h.
            output_folder: Folder for report.html, result.json, witness.parquet and, while it runs, working files.
                {date}, {hour} and {run} in it are those of window_as_of and of the run. A folder that holds a report
                already gets the next one in a folder of its own.
            output_history: Folder of past results for the trend; empty for the folder history below the output folder,
                before any placeholder.
            window_as_of: The moment that windows are relative to, an ISO 8601 date or time, in UTC; empty for now. Give
                it to a run that is late or repeated, and it compares what it should have.
            window_max_rows: At most this many rows of each window, chosen by the seed; 0 for all.
            window_min_rows: Rows that each window must have to be compared; 0 for the least that a test takes.
            window_when_small: What becomes of a run with an empty window or one of fewer rows, skip or refuse.
            window_when_partial: What becomes of a run with a window that lacks some of its days, compare, skip or
                refuse.
            pca_components: Principal components to compare; 0 for whole vectors.
            kernel: Name of a kernel (rbf, laplace-l2, laplace-l1, imq, rq, linear, polynomial), or search for kernels
                of several shapes and widths in one test.
            kernel_gamma: Inverse squared length scale of one kernel, a number above 0, or median.
            kernel_combination: How the kernels of a search are combined: studentised, fuse (MMD-FUSE) or agg (MMDAgg).
            kernel_tasks: Tasks to share the kernel matrix among, 200 at most; 0 for 4.
            test_method: exact, cross (half of the pairs, no permutations), features (time linear in the rows), or auto,
                by size.
            test_permutations: Random permutations behind the p-value; 0 for 500.
            test_level: Accepted rate of false alarms, between 0 and 1; 0 for 0.05.
            seed: Seed of sampling and permutations.
            text_column: Carried column that holds the texts to show in the report; empty for text, where it is carried.
            notify_url: URL that drift is told to, as a CloudEvent; empty for that of the variable DRIFTLINE_NOTIFY_URL,
                or for none. Whoever may see the run may see it.
            fail_on_drift: Whether drift makes the run fail, so that it stands out in the list of runs.

        Returns:
            drift: Whether the window no longer looks like the reference.
            p_value: The test's p-value; 1 for a run that was skipped.
            mmd2: Unbiased estimate of MMD²; 0 for a run that was skipped.
            threshold: The statistic above which the test rejects.
            verdict: drift found, no drift found, or skipped where there was nothing to compare.
            report_uri: Where the report is.
        """
        sampled = profile.place(
            sampling.sample(
                reference=reference, current=current, output_folder=output_folder, output_history=output_history,
                window_as_of=window_as_of, window_max_rows=window_max_rows, window_min_rows=window_min_rows,
                window_when_small=window_when_small, window_when_partial=window_when_partial,
                pca_components=pca_components, kernel=kernel, kernel_gamma=kernel_gamma,
                kernel_combination=kernel_combination, kernel_tasks=kernel_tasks, test_method=test_method,
                test_permutations=test_permutations, test_level=test_level, seed=seed, text_column=text_column,
                notify_url=notify_url, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            )
        ).set_display_name("Choose rows")  # fmt: skip
        pooled = sampled.outputs["pooled_sample"]
        compared = comparison(pooled_sample=pooled, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        compared.set_display_name("Compare")
        tested = profile.place(mmd.mmd_test(kernel_plan=compared.outputs["kernel_plan"])).set_display_name("MMD test")
        told = profile.place(
            mmd.report(test_outcome=tested.outputs["test_outcome"], test_witness=tested.outputs["test_witness"])
        ).set_display_name("Report")
        report_uri = told.outputs["report_uri"]
        if profile is not LOCAL:
            with dsl.If(told.outputs["drift"] == True, name="drift found"):  # noqa: E712 - KFP compiles it
                noticed = profile.place(notification.notify(report_uri=report_uri, notify_url=notify_url))
                noticed.set_display_name("Notify")
                # A task in any case: a condition whose last part is a condition, not met, shows as running for ever.
                failed = notification.fail_on_drift(report_uri=report_uri, asked_for=fail_on_drift).after(noticed)
                profile.place(failed).set_display_name("Fail if asked")
        outputs = {name: tested.outputs[name] for name in Verdict._fields[:-1]}
        return Verdict(**outputs, report_uri=report_uri)

    return drift
