"""The drift pipeline: reference and current embeddings → sample → PCA → kernel tasks → MMD test → report."""

# KFP fills a component's outputs in: they are not in its types. A pipeline's named tuple holds what tasks will put out.
# pyright: reportCallIssue=false

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from driftline.components.kernel import component as kernel
from driftline.components.mmd import component as mmd
from driftline.components.projection import component as projection
from driftline.components.sampling import component as sampling
from driftline.pipelines.profile import Profile

NAME = "driftline-drift"


class Verdict(NamedTuple):
    """What a drift run comes to, for a gate or a message behind it."""

    drift: bool
    p_value: float
    mmd2: float
    threshold: float
    report_uri: str
    status: str


def drift_pipeline(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""

    @dsl.pipeline(name=NAME, description="Tell whether a window of texts still looks like the reference.")
    def drift(
        reference: str,
        current: str,
        out: str,
        level: float = 0.05,
        permutations: int = 500,
        kernel_name: str = "search",
        gamma: str = "median",
        combination: str = "studentised",
        method: str = "auto",
        components: int = 32,
        sample: int = 0,
        tasks: int = 8,
        seed: int = 0,
        text_column: str = "text",
        history: str = "",
        as_of: str = "",
        min_rows: int = 0,
        when_small: str = "skip",
        when_partial: str = "compare",
    ) -> Verdict:
        """Compare two embeddings datasets by Maximum Mean Discrepancy.

        Args:
            reference: Embeddings dataset that the stream used to look like, a gs:// or local folder; or a window of a
                folder by date, such as gs://lake/reviews/date=-8d..-2d, in UTC and relative to as_of.
            current: Embeddings dataset or window to compare with it, such as gs://lake/reviews/date=yesterday or
                gs://lake/reviews/hour=-24h..-1h.
            out: Folder for report.html, result.json, witness.parquet and, while it runs, working files. {date}, {hour}
                and {run} in it are those of as_of and of the run. A folder that holds a report already gets the next
                one in a folder of its own.
            level: Accepted rate of false alarms, between 0 and 1.
            permutations: Random relabellings behind the p-value.
            kernel_name: Name of a kernel, or search for kernels of several shapes and widths in one test.
            gamma: Inverse squared length scale of one kernel, a number above 0, or median.
            combination: How the kernels of a search are combined.
            method: exact, cross (half of the pairs, no permutations), features (time linear in the rows), or auto.
            components: Principal components to compare; 0 for whole vectors.
            sample: At most this many rows of each dataset, chosen by the seed; 0 for all.
            tasks: Kernel tasks to share the work among, 200 at most.
            seed: Seed of sampling and relabelling.
            text_column: Carried column that holds the texts to show in the report.
            history: Folder of past results for the trend; empty for the folder history below out, before any
                placeholder.
            as_of: The moment that windows are relative to, an ISO 8601 date or time; empty for now. Give it to a run
                that is late or repeated, and it compares what it should have.
            min_rows: Rows that each window must have to be compared; 0 for the least that a test takes.
            when_small: What becomes of a run with an empty window or one of fewer rows, skip or refuse.
            when_partial: What becomes of a run with a window that lacks some of its days, compare, skip or refuse.

        Returns:
            drift: Whether the window no longer looks like the reference.
            p_value: The test's p-value; 1 for a run that was skipped.
            mmd2: Unbiased estimate of MMD².
            threshold: The statistic above which the test rejects.
            report_uri: Where the report is.
            status: compared, or skipped where there was nothing to compare.
        """
        sampled = profile.place(
            sampling.sample(
                reference=reference, current=current, out=out, size=sample, seed=seed, as_of=as_of, min_rows=min_rows,
                when_small=when_small, when_partial=when_partial, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            )
        )  # fmt: skip
        pooled = sampled.outputs["pooled_sample"]
        fitted = profile.place(projection.fit(pooled_sample=pooled, components=components))
        projected = profile.place(projection.project(pooled_sample=pooled, projection=fitted.outputs["projection"]))
        seen = projected.outputs["projected_sample"]
        planned = profile.place(
            kernel.plan(
                projected_sample=seen, kernel=kernel_name, gamma=gamma, combination=combination, method=method,
                permutations=permutations, level=level, seed=seed, tasks=tasks,
            )
        )  # fmt: skip
        plan = planned.outputs["kernel_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=profile.parallelism) as share:
            summed = profile.place(kernel.kernel_sums(share=share, kernel_plan=plan))
        tested = profile.place(mmd.mmd_test(kernel_plan=plan, combination=combination, level=level).after(summed))
        told = profile.place(
            mmd.report(
                pooled_sample=pooled, projection=fitted.outputs["projection"], projected_sample=seen,
                kernel_plan=plan, outcome=tested.outputs["outcome"], witness=tested.outputs["witness"],
                text_column=text_column, history=history,
            )
        )  # fmt: skip
        return Verdict(**{name: told.outputs[name] for name in Verdict._fields})

    return drift
